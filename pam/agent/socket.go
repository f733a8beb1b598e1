package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"pim-ssh/pam/wire"
)

// Sockets are the agent's two ears. PAM's answers root about accounts and sessions; the principals helper's answers
// its own account about certificates. Neither answers the other's questions.
type Sockets struct {
	PAM        *net.UnixListener
	Principals *net.UnixListener
}

const (
	// exchange is how long one question and its answer may take: the C side gives up after 0.8 s.
	exchange = 700 * time.Millisecond
	// atOnce is how many questions one socket answers at a time; more wait in the backlog.
	atOnce = 64
)

// ListenOwn makes the two sockets without systemd. The PAM socket is root's from the first moment; who may connect to
// the other is widened after it exists, never narrowed.
func ListenOwn(pamPath, principalsPath string, helperGroup int) (Sockets, error) {
	pam, err := listen(pamPath, -1, 0o600)
	if err != nil {
		return Sockets{}, err
	}
	principals, err := listen(principalsPath, helperGroup, 0o660)
	if err != nil {
		return Sockets{}, errors.Join(err, pam.Close())
	}
	return Sockets{PAM: pam, Principals: principals}, nil
}

func listen(path string, group int, mode os.FileMode) (*net.UnixListener, error) {
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, -1, group), os.Chmod(path, mode)); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// serve answers both sockets until ctx ends, and returns when the last answer is given.
func (a *Agent) serve(ctx context.Context, s Sockets) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	closing := context.AfterFunc(ctx, func() { _ = errors.Join(s.PAM.Close(), s.Principals.Close()) })
	defer closing()
	var group sync.WaitGroup
	errs := make([]error, 2)
	group.Go(func() { errs[0] = a.listen(ctx, s.PAM, a.mayAskPAM); stop() })
	group.Go(func() { errs[1] = a.listen(ctx, s.Principals, a.mayAskPrincipals); stop() })
	group.Wait()
	return errors.Join(errs...)
}

// listen accepts until ctx ends. At most atOnce connections are held; the rest wait in the kernel and, if it takes too
// long, are refused by their own deadline.
func (a *Agent) listen(ctx context.Context, l *net.UnixListener, may func(wire.Question, *peer) error) error {
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, atOnce)
	for {
		slots <- struct{}{}
		conn, err := a.accept(ctx, l)
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close() // nobody is answered any more
			}
			return nil
		}
		if err != nil {
			return err
		}
		group.Go(func() {
			defer func() { <-slots }()
			if err := a.converse(ctx, conn, may); err != nil {
				a.Log.Warn("question refused", "socket", l.Addr().String(), "error", err)
			}
		})
	}
}

// scarce is how long accept waits for what the machine is out of: descriptors, memory.
const scarce = 100 * time.Millisecond

// accept waits for the next connection. A machine that has no descriptor or memory left for one now has it again later, and
// the agent is still there then.
func (a *Agent) accept(ctx context.Context, l *net.UnixListener) (*net.UnixConn, error) {
	for said := false; ; said = true {
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return nil, fmt.Errorf("socket: %w", err)
		case !said:
			a.Log.Error("no connection taken, trying again", "socket", l.Addr().String(), "error", err)
		}
		select {
		case <-ctx.Done():
		case <-a.Clock.After(scarce):
		}
	}
}

// converse takes one question and gives one answer; without an answer the other side refuses.
func (a *Agent) converse(ctx context.Context, conn *net.UnixConn, may func(wire.Question, *peer) error) error {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, exchange) // also for what waits for a grant to open
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(exchange)); err != nil { // a timer of the kernel's, not a window: real time
		return err
	}
	p, err := peerOf(conn)
	if err != nil {
		return err
	}
	defer p.close()
	q, err := wire.ReadQuestion(conn)
	if err != nil {
		return fmt.Errorf("pid %d: %w", p.PID, err)
	}
	if p.gone != nil && !tells(q) {
		return fmt.Errorf("pid %d: %w", p.PID, p.gone)
	}
	if err := may(q, p); err != nil {
		return errors.Join(err, wire.WriteAnswer(conn, wire.Answer{}))
	}
	answer, then := a.answer(ctx, q, p)
	err = errors.Join(wire.WriteAnswer(conn, answer), conn.Close()) // the other side reads to the end
	if then != nil {
		then()
	}
	if tells(q) {
		return nil // nobody need read this answer
	}
	return err
}

// tells reports whether the module does not wait to be heard: who says it may be gone by now.
func tells(q wire.Question) bool {
	switch q.(type) {
	case *wire.Begun, *wire.Close:
		return true
	}
	return false
}

// mayAskPAM holds the PAM socket to root and to PAM's questions. Its mode says the same; this does not rely on it.
func (a *Agent) mayAskPAM(q wire.Question, p *peer) error {
	if p.effective != 0 {
		return fmt.Errorf("uid %d asked on root's socket", p.effective)
	}
	if _, wrong := q.(*wire.Principals); wrong {
		return errors.New("a certificate question on PAM's socket")
	}
	return nil
}

// mayAskPrincipals holds the other socket to the helper's account (and root, for diagnosis) and to its one question.
func (a *Agent) mayAskPrincipals(q wire.Question, p *peer) error {
	if p.effective != 0 && p.effective != a.Helper {
		return fmt.Errorf("uid %d asked on the principals socket", p.effective)
	}
	if _, right := q.(*wire.Principals); !right {
		return errors.New("a PAM question on the principals socket")
	}
	return nil
}
