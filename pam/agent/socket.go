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

// exchange is how long one question and its answer may take: the C side gives up after 0.8 s.
const exchange = 700 * time.Millisecond

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

// serve answers both sockets until ctx ends, and returns when the last answer is given. It closes both.
func (a *Agent) serve(ctx context.Context, s Sockets) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	errs := make([]error, 2)
	group.Go(func() { errs[0] = a.listen(ctx, s.PAM, a.mayAskPAM); stop() })
	group.Go(func() { errs[1] = a.listen(ctx, s.Principals, a.mayAskPrincipals); stop() })
	group.Wait()
	return errors.Join(errs...)
}

// listen answers what connects until ctx ends.
func (a *Agent) listen(ctx context.Context, l *net.UnixListener, may func(wire.Question, *peer) error) error {
	name := l.Addr().String()
	d, err := newDoor(l, a.Clock, a.Log.With("socket", name))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return d.serve(ctx, func(t *talk) {
		placed, err := a.converse(ctx, t, may)
		if err != nil {
			a.Log.Warn("question refused", "socket", name, "error", err)
		}
		if placed.line {
			line := t.keep()
			d.attending.Go(func() { a.attend(ctx, line, placed) })
		}
	})
}

// converse takes one question and gives one answer; without an answer the other side refuses. It returns the session that
// the answer names, of which more is heard on the connection.
func (a *Agent) converse(ctx context.Context, t *talk, may func(wire.Question, *peer) error) (session, error) {
	ctx, cancel := context.WithTimeout(ctx, exchange) // for what waits for a grant to open
	defer cancel()
	p, err := peerOf(t.fd)
	if err != nil {
		return session{}, fmt.Errorf("peer: %w", err)
	}
	defer p.close()
	q, err := wire.ReadQuestion(t)
	if err != nil {
		return session{}, fmt.Errorf("pid %d: %w", p.PID, err)
	}
	if err := may(q, p); err != nil {
		return session{}, errors.Join(err, wire.WriteAnswer(t, wire.Answer{}))
	}
	if _, told := q.(*wire.Close); told {
		a.closedBy(p) // the module tells and goes: nobody reads an answer
		return session{}, nil
	}
	answer, r := a.answer(ctx, q, p)
	err = errors.Join(wire.WriteAnswer(t, answer), t.saidAll()) // the other side reads to the end
	if r.then != nil {
		r.then()
	}
	return r.placed, err
}

// attend hears on the connection that placed a session what becomes of it: that it begins, and that it is over when the last
// process is gone that holds the other end. Nothing said here opens, moves or keeps anything.
func (a *Agent) attend(ctx context.Context, line io.ReadCloser, s session) {
	defer a.sessions.hungUp(s.N)
	stop := context.AfterFunc(ctx, func() { _ = line.Close() })
	defer stop()
	defer line.Close()
	q, err := wire.ReadQuestion(line)
	if begun, said := q.(*wire.Begun); said {
		a.begun(s, begun)
	}
	more, _ := io.Copy(io.Discard, line)
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
