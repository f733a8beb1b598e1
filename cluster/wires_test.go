package cluster

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is one direction of a connection in memory. It takes what is written at once.
type stream struct {
	mu    sync.Mutex
	data  []byte
	over  bool
	until time.Time     // readers wait no longer
	news  chan struct{} // closed and replaced when any of these change
}

func newStream() *stream { return &stream{news: make(chan struct{})} }

func (s *stream) change(with func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	with()
	close(s.news)
	s.news = make(chan struct{})
}

// take reads what there is; without any it says what to wait for.
func (s *stream) take(p []byte) (n int, news chan struct{}, until time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n = copy(p, s.data); {
	case n > 0:
		s.data = s.data[n:]
	case s.over:
		err = io.EOF
	case !s.until.IsZero() && !time.Now().Before(s.until):
		err = os.ErrDeadlineExceeded
	}
	return n, s.news, s.until, err
}

func (s *stream) read(p []byte) (int, error) {
	for {
		n, news, until, err := s.take(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		var late <-chan time.Time
		if !until.IsZero() {
			late = time.After(time.Until(until))
		}
		select {
		case <-news:
		case <-late:
		}
	}
}

// wire is one side of a connection in memory: nothing but goroutines of this process is waited for, so a bubble's clock goes on.
type wire struct {
	in, out      *stream
	local, other address
}

func newWire(from, to string) (near, far *wire) {
	there, back := newStream(), newStream()
	return &wire{back, there, address(from), address(to)}, &wire{there, back, address(to), address(from)}
}

func (w *wire) Read(p []byte) (int, error) { return w.in.read(p) }

func (w *wire) Write(p []byte) (n int, err error) {
	w.out.change(func() {
		if w.out.over {
			err = net.ErrClosed
			return
		}
		w.out.data, n = append(w.out.data, p...), len(p)
	})
	return n, err
}

func (w *wire) Close() error {
	for _, s := range []*stream{w.in, w.out} {
		s.change(func() { s.over = true })
	}
	return nil
}

func (w *wire) LocalAddr() net.Addr                { return w.local }
func (w *wire) RemoteAddr() net.Addr               { return w.other }
func (w *wire) SetWriteDeadline(_ time.Time) error { return nil }
func (w *wire) SetDeadline(t time.Time) error      { return w.SetReadDeadline(t) }
func (w *wire) SetReadDeadline(t time.Time) error {
	w.in.change(func() { w.in.until = t })
	return nil
}

// porch is a listener in memory.
type porch struct {
	mute
	come chan net.Conn
}

func newPorch() *porch { return &porch{mute{closed: make(chan struct{})}, make(chan net.Conn)} }

func (p *porch) Accept() (net.Conn, error) {
	select {
	case conn := <-p.come:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
