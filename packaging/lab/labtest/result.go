package labtest

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long any one command may take; nothing in a lab is slow.
const patience = 3 * time.Minute

// Result is what a command left: its output and how it ended.
type Result struct {
	Out, Err string
	Code     int // exit code, or 128 + the signal that killed it
	Took     time.Duration
	args     []string
}

// Want stops the test unless the command ended with code.
func (r Result) Want(t testing.TB, code int) Result {
	t.Helper()
	if r.Code != code {
		t.Fatalf("lab %s: exit code %d, want %d\n%s%s", strings.Join(r.args, " "), r.Code, code, r.Out, r.Err)
	}
	return r
}

// Refused stops the test if the command succeeded.
func (r Result) Refused(t testing.TB) Result {
	t.Helper()
	if r.Code == 0 {
		t.Fatalf("lab %s: succeeded, want it refused\n%s%s", strings.Join(r.args, " "), r.Out, r.Err)
	}
	return r
}

// run runs the lab program to its end. The test stops when it takes longer than patience.
func (l *Lab) run(t testing.TB, input string, args []string) Result {
	t.Helper()
	cmd := l.Command(args...)
	var out, talk bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &talk
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { endGroup(cmd) })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("lab %s: not done after %v\n%s%s", strings.Join(args, " "), patience, &out, &talk)
	}
	return Result{out.String(), talk.String(), codeOf(err), time.Since(begun), args}
}

// codeOf is the exit code in what Wait returned, as a shell counts.
func codeOf(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// endGroup kills a command of ours with all that it started.
func endGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}
