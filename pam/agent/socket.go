package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
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
			defer conn.Close()
			placed, err := a.converse(ctx, conn, may)
			<-slots
			if err != nil {
				a.Log.Warn("question refused", "socket", l.Addr().String(), "error", err)
			}
			if placed.line {
				a.attend(ctx, conn, placed)
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

// converse takes one question and gives one answer; without an answer the other side refuses. It returns the session that
// the answer names, of which more is heard on the connection.
func (a *Agent) converse(ctx context.Context, conn *net.UnixConn, may func(wire.Question, *peer) error) (session, error) {
	ctx, cancel := context.WithTimeout(ctx, exchange) // also for what waits for a grant to open
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(exchange)); err != nil { // a timer of the kernel's, not a window: real time
		return session{}, err
	}
	p, err := peerOf(conn)
	if err != nil {
		return session{}, err
	}
	defer p.close()
	q, err := wire.ReadQuestion(conn)
	if err != nil {
		return session{}, fmt.Errorf("pid %d: %w", p.PID, err)
	}
	if err := may(q, p); err != nil {
		return session{}, errors.Join(err, wire.WriteAnswer(conn, wire.Answer{}))
	}
	if _, told := q.(*wire.Close); told {
		a.closedBy(p) // the module tells and goes: nobody reads an answer
		return session{}, nil
	}
	answer, r := a.answer(ctx, q, p)
	err = errors.Join(wire.WriteAnswer(conn, answer), conn.CloseWrite()) // the other side reads to the end
	if r.then != nil {
		r.then()
	}
	return r.placed, err
}

// attend hears on the connection that placed a session what becomes of it: that it begins, and that it is over when the last
// process is gone that holds the other end. Nothing said here opens, moves or keeps anything.
func (a *Agent) attend(ctx context.Context, conn *net.UnixConn, s session) {
	defer a.sessions.hungUp(s.N)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Time{}) // it ends when it ends; where that fails it has
	q, err := wire.ReadQuestion(conn)
	if begun, said := q.(*wire.Begun); said {
		a.begun(s, begun)
	}
	more, _ := io.Copy(io.Discard, conn)
	if ctx.Err() != nil {
		return // the next agent hears no more of it, and looks at what lives
	}
	if _, said := q.(*wire.Begun); more > 0 || !said && !errors.Is(err, io.EOF) {
		a.Log.Warn("a session said what means nothing", "session", s.name(), "grant", s.Stem.Grant(), "question", fmt.Sprintf("%T", q), "more", more, "error", err)
	}
	a.closeSession(s.N)
}

// mayAskPAM holds the PAM socket to root and to PAM's questions. Its mode says the same; this does not rely on it.
func (a *Agent) mayAskPAM(q wire.Question, p *peer) error {
	if p.effective != 0 {
		return fmt.Errorf("uid %d asked on root's socket", p.effective)
	}
	switch q.(type) {
	case *wire.Account, *wire.Open, *wire.Close:
		return nil
	default:
		return fmt.Errorf("%T on PAM's socket", q)
	}
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
