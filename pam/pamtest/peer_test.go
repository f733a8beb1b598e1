package pamtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pim-ssh/pam/wire"
)

// heard is one question and who, by the kernel's word, asked it.
type heard struct {
	q     wire.Question
	pid   int32
	peer  uint32 // the uid SO_PEERCRED says
	uid   string // the Uid line of /proc/PID/status: real, effective, saved, fs
	inner string // the pid in the sandbox
	line  bool   // said on a connection that had its answer
}

// peer is the other end of the module's socket: an agent that does as it is told.
type peer struct {
	t         testing.TB
	listener  *net.UnixListener
	incurious bool // do not look into /proc, which takes longer than all the rest
	mu        sync.Mutex
	heard     []heard
	hungUp    chan struct{} // closed when the module ends a connection; nil for nobody to be told
}

// script is what a peer does with one connection after it has read the question.
type script func(c *net.UnixConn, q wire.Question)

// answering is an honest agent with one answer.
func answering(a wire.Answer) script {
	return func(c *net.UnixConn, _ wire.Question) { _ = wire.WriteAnswer(c, a) }
}

// sending writes raw bytes and closes.
func sending(b []byte) script {
	return func(c *net.UnixConn, _ wire.Question) { _, _ = c.Write(b) }
}

var (
	allowing = answering(wire.Answer{Allow: true, Seconds: 600})
	denying  = answering(wire.Answer{Text: "no grant here; next: pim-ssh request"})
)

// silent reads the question and never answers; it ends when the client hangs up.
func silent(c *net.UnixConn, _ wire.Question) {
	_, _ = c.Read(make([]byte, 1))
}

// listen starts a peer at path; it ends with the test.
func listen(t testing.TB, path string, do script) *peer {
	t.Helper()
	fd, err := bound(path)
	if err == nil {
		err = syscall.Listen(fd, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, fd, do)
}

// listenAs is listen, but the kernel will say that uid listens.
func listenAs(t testing.TB, path string, uid int, do script) *peer {
	t.Helper()
	fd, err := bound(path)
	if err != nil {
		t.Fatal(err)
	}
	// Only this thread changes its effective uid, and only for the listen call.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	keep := ^uintptr(0)
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(uid), keep); e != 0 {
		t.Fatal(e)
	}
	err = syscall.Listen(fd, 64)
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 0, keep); e != 0 {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, fd, do)
}

// bound binds through the directory's descriptor: the paths of tests are long.
func bound(path string) (int, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	_ = os.Remove(path)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: short}); err != nil {
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	return fd, os.Chmod(path, 0o600)
}

func serve(t testing.TB, fd int, do script) *peer {
	t.Helper()
	f := os.NewFile(uintptr(fd), "peer")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, listener: l.(*net.UnixListener)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := p.listener.AcceptUnix()
			if err != nil {
				return
			}
			all.Go(func() { p.one(c, do) })
		}
	})
	t.Cleanup(func() {
		p.listener.Close()
		all.Wait()
	})
	return p
}

func (p *peer) one(c *net.UnixConn, do script) {
	defer c.Close()
	who := heard{}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			who.pid, who.peer = cred.Pid, cred.Uid
			if p.incurious {
				return
			}
			who.uid = statusLine(cred.Pid, "Uid")
			who.inner = filepath.Base(strings.ReplaceAll(statusLine(cred.Pid, "NSpid"), " ", "/"))
		}
	})
	who.q, err = wire.ReadQuestion(c)
	if errors.Is(err, io.EOF) {
		return // it looked at us and said nothing
	}
	if err != nil {
		p.t.Errorf("the module asked what cannot be read: %v", err)
		return
	}
	p.mu.Lock()
	p.heard = append(p.heard, who)
	p.mu.Unlock()
	do(c, who.q)
	_ = c.CloseWrite()
	for { // until the module hangs up
		more, err := wire.ReadQuestion(c)
		if err != nil && p.hungUp != nil {
			close(p.hungUp)
		}
		if err != nil {
			return
		}
		p.mu.Lock()
		p.heard = append(p.heard, heard{q: more, pid: who.pid, line: true})
		p.mu.Unlock()
	}
}

// questions is what was asked so far.
func (p *peer) questions() []heard {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]heard(nil), p.heard...)
}

// await is kinds once it is want, or after 2 s whatever it is then: the module
// does not wait for its close to be heard.
func (p *peer) await(want string) string {
	deadline := time.After(2 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.kinds() != want {
		select {
		case <-deadline:
			return p.kinds()
		case <-tick.C:
		}
	}
	return want
}

// kinds is the kinds and services asked so far: "A sudo, O sudo".
func (p *peer) kinds() string {
	var out []string
	for _, h := range p.questions() {
		switch q := h.q.(type) {
		case *wire.Account:
			out = append(out, "A "+q.Service)
		case *wire.Open:
			out = append(out, "O "+q.Service)
		case *wire.Begun:
			out = append(out, "B "+q.User)
		case *wire.Close:
			out = append(out, "C "+q.Service)
		case *wire.Principals:
			out = append(out, "P "+q.Account)
		}
	}
	return strings.Join(out, ", ")
}

// statusLine is one line of /proc/PID/status, single-spaced; "" when it is gone.
// Uid is real, effective, saved, fs; NSpid ends with the pid in the sandbox.
func statusLine(pid int32, key string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "\n"+key+":\t")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Join(strings.Fields(line), " ")
}
