package labtest

import (
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Session is a command that goes on while the test does other things, such as an ssh held open.
type Session struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	done  chan struct{} // closed when the command has ended
	err   error         // of Wait; read it after done

	mu     sync.Mutex
	output strings.Builder // both streams, as they came
}

// Begin starts a command on desk as a person, on a terminal of its own. The command ends with the test.
func (l *Lab) Begin(t testing.TB, person string, command ...string) *Session {
	t.Helper()
	return l.BeginLab(t, append([]string{"as", person, "-t", "--"}, command...)...)
}

// BeginLab starts the lab program with args ("as", "alice", "--", …): without "-t" there is no terminal.
func (l *Lab) BeginLab(t testing.TB, args ...string) *Session {
	t.Helper()
	s := &Session{cmd: l.Command(args...), done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s, s
	var err error
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(s.End)
	return s
}

// Write takes the command's output. It is not for tests.
func (s *Session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.Write(p)
}

// Output is all that came so far.
func (s *Session) Output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

// Type sends a line as if typed.
func (s *Session) Type(t testing.TB, line string) {
	t.Helper()
	if _, err := io.WriteString(s.input, line+"\n"); err != nil {
		t.Fatalf("typing %q: %v\n%s", line, err, s.Output())
	}
}

// Expect waits until the output contains words, and stops the test when they do not come in time.
func (s *Session) Expect(t testing.TB, words string, within time.Duration) {
	t.Helper()
	if !Poll(within, func() bool { return strings.Contains(s.Output(), words) || s.Ended() }) || !strings.Contains(s.Output(), words) {
		t.Fatalf("%q did not come within %v:\n%s", words, within, s.Output())
	}
}

// Ended says whether the command is over.
func (s *Session) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Wait waits for the command's own end, and stops the test when it does not come in time. Result.Out holds both streams.
func (s *Session) Wait(t testing.TB, within time.Duration) Result {
	t.Helper()
	select {
	case <-s.done:
		return Result{Out: s.Output(), Code: codeOf(s.err), args: s.cmd.Args[1:]}
	case <-time.After(within):
		t.Fatalf("lab %s: goes on after %v\n%s", strings.Join(s.cmd.Args[1:], " "), within, s.Output())
		return Result{}
	}
}

// End ends the command by SIGKILL, at the near end: what it started on other machines learns of it as from a lost connection.
func (s *Session) End() {
	endGroup(s.cmd)
	<-s.done
}
