package clustertest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"pim-ssh/broker/statement"
)

// What the network is like when nobody breaks it.
const (
	quickest = 50 * time.Microsecond
	slowest  = 2 * time.Millisecond
	resend   = 200 * time.Millisecond // what TCP waits before it sends a lost segment again
	inFlight = 256 << 10              // bytes that a connection takes before its writer waits
	backlog  = 64
)

var (
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset")
)

// way is one direction between two brokers.
type way struct{ from, to statement.BrokerName }

// weather is what befalls one way.
type weather struct {
	cut   bool          // nothing arrives until it is healed; TCP would go on sending
	delay time.Duration // at most so much more for every write
	loss  float64       // how often a write is lost: it arrives late, and now and then its connection breaks
}

// Wires is the network between brokers: in memory, on the bubble's clock, each way broken by itself. What is lost on a
// TCP connection comes late and in order, so writes overtake each other only between connections.
type Wires struct {
	mu      sync.Mutex
	random  *rand.Rand
	weather map[way]weather
	frozen  map[statement.BrokerName]bool
	changed chan struct{} // closed and replaced when weather or frozen change
	doors   map[statement.BrokerName]*door
	sides   map[*side]bool // every open side of every connection
	Broken  int            // connections that broke
}

func newWires(seed uint64) *Wires {
	return &Wires{random: rand.New(rand.NewPCG(seed, 1)), weather: map[way]weather{}, frozen: map[statement.BrokerName]bool{},
		changed: make(chan struct{}), doors: map[statement.BrokerName]*door{}, sides: map[*side]bool{}}
}

func (w *Wires) change(with func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	with()
	close(w.changed)
	w.changed = make(chan struct{})
}

// Set gives one way its weather.
func (w *Wires) set(from, to statement.BrokerName, is weather) {
	w.change(func() { w.weather[way{from, to}] = is })
}

func (w *Wires) of(from, to statement.BrokerName) weather {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.weather[way{from, to}]
}

// freeze stops or continues one broker's traffic.
func (w *Wires) freeze(name statement.BrokerName, frozen bool) {
	w.change(func() { w.frozen[name] = frozen })
}

// thawed waits until a broker is not frozen.
func (w *Wires) thawed(ctx context.Context, name statement.BrokerName) error {
	for {
		w.mu.Lock()
		frozen, changed := w.frozen[name], w.changed
		w.mu.Unlock()
		if !frozen {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// late draws how long one write takes on a way, and whether its connection breaks.
func (w *Wires) late(from, to statement.BrokerName) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	is := w.weather[way{from, to}]
	d := quickest + time.Duration(w.random.Int64N(int64(slowest-quickest)))
	if is.delay > 0 {
		d += time.Duration(w.random.Int64N(int64(is.delay)))
	}
	for is.loss > 0 && w.random.Float64() < is.loss {
		d = 2*d + resend
	}
	return d, d > 16*resend
}

// travel takes a message between two brokers, as long as that takes.
func (w *Wires) travel(ctx context.Context, from, to statement.BrokerName) error {
	d, broken := w.late(from, to)
	if err := pause(ctx, d); err != nil {
		return err
	}
	if broken {
		return errReset
	}
	for {
		w.mu.Lock()
		held, changed := w.weather[way{from, to}].cut || w.frozen[from] || w.frozen[to], w.changed
		w.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause waits for a while, or as long as ctx lasts.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// door is one broker's listener.
type door struct {
	name   statement.BrokerName
	coming chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// listen opens a broker's door, in place of the one it had.
func (w *Wires) listen(name statement.BrokerName) *door {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &door{name: name, coming: make(chan net.Conn, backlog), closed: make(chan struct{})}
	w.doors[name] = d
	return d
}

// Accept waits for a connection.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.coming:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// Addr is the broker's name.
func (d *door) Addr() net.Addr { return named(d.name) }

// named is a broker's name as an address.
type named statement.BrokerName

// Network names no network.
func (named) Network() string { return "memory" }

func (n named) String() string { return string(n) }

// dial connects two brokers.
func (w *Wires) dial(ctx context.Context, from, to statement.BrokerName) (*side, error) {
	if err := w.travel(ctx, from, to); err != nil {
		return nil, err
	}
	if err := w.travel(ctx, to, from); err != nil {
		return nil, err
	}
	there, back := newStream(from, to), newStream(to, from)
	mine, theirs := &side{wires: w, in: back, out: there}, &side{wires: w, in: there, out: back}
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.doors[to]
	if d == nil {
		return nil, errRefused
	}
	select {
	case <-d.closed:
		return nil, errRefused
	default:
	}
	select {
	case d.coming <- theirs:
		w.sides[mine], w.sides[theirs] = true, true
		return mine, nil
	default:
		return nil, errRefused
	}
}

// part ends every connection of a broker. After a kill the kernel says so to the other side; a machine without power
// says nothing.
func (w *Wires) part(name statement.BrokerName, silent bool) {
	w.mu.Lock()
	var ours []*side
	for s := range w.sides {
		if s.out.from == name || s.in.from == name && silent {
			ours = append(ours, s)
		}
	}
	w.mu.Unlock()
	for _, s := range ours {
		if silent {
			s.out.lose()
			continue
		}
		s.Close()
	}
}

// closeAll ends every connection there is.
func (w *Wires) closeAll() {
	w.mu.Lock()
	all := make([]*side, 0, len(w.sides))
	for s := range w.sides {
		all = append(all, s)
	}
	w.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
}

// chunk is one write on its way.
type chunk struct {
	due   time.Time
	bytes []byte
}

// stream is one direction of a connection.
type stream struct {
	way
	mu     sync.Mutex
	queue  []chunk
	size   int
	last   time.Time // nothing overtakes
	ended  bool      // its writer closed it
	unread bool      // its reader closed it
	lost   bool      // nothing arrives any more
	moved  chan struct{}
}

func newStream(from, to statement.BrokerName) *stream {
	return &stream{way: way{from, to}, moved: make(chan struct{})}
}

// change changes the stream and wakes who waits for that.
func (s *stream) change(with func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	with()
	close(s.moved)
	s.moved = make(chan struct{})
}

func (s *stream) lose() { s.change(func() { s.lost = true }) }

// side is one end of a connection.
type side struct {
	wires   *Wires
	in, out *stream

	mu          sync.Mutex
	readBefore  time.Time
	writeBefore time.Time
}

// Peer is the broker at the other end.
func (s *side) peer() statement.BrokerName { return s.in.from }

func (s *side) gate(name statement.BrokerName, is way) (bool, chan struct{}) {
	s.wires.mu.Lock()
	defer s.wires.mu.Unlock()
	return s.wires.frozen[name] || name == is.to && s.wires.weather[is].cut, s.wires.changed
}

// Read takes what has arrived.
func (s *side) Read(p []byte) (int, error) {
	for {
		held, changed := s.gate(s.in.to, s.in.way)
		s.mu.Lock()
		before := s.readBefore
		s.mu.Unlock()
		n, wait, moved, err := s.in.take(p, held)
		if n > 0 || err != nil {
			return n, err
		}
		if err := wake(before, wait, moved, changed); err != nil {
			return 0, err
		}
	}
}

// take returns what is due; else how long until something is (0: nobody knows) and what to wait for.
func (s *stream) take(p []byte, held bool) (int, time.Duration, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.unread:
		return 0, 0, nil, net.ErrClosed
	case held || s.lost:
		return 0, 0, s.moved, nil
	case len(s.queue) == 0 && s.ended:
		return 0, 0, nil, io.EOF
	case len(s.queue) == 0:
		return 0, 0, s.moved, nil
	}
	head := &s.queue[0]
	if wait := time.Until(head.due); wait > 0 {
		return 0, wait, s.moved, nil
	}
	n := copy(p, head.bytes)
	head.bytes = head.bytes[n:]
	s.size -= n
	if len(head.bytes) == 0 {
		s.queue = s.queue[1:]
	}
	close(s.moved)
	s.moved = make(chan struct{})
	return n, 0, nil, nil
}

// wake waits for a change, for at most wait, and fails at the deadline.
func wake(before time.Time, wait time.Duration, moved, changed chan struct{}) error {
	var due, late <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	if !before.IsZero() {
		timer := time.NewTimer(time.Until(before))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-due:
	case <-moved:
	case <-changed:
	case <-late:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Write sends p on its way.
func (s *side) Write(p []byte) (int, error) {
	d, broken := s.wires.late(s.out.from, s.out.to)
	if broken {
		s.wires.mu.Lock()
		s.wires.Broken++
		s.wires.mu.Unlock()
		return 0, errors.Join(errReset, s.Close())
	}
	for {
		held, changed := s.gate(s.out.from, s.out.way)
		s.mu.Lock()
		before := s.writeBefore
		s.mu.Unlock()
		sent, moved, err := s.out.put(p, d, held)
		if err != nil || sent {
			return len(p), err
		}
		if err := wake(before, 0, moved, changed); err != nil {
			return 0, err
		}
	}
}

func (s *stream) put(p []byte, d time.Duration, held bool) (bool, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return false, nil, net.ErrClosed
	case s.unread && !s.lost:
		return false, nil, errReset
	case held || s.size > inFlight:
		return false, s.moved, nil
	}
	due := time.Now().Add(d)
	if due.Before(s.last) {
		due = s.last
	}
	s.last = due
	s.queue = append(s.queue, chunk{due, append([]byte(nil), p...)})
	s.size += len(p)
	close(s.moved)
	s.moved = make(chan struct{})
	return true, nil, nil
}

// Close ends the connection: the other side reads what was sent, and then its end.
func (s *side) Close() error {
	s.in.change(func() { s.in.unread = true })
	s.out.change(func() { s.out.ended = true })
	s.wires.mu.Lock()
	defer s.wires.mu.Unlock()
	delete(s.wires.sides, s)
	return nil
}

// LocalAddr is this side's broker.
func (s *side) LocalAddr() net.Addr { return named(s.out.from) }

// RemoteAddr is the other side's broker.
func (s *side) RemoteAddr() net.Addr { return named(s.in.from) }

// SetDeadline bounds what comes after.
func (s *side) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline bounds reads that come after, and those that wait.
func (s *side) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	s.readBefore = t
	s.mu.Unlock()
	s.in.change(func() {})
	return nil
}

// SetWriteDeadline bounds writes that come after, and those that wait.
func (s *side) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	s.writeBefore = t
	s.mu.Unlock()
	s.out.change(func() {})
	return nil
}
