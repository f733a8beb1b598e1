package pamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msteinert/pam/v2"
)

// conversation is one use of libpam by a process of its own: what sudo, sshd or
// su would do around our module, reduced to the calls that reach it.
type conversation struct {
	Service string
	User    string
	UID     int    // the process's real uid; its effective uid stays 0
	ConfDir string // where Service's stack is
	RUser   string
	RHost   string
	TTY     string
	Auth    string // SSH_AUTH_INFO_0
	Target  string // what PAM_USER becomes after account, as sudo sets it; "" for as it is
	Calls   string // of A(ccount), O(pen), C(lose), made in this order
	Cgroup  string // directory of the cgroup to talk from, "" for any
	Also    string // directory of a second hierarchy's cgroup, "" for any
	Silent  bool   // pass PAM_SILENT, as sudo does

	Pause time.Duration // after account
	Swap  string        // after account, what the highest socket becomes: "close" for nothing, "file" or "socket" for another; "" for as it is

	CloseLow bool   // close descriptors 0, 1 and 2 first
	Files    uint64 // RLIMIT_NOFILE, 0 for as it is
	Signals  bool   // receive a signal every millisecond
	Preload  string // LD_PRELOAD
	Env      []string
}

// told is what came of it.
type told struct {
	Results map[string]string        // by call: "success" or PAM's words
	Lasted  map[string]time.Duration // by call
	Swapped string                   // what is wrong with the other, once PAM has ended
	Said    []string                 // what the module gave the conversation: "info: …", "error: …"
	code    int                      // exit code of the process; 1 when the module ended it
	stderr  string
}

const conversationEnv = "PIM_PAMTEST_CONVERSATION"

// TestMain makes the test program its own conversing process.
func TestMain(m *testing.M) {
	spec := os.Getenv(conversationEnv)
	if spec != "" {
		if err := converse(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		return
	}
	var err error
	if builds, err = os.MkdirTemp("", "pamtest"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(builds)
	os.Exit(code)
}

// hold runs a conversation inside the sandbox.
func (s *sandbox) hold(c conversation) told {
	s.t.Helper()
	spec, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	env := []string{"env", conversationEnv + "=" + string(spec), "LD_PRELOAD=" + c.Preload}
	args := append(append(env, c.Env...), os.Args[0])
	if c.Cgroup != "" {
		args = in(c.Cgroup, args...)
	}
	if c.Also != "" {
		args = in(c.Also, args...)
	}
	cmd := s.command(ctx, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	report, _ := io.ReadAll(r)
	_ = cmd.Wait()
	out := told{code: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
	if len(report) > 0 {
		if err := json.Unmarshal(report, &out); err != nil {
			s.t.Fatalf("conversation: %v\n%s\n%s", err, report, &stderr)
		}
	}
	if out.code == 99 || out.code < 0 {
		s.t.Fatalf("conversation: exit %d\n%s", out.code, &stderr)
	}
	return out
}

// converse is the conversing process. It reports on descriptor 3.
func converse(spec string) error {
	runtime.LockOSThread()
	var c conversation
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	report := os.NewFile(3, "report")
	out := told{Results: map[string]string{}, Lasted: map[string]time.Duration{}}
	t, err := start(c, &out)
	if err != nil {
		return err
	}
	if err := hamper(c); err != nil {
		return err
	}
	flags := pam.Flags(0)
	if c.Silent {
		flags = pam.Silent
	}
	swap := &swapped{how: c.Swap}
	for _, letter := range c.Calls {
		call := map[rune]struct {
			name string
			do   func(pam.Flags) error
		}{'A': {"account", t.AcctMgmt}, 'O': {"open", t.OpenSession}, 'C': {"close", t.CloseSession}}[letter]
		begin := time.Now()
		out.Results[call.name] = verdict(call.do(flags))
		out.Lasted[call.name] = time.Since(begin)
		if letter == 'A' {
			if err := between(t, c, swap); err != nil {
				return err
			}
		}
	}
	if err := t.End(); err != nil {
		return err
	}
	out.Swapped = swap.wrong()
	return json.NewEncoder(report).Encode(out)
}

// between is what happens after account.
func between(t *pam.Transaction, c conversation, s *swapped) error {
	<-time.After(c.Pause)
	if err := s.take(); err != nil {
		return err
	}
	if c.Target == "" {
		return nil
	}
	return t.SetItem(pam.User, c.Target)
}

// swapped is a descriptor whose number was the module's.
type swapped struct {
	how    string
	number int
	far    int // the other end of what has the number now
}

// take gives the number of the newest socket to something else.
func (s *swapped) take() error {
	if s.how == "" {
		return nil
	}
	for fd := range 64 {
		if link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); strings.HasPrefix(link, "socket:") {
			s.number = fd
		}
	}
	if s.how == "close" {
		return syscall.Close(s.number)
	}
	pair := make([]int, 2)
	err := syscall.Pipe(pair)
	if s.how == "socket" {
		var two [2]int
		two, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		pair = []int{two[1], two[0]}
	}
	s.far = pair[0]
	return errors.Join(err, syscall.SetNonblock(s.far, true), syscall.Dup3(pair[1], s.number, 0), syscall.Close(pair[1]))
}

// wrong says what was done to it.
func (s *swapped) wrong() string {
	if s.far == 0 {
		return ""
	}
	if n, err := syscall.Read(s.far, make([]byte, 1)); err != syscall.EAGAIN {
		return fmt.Sprintf("what has the number now was written to or closed: %d, %v", n, err)
	}
	return ""
}

func start(c conversation, out *told) (*pam.Transaction, error) {
	say := pam.ConversationFunc(func(style pam.Style, text string) (string, error) {
		kind := map[pam.Style]string{pam.TextInfo: "info: ", pam.ErrorMsg: "error: "}[style]
		out.Said = append(out.Said, kind+text)
		return "", nil
	})
	t, err := pam.StartConfDir(c.Service, c.User, say, c.ConfDir)
	if err != nil {
		return nil, err
	}
	err = errors.Join(t.SetItem(pam.Ruser, c.RUser), t.SetItem(pam.Rhost, c.RHost), t.SetItem(pam.Tty, c.TTY))
	if c.Auth != "" {
		err = errors.Join(err, t.PutEnv("SSH_AUTH_INFO_0="+c.Auth))
	}
	return t, err
}

// hamper does to this process what a hostile caller can do to sudo.
func hamper(c conversation) error {
	if c.CloseLow {
		for fd := range 3 {
			syscall.Close(fd)
		}
	}
	if c.Signals {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1)
		go pester(syscall.Getpid(), syscall.Gettid())
	}
	if c.Files > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: c.Files, Max: c.Files}); err != nil {
			return err
		}
	}
	return syscall.Setresuid(c.UID, 0, 0)
}

// pester interrupts one thread for as long as the process lives.
func pester(pid, tid int) {
	for range time.Tick(time.Millisecond) {
		_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(pid), uintptr(tid), uintptr(syscall.SIGUSR1))
	}
}

func verdict(err error) string {
	if err == nil {
		return "success"
	}
	return err.Error()
}
