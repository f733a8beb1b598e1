package enforce

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pim-ssh/pam/mortal"
)

// writerEnv makes this test binary a writer of the file that it names.
const writerEnv = "PIM_TEST_WRITER"

var older, newer = strings.Repeat("old\n", 3000), strings.Repeat("new!\n", 5000)

func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		if err := mortal.Ready(); err != nil {
			panic(err)
		}
		if err := write(path, newer, 0o440); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// Whoever dies while it writes what sudo or sshd reads leaves the old file or the new one, whole and with its mode, and beside
// it nothing that either of them reads.
func TestAWriterKilledAtEachSystemCall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zz-pim-ssh")
	saw := map[bool]int{}
	killed := mortal.AtEachSystemCall(t, writerEnv+"="+path, func(n int) {
		got, err := os.ReadFile(path)
		if err != nil && n > 1 || err == nil && string(got) != older && string(got) != newer {
			t.Errorf("killed at %d: %d bytes, %v", n, len(got), err)
		}
		saw[string(got) == newer]++
		wantOnly(t, filepath.Dir(path), fmt.Sprint("killed at ", n))
		if err := os.WriteFile(path+".~", []byte(older), 0o440); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".~", path); err != nil {
			t.Fatal(err)
		}
	})
	if killed < 10 || saw[false] < 8 || saw[true] < 2 {
		t.Errorf("killed %d times, old %d, new %d: it was not looked at at every step", killed, saw[false], saw[true])
	}
}

// wantOnly sees that sudoers.d and sshd_config.d would pass over every other file, and that the one has its mode.
func wantOnly(t *testing.T, dir, when string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		switch name := e.Name(); {
		case err != nil:
			t.Fatal(err)
		case name == "zz-pim-ssh" && info.Mode().Perm() != 0o440:
			t.Errorf("%s: mode %v", when, info.Mode())
		case name != "zz-pim-ssh" && (!strings.Contains(name, ".") || strings.HasSuffix(name, ".conf")):
			t.Errorf("%s: left %s, which is read", when, name)
		}
	}
}
