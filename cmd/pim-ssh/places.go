package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// programDir is our folder inside each XDG directory.
const programDir = "pim-ssh"

// configDir holds config.json: who the person is and which key speaks for them.
func (d *desk) configDir() (string, error) {
	if dir := d.env("PIM_SSH_CONFIG"); dir != "" {
		return dir, nil
	}
	return d.xdg("XDG_CONFIG_HOME", ".config")
}

// stateDir holds what was verified and must not be lost: the policy chain, hosts' enrolments, evidence of a fork.
func (d *desk) stateDir() (string, error) {
	return d.xdg("XDG_STATE_HOME", ".local/state")
}

// xdg follows the XDG base directory rules: a relative path in the variable does not count.
func (d *desk) xdg(variable, underHome string) (string, error) {
	if dir := d.env(variable); filepath.IsAbs(dir) {
		return filepath.Join(dir, programDir), nil
	}
	home := d.env("HOME")
	if !filepath.IsAbs(home) {
		return "", invalid("export HOME=…", "neither %s nor HOME names a directory", variable)
	}
	return filepath.Join(home, underHome, programDir), nil
}

// runtimeDir returns the directory for what must not outlive the login: made if need be, ours alone, mode 0700.
// Without XDG_RUNTIME_DIR it is /run/user/UID/pim-ssh, else a directory of ours in the temporary directory.
func (d *desk) runtimeDir() (string, error) {
	dir := d.runtimePath()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	return dir, d.onlyOurs(dir)
}

func (d *desk) runtimePath() string {
	if dir := d.env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, programDir)
	}
	uid := strconv.Itoa(d.uid)
	login := filepath.Join("/run/user", uid)
	if d.onlyOurs(login) == nil {
		return filepath.Join(login, programDir)
	}
	return filepath.Join(os.TempDir(), programDir+"-"+uid)
}

// onlyOurs refuses a directory that somebody else owns, can enter, or has put a link in place of.
func (d *desk) onlyOurs(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(owner.Uid) != d.uid {
		return invalid("export XDG_RUNTIME_DIR=a directory of yours with mode 0700", "%s is not a directory that only you can enter", dir)
	}
	return nil
}

// writeFile puts a whole file in place or leaves what was there: temporary name, fsync, rename.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // a no-op once renamed
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(temporary.Name(), path)
}
