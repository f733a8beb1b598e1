package labtest

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Lab is a set of running machines: brokers b1 …, hosts db1 web1 h3 …, and desk, where people sit.
type Lab struct {
	name string // LAB of the program: this lab's own
}

var count atomic.Int32

// Up boots a lab of its own, as `lab up FLAGS…` does ("--bare", "--brokers", "0" …), and takes it down when the test ends; also when
// the test binary is killed or panics. The test stops when the lab does not come up.
func Up(t testing.TB, flags ...string) *Lab {
	t.Helper()
	l := &Lab{name: fmt.Sprintf("t%d-%d", os.Getpid(), count.Add(1))}
	letGo := l.guard(t)
	t.Cleanup(func() {
		if t.Failed() {
			l.explain(t)
		}
		l.Do(t, "down")
		letGo()
	})
	if !slices.Contains(flags, "--bare") {
		if err := packaged(); err != nil {
			t.Fatal(err)
		}
	}
	l.Do(t, append([]string{"up"}, flags...)...)
	return l
}

// packaged makes the packages once for all labs of this process: nothing changes them meanwhile.
var packaged = sync.OnceValue(func() error {
	top := filepath.Join(filepath.Dir(program()), "../..")
	cache := cmp.Or(os.Getenv("LAB_CACHE"), filepath.Join(top, ".cache/lab"))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("flock", filepath.Join(cache, "build.lock"), "make", "-s", "-C", top, "package").CombinedOutput()
	if err != nil {
		return fmt.Errorf("make package: %w\n%s", err, out)
	}
	return os.Setenv("LAB_PACKAGED", "y")
})

// Name is what LAB is for the program: another process can use the same machines by it.
func (l *Lab) Name() string { return l.name }

// guard starts a process that takes the lab down as soon as ours is gone: it reads a pipe of which we alone hold the other end.
func (l *Lab) guard(t testing.TB) (letGo func()) {
	t.Helper()
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	guard := exec.Command("/bin/sh", "-c", `read _; exec "$0" down`, program())
	guard.Env = append(os.Environ(), "LAB="+l.name)
	guard.Stdin = theirs
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := guard.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	return func() {
		ours.Close()
		if err := guard.Wait(); err != nil {
			t.Errorf("lab %s: down, by its guard: %v", l.name, err)
		}
	}
}

// Do runs a verb of the lab, such as "cut", "db1"; the test stops when it fails.
func (l *Lab) Do(t testing.TB, args ...string) Result {
	t.Helper()
	return l.run(t, "", args).Want(t, 0)
}

// Cut takes a machine's network away.
func (l *Lab) Cut(t testing.TB, machine string) { t.Helper(); l.Do(t, "cut", machine) }

// CutTo loses what one machine sends to another, and only that, without a word to either.
func (l *Lab) CutTo(t testing.TB, from, to string) { t.Helper(); l.Do(t, "cut", from, "--to", to) }

// Heal undoes Cut, and every CutTo from that machine.
func (l *Lab) Heal(t testing.TB, machine string) { t.Helper(); l.Do(t, "heal", machine) }

// Kill ends pim-ssh's daemon on a machine by SIGKILL, and keeps it dead until Start.
func (l *Lab) Kill(t testing.TB, machine string) { t.Helper(); l.Do(t, "kill", machine) }

// KillMachine ends a machine as if its power were gone, until Start.
func (l *Lab) KillMachine(t testing.TB, machine string) {
	t.Helper()
	l.Do(t, "kill", machine, "--machine")
}

// Start undoes Kill and KillMachine, and returns when the machine is up.
func (l *Lab) Start(t testing.TB, machine string) { t.Helper(); l.Do(t, "start", machine) }

// As runs a command on desk as a person, with the person's account, keys and ssh-agent.
func (l *Lab) As(t testing.TB, person string, command ...string) Result {
	t.Helper()
	return l.run(t, "", append([]string{"as", person, "--"}, command...))
}

// Exec runs a command on a machine as root.
func (l *Lab) Exec(t testing.TB, machine string, command ...string) Result {
	t.Helper()
	return l.run(t, "", append([]string{"exec", machine, "--"}, command...))
}

// ExecAs runs a command on a machine as an account there, without a login.
func (l *Lab) ExecAs(t testing.TB, machine, account string, command ...string) Result {
	t.Helper()
	return l.run(t, "", append([]string{"exec", machine, "--as", account, "--"}, command...))
}

// Put writes a file on a running machine, owned by root, its directories made as needed.
func (l *Lab) Put(t testing.TB, machine, path string, mode os.FileMode, content []byte) {
	t.Helper()
	args := []string{"exec", machine, "--", "install", "-D", "-m", fmt.Sprintf("%04o", mode.Perm()), "/dev/stdin", path}
	l.run(t, string(content), args).Want(t, 0)
}

// Get reads a file of a running machine; the test stops when there is none.
func (l *Lab) Get(t testing.TB, machine, path string) []byte {
	t.Helper()
	return []byte(l.Exec(t, machine, "cat", path).Want(t, 0).Out)
}

// Journal is what a unit wrote to a running machine's journal since it booted.
func (l *Lab) Journal(t testing.TB, machine, unit string) string {
	t.Helper()
	return l.Exec(t, machine, "journalctl", "-q", "-o", "cat", "--no-pager", "-u", unit).Want(t, 0).Out
}

// Tree is where this machine's root directory is seen from outside, also while it is off. What is mounted inside (/run, /tmp, /proc)
// is not seen there, and absolute links in it lead astray.
func (l *Lab) Tree(t testing.TB, machine string) string {
	t.Helper()
	holder, err := os.ReadFile(filepath.Join("/run/pim-lab", l.name, "holder"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join("/proc", strings.TrimSpace(string(holder)), "root/run/pim-lab", l.name, "disks", machine, "root")
}

// Command is the lab program called with args, for a test that wants its pipes; give it to nobody else.
func (l *Lab) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(program(), args...)
	cmd.Env = append(os.Environ(), "LAB="+l.name)
	// What a command leaves behind in a machine may hold its output open: that is no reason to wait.
	cmd.WaitDelay = time.Second
	// In a group of its own, so that it can be ended with all it started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// explain shows a failed test what the daemons had to say.
func (l *Lab) explain(t testing.TB) {
	t.Helper()
	machines, err := os.ReadFile(filepath.Join("/run/pim-lab", l.name, "order"))
	if err != nil {
		return // it never came up
	}
	for machine := range strings.FieldsSeq(string(machines)) {
		if machine == "desk" {
			continue
		}
		last := l.Exec(t, machine, "journalctl", "-q", "-n", "40", "--no-pager", "-u", "pim-brokerd", "-u", "pim-hostd", "-u", "ssh")
		t.Logf("%s, the last of its journal:\n%s%s", machine, last.Out, last.Err)
	}
}

// program is packaging/lab/lab of the tree this file is in.
func program() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "lab")
}
