package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/pam/mortal"
)

// writerEnv makes this test binary an agent that writes a grant's sudoers file into the directory it names.
const writerEnv = "PIM_TEST_WRITER"

func init() { runtime.LockOSThread() } // mortal counts the main thread's system calls

// granted is a grant of one long command: cut anywhere, its rule would be wider than the whole (FACTS F8).
func granted(command policy.Command) broker.Grant {
	return broker.Grant{Stem: stemForTests, Account: "alice", Until: 2_000_000_000, Sudo: []policy.SudoRule{{As: "root", Commands: []policy.Command{command}}}}
}

var (
	older = granted("/usr/bin/id -un")
	newer = granted(policy.Command("/usr/bin/id" + strings.Repeat(" -un", 100)))
)

// beWriter does what writeSudoers does once sudo's parsers have agreed: they are programs of their own.
func beWriter(dir string) error {
	text, err := renderSudoers(newer.Stem, sudoRules(newer))
	if err != nil {
		return err
	}
	if err := mortal.Ready(); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, newer.Stem.SudoersFile()), text, sudoersMode)
}

// An agent that dies while it writes a grant's rules leaves the old ones or the new ones, and beside them nothing that sudo reads.
func TestASudoersWriteKilledAtEachSystemCall(t *testing.T) {
	dir := t.TempDir()
	want := map[string][]byte{}
	for name, g := range map[string]broker.Grant{"old": older, "new": newer} {
		text, err := renderSudoers(g.Stem, sudoRules(g))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = text
	}
	put := func() {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o750), writeFile(filepath.Join(dir, older.Stem.SudoersFile()), want["old"], sudoersMode)); err != nil {
			t.Fatal(err)
		}
	}
	put()
	saw := map[string]int{}
	killed := mortal.AtEachSystemCall(t, writerEnv+"="+dir, func(n int) {
		saw[onlyOf(t, dir, want, fmt.Sprint("killed at ", n))]++
		put()
	})
	if killed < 10 || saw["old"] < 8 || saw["new"] < 2 {
		t.Errorf("killed %d times, saw %v: not every step was looked at", killed, saw)
	}
}

// onlyOf says which text sudo would read in dir, and sees that it is one of those, with sudo's mode, and nothing else.
func onlyOf(t *testing.T, dir string, want map[string][]byte, when string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := "none"
	for _, e := range entries {
		if strings.Contains(e.Name(), ".") || strings.HasSuffix(e.Name(), "~") {
			continue // sudo passes it over
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		info, errInfo := e.Info()
		if err != nil || errInfo != nil || info.Mode().Perm() != sudoersMode {
			t.Errorf("%s: %s: %v, %v", when, e.Name(), errors.Join(err, errInfo), info)
		}
		for name := range want {
			if bytes.Equal(text, want[name]) && e.Name() == older.Stem.SudoersFile() {
				found = name
			}
		}
		if found == "none" {
			t.Errorf("%s: %s holds\n%s", when, e.Name(), text)
		}
	}
	return found
}
