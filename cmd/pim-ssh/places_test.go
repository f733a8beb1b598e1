package main

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pim-ssh/broker"
)

// desk is the seat's desk without a command, for tests of single steps.
func (s *seat) desk(flags ...string) *desk {
	s.t.Helper()
	out := s.sink()
	s.t.Cleanup(func() { out.Close() })
	d := &desk{world: world{
		stdout: out, stderr: out, env: func(k string) string { return s.env[k] }, now: s.tick, random: rand.Reader, uid: os.Getuid(),
	}}
	d.noInput = len(flags) > 0
	d.open()
	return d
}

func TestDirectoriesFollowXDG(t *testing.T) {
	for name, c := range map[string]struct {
		env           map[string]string
		config, state string // "" is refused
	}{
		"defaults under home": {map[string]string{"HOME": "/h"}, "/h/.config/pim-ssh", "/h/.local/state/pim-ssh"},
		"variables":           {map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}, "/c/pim-ssh", "/s/pim-ssh"},
		"PIM_SSH_CONFIG wins": {map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c", "PIM_SSH_CONFIG": "/p"}, "/p", "/h/.local/state/pim-ssh"},
		"relative ones do not count": {map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "s"},
			"/h/.config/pim-ssh", "/h/.local/state/pim-ssh"},
		"no home at all": {map[string]string{}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{world: world{env: func(k string) string { return c.env[k] }}}
			config, _ := d.configDir()
			state, _ := d.stateDir()
			if config != c.config || state != c.state {
				t.Errorf("config %q, state %q; want %q, %q", config, state, c.config, c.state)
			}
		})
	}
}

func TestRuntimeDirectoryIsOursAloneOrNotUsed(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error // makes what is at the runtime path
		fine    bool
	}{
		"not there yet":          {func(string) error { return nil }, true},
		"ours":                   {func(dir string) error { return os.Mkdir(dir, 0o700) }, true},
		"open to the group":      {func(dir string) error { return mkdirMode(dir, 0o750) }, false},
		"open to all":            {func(dir string) error { return mkdirMode(dir, 0o777) }, false},
		"a file":                 {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, false},
		"a link somewhere else":  {func(dir string) error { return os.Symlink(os.TempDir(), dir) }, false},
		"owned by somebody else": {func(dir string) error { return mkdirOwner(dir, 65534) }, os.Getuid() != 0},
	} {
		t.Run(name, func(t *testing.T) {
			seat := newSeat(t, t.TempDir())
			if err := c.prepare(filepath.Join(seat.env["XDG_RUNTIME_DIR"], "pim-ssh")); err != nil {
				t.Fatal(err)
			}
			_, err := seat.desk().runtimeDir()
			if (err == nil) != c.fine {
				t.Errorf("got %v, fine should be %v", err, c.fine)
			}
		})
	}
}

func mkdirMode(dir string, mode fs.FileMode) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

// mkdirOwner gives the directory away where the test runs as root, and leaves it where it does not.
func mkdirOwner(dir string, uid int) error {
	if err := os.Mkdir(dir, 0o700); err != nil || os.Getuid() != 0 {
		return err
	}
	return os.Chown(dir, uid, uid)
}

func TestKeptKeysAreReadableByTheirOwnerOnlyAndGoAway(t *testing.T) {
	seat := newSeat(t, t.TempDir())
	d := seat.desk()
	stem := broker.StemOf([32]byte{1})
	private := newKey(t)
	if err := d.keep(stem, private); err != nil {
		t.Fatal(err)
	}
	path, _ := d.keyPath(stem)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	again, err := d.kept(stem)
	if err != nil || !again.Equal(private) {
		t.Fatalf("the kept key is another: %v", err)
	}
	if err := d.drop(stem); err != nil {
		t.Fatal(err)
	}
	if again, err := d.kept(stem); again != nil || err != nil {
		t.Errorf("dropped, and there is %v, %v", again, err)
	}
}
