package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"pim-ssh/broker/statement"
)

// Apply makes the host enforce the plan, and is idempotent: the agent calls it again when the policy changes. Each
// file is checked by the tool that reads it, the whole is verified last, and on any failure of a first enforcement
// everything is taken back, so that a half-enforced host never stands. The order keeps every moment safe: the module
// learns whom it governs before sshd and sudo send anybody its way.
func Apply(ctx context.Context, p Plan) error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	p = p.withAliases(string(passwd))
	if err := p.Check(); err != nil {
		return err
	}
	first := !Enforcing()
	if first {
		if err := agentStands(ctx); err != nil {
			return err
		}
	}
	if err := apply(ctx, p, string(passwd)); err != nil {
		if first {
			return errors.Join(err, Undo(context.WithoutCancel(ctx)))
		}
		return err
	}
	return nil
}

func apply(ctx context.Context, p Plan, passwd string) error {
	steps := []func() error{
		func() error { return govern(p.Governed) },
		func() error { return lockSchedulers(ctx, p.Governed, passwd) },
		func() error { return writeSSHD(ctx, p) },
		func() error { return writeSudoers(ctx, p) },
		func() error { return enableProfiles(ctx, "pim-ssh", "systemd+pim-ssh") },
		stayInside,
		func() error { return reloadSSH(ctx) },
		func() error { return Verify(ctx, p) },
		func() error { return ungovern(p.Governed) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// agentStands refuses to begin without an agent that runs and will run after a reboot: everybody but root would be shut out.
func agentStands(ctx context.Context) error {
	for _, ask := range [][]string{{"is-active", "pim-hostd.socket"}, {"is-active", "pim-hostd.service"}, {"is-enabled", "pim-hostd.socket"}, {"is-enabled", "pim-hostd.service"}} {
		if _, err := run(ctx, "systemctl", ask...); err != nil {
			return problem("without the agent nobody but root could use sudo here: "+err.Error(), "systemctl enable --now pim-hostd.socket pim-hostd.service")
		}
	}
	return nil
}

// Enforcing reports whether this host refuses (true) or only says what it would refuse. A state directory that cannot be
// read counts as there, as it does for the module.
func Enforcing() bool {
	_, err := os.Lstat(enforcingDir)
	return !errors.Is(err, fs.ErrNotExist)
}

// govern adds names before anything sends them to the module. The directory appears whole: a host that enforces and
// governs nobody never stands.
func govern(accounts []statement.Account) error {
	dir := enforcingDir
	if !Enforcing() {
		dir += ".new"
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, a := range accounts {
		if err := write(filepath.Join(dir, string(a)), "", 0o644); err != nil {
			return err
		}
	}
	if dir == enforcingDir {
		return nil
	}
	return os.Rename(dir, enforcingDir)
}

// ungovern drops the names that the policy no longer reaches, last, when sshd no longer sends them our way.
func ungovern(keep []statement.Account) error {
	entries, err := os.ReadDir(enforcingDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(keep, statement.Account(e.Name())) {
			continue
		}
		if err := remove(filepath.Join(enforcingDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func writeSSHD(ctx context.Context, p Plan) error {
	if _, err := os.Stat("/etc/ssh/sshd_config"); err != nil {
		return problem("this host has no sshd: "+err.Error(), "apt install openssh-server")
	}
	if err := write(caFile, p.CAFile(), 0o644); err != nil {
		return err
	}
	if err := write(sshdDropIn, p.SSHD(), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return err
	}
	if _, err := run(ctx, "sshd", "-t"); err != nil {
		return problem(err.Error(), "sshd refuses its configuration; run: sshd -t")
	}
	return nil
}

// writeSudoers has visudo read the new text before it goes live, and the whole configuration after.
func writeSudoers(ctx context.Context, p Plan) error {
	scratch, err := os.MkdirTemp("", "pim-ssh-sudoers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	trial := filepath.Join(scratch, "trial")
	if err := os.WriteFile(trial, []byte(p.Sudoers()), 0o440); err != nil {
		return err
	}
	if _, err := run(ctx, "visudo", "-cqf", trial); err != nil {
		return fmt.Errorf("generated sudoers: %w", err)
	}
	if err := write(sudoersDropIn, p.Sudoers(), 0o440); err != nil {
		return err
	}
	if _, err := run(ctx, "visudo", "-cq"); err != nil {
		return problem(err.Error(), "sudoers has an error outside pim-ssh; run: visudo -c")
	}
	return nil
}

func reloadSSH(ctx context.Context) error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil // no systemd runs here (a container, an image being made), and so no sshd that it started
	}
	if _, err := run(ctx, "systemctl", "try-reload-or-restart", "ssh.service"); err != nil {
		return problem(err.Error(), "systemctl status ssh")
	}
	return nil
}

// Observe installs only the PAM lines, whose outcomes are all success while the host does not enforce, and takes back
// whatever enforcement wrote.
func Observe(ctx context.Context) error {
	if err := Undo(ctx); err != nil {
		return err
	}
	return enableProfiles(ctx, "pim-ssh")
}

// Undo gives /etc back: afterwards nothing of ours stands there. The module stops refusing first, so that no moment
// locks anybody out.
func Undo(ctx context.Context) error {
	return errors.Join(
		os.RemoveAll(enforcingDir),
		disableProfiles(ctx),
		leaveStacks(),
		remove(sudoersDropIn),
		remove(sshdDropIn),
		remove(caFile),
		unlockSchedulers(ctx),
		reloadSSH(ctx),
	)
}

// Release is Undo for a host that pim-ssh leaves, and sees that it may: a PAM stack that names a module which is gone
// refuses everybody (FACTS F13). It is idempotent. Windows that are open run to their end, which is systemd's to keep.
func Release(ctx context.Context) error {
	if err := Undo(ctx); err != nil {
		return err
	}
	return verifyReleased()
}
