package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Where things stand on a host. Tests that need another tree run in a machine of their own.
const (
	sudoersDropIn = "/etc/sudoers.d/zz-pim-ssh"
	sshdDropIn    = "/etc/ssh/sshd_config.d/00-pim-ssh.conf"
	caFile        = "/etc/ssh/pim-ssh-ca.pub"
	principals    = "/usr/lib/pim-ssh/pim-principals"
	enforcingDir  = "/var/lib/pim-ssh/enforcing"
	undoRecord    = "/var/lib/pim-ssh/host/enforce.json"
)

// Problem is what stands in the way, with the next thing to do.
type Problem struct {
	Msg  string
	Hint string
}

func (p *Problem) Error() string { return p.Msg }

func problem(msg, hint string) error { return &Problem{Msg: msg, Hint: hint} }

// run calls one of the host's own tools and returns its output; its complaint is part of the error.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// write replaces a file of ours whole or not at all: a torn sudoers or sshd file can be wider than the whole (FACTS F8).
// The temporary name holds a dot and ends in ~, which sudoers.d and sshd's *.conf both pass over.
func write(path, content string, mode fs.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && string(have) == content {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replace(path, content, mode, 0, 0)
}

// amend is write for a file that is somebody else's: mode, owner and group stay theirs.
func amend(path, content string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return write(path, content, 0o644)
	}
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(path); err == nil && string(have) == content {
		return nil
	}
	stat, _ := info.Sys().(*syscall.Stat_t) // what Linux gives
	return replace(path, content, info.Mode().Perm(), int(stat.Uid), int(stat.Gid))
}

func replace(path, content string, mode fs.FileMode, uid, gid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pim-ssh.*.tmp~") // one for each writer: the agent and an operator may both be at it
	if err != nil {
		return err
	}
	tmp := f.Name()
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chown(uid, gid), f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// remove takes a file away; one that is not there is fine.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
