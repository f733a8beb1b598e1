package edge

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// places bounds how many connections are open, in all and from each address. When there is no place, the connection gives its
// own up that has been silent for longest and that nobody holds: at that address, so that nobody behind it is shut out by
// others there who do nothing, or anywhere.
type places struct {
	most, each int

	mu   sync.Mutex
	open int
	idle *list.List // of *seated that nobody holds, the most recently used last
	from map[string]*address
}

// address is where connections come from.
type address struct {
	open int
	idle *list.List // of *seated
}

func newPlaces(most, each int) *places {
	return &places{most: most, each: each, idle: list.New(), from: map[string]*address{}}
}

// seated is a connection that has a place, and gives it back when it is closed.
type seated struct {
	net.Conn
	in   *places
	at   string
	all  *list.Element // in in.idle; nil while it is held
	here *list.Element // in its address's
	gone bool
	done func() // gives the slot back in which the costly part of the handshake was done; nil before it, and the handshake's alone
}

// take gives a new connection a place, or closes it.
func (p *places) take(conn net.Conn) *seated {
	at, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		at = conn.RemoteAddr().String()
	}
	c := &seated{Conn: conn, in: p, at: at}
	p.mu.Lock()
	out, room := p.makeRoom(at)
	if room {
		p.enter(c)
	}
	p.mu.Unlock()
	if out != nil {
		out.Conn.Close()
	}
	if !room {
		conn.Close()
		return nil
	}
	return c
}

// makeRoom reports whether there is a place, and who has given it up. The caller holds mu, and closes.
func (p *places) makeRoom(at string) (out *seated, room bool) {
	from := p.idle
	switch here := p.from[at]; {
	case here != nil && here.open >= p.each:
		from = here.idle
	case p.open < p.most:
		return nil, true
	}
	oldest := from.Front()
	if oldest == nil {
		return nil, false
	}
	out = oldest.Value.(*seated)
	p.leave(out)
	return out, true
}

// enter and leave count; the caller holds mu.
func (p *places) enter(c *seated) {
	here := p.from[c.at]
	if here == nil {
		here = &address{idle: list.New()}
		p.from[c.at] = here
	}
	p.open++
	here.open++
	c.all, c.here = p.idle.PushBack(c), here.idle.PushBack(c)
}

func (p *places) leave(c *seated) {
	if c.gone {
		return
	}
	c.gone = true
	here := p.from[c.at]
	p.unlist(c, here)
	p.open--
	if here.open--; here.open == 0 {
		delete(p.from, c.at)
	}
}

func (p *places) unlist(c *seated, here *address) {
	if c.all != nil {
		p.idle.Remove(c.all)
		here.idle.Remove(c.here)
		c.all, c.here = nil, nil
	}
}

// Read waits for the caller: what costs something has been done and said.
func (c *seated) Read(b []byte) (int, error) {
	c.said()
	return c.Conn.Read(b)
}

func (c *seated) said() {
	if c.done != nil {
		c.done()
	}
}

// Close closes the connection.
func (c *seated) Close() error {
	c.in.mu.Lock()
	c.in.leave(c)
	c.in.mu.Unlock()
	return c.Conn.Close()
}

// hold has the connection make room for nobody.
func (c *seated) hold() {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if !c.gone {
		c.in.unlist(c, c.in.from[c.at])
	}
}

// used says that the connection is not silent, and that nobody holds it.
func (c *seated) used() {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if here := c.in.from[c.at]; !c.gone {
		c.in.unlist(c, here)
		c.all, c.here = c.in.idle.PushBack(c), here.idle.PushBack(c)
	}
}

// placeOf is the place of a connection that a Front has handed over; nil for any other.
func placeOf(conn net.Conn) *seated {
	secure, is := conn.(*tls.Conn)
	if !is {
		return nil
	}
	c, _ := secure.NetConn().(*seated)
	return c
}

type placeKey struct{}

func withPlace(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, placeKey{}, placeOf(conn))
}

// held holds the place of the connection that a request came by until it is told to let go.
func held(ctx context.Context) (letGo func()) {
	c, _ := ctx.Value(placeKey{}).(*seated)
	if c == nil {
		return func() {}
	}
	c.hold()
	return c.used
}
