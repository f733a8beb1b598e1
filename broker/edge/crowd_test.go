package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// TestSlowHugeAndIdleClientsAreCut has each kind of bad client wait for the broker's patience to end.
func TestSlowHugeAndIdleClientsAreCut(t *testing.T) {
	t.Parallel() // it waits
	s := newStage(t, nil, nil)
	pins := []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	plain := func() net.Conn {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Error(err)
		}
		return conn
	}
	secure := func() net.Conn {
		conn, err := s.dial(api.ClientTLS(api.ProtocolHTTP, pins, nil))
		if err != nil {
			t.Error(err)
		}
		return conn
	}
	var all sync.WaitGroup
	for name, try := range map[string]struct {
		dial  func() net.Conn
		says  string
		trick func(net.Conn) // goes on while the server waits
		limit time.Duration
	}{
		"nothing at all":           {plain, "", nil, handshakeTimeout},
		"half a handshake":         {plain, "\x16\x03\x01", nil, handshakeTimeout},
		"no TLS":                   {plain, "GET / HTTP/1.1\r\n\r\n", nil, time.Second},
		"a handshake and silence":  {secure, "", nil, headerTimeout},
		"half a header":            {secure, "GET /v1/policy HTTP/1.1\r\nHost: b1\r\n", nil, headerTimeout},
		"a header a byte a second": {secure, "GET /v1/policy HTTP/1.1\r\nX: ", drip, headerTimeout},
		"a body that never comes":  {secure, "POST /v1/statements HTTP/1.1\r\nHost: b1\r\nContent-Length: 1000\r\n\r\n{", nil, readTimeout},
		"a body a byte a second":   {secure, "POST /v1/statements HTTP/1.1\r\nHost: b1\r\nContent-Length: 1000\r\n\r\n{", drip, readTimeout},
		"a header without end":     {secure, "GET /v1/policy HTTP/1.1\r\nX: " + strings.Repeat("x", 2*maxHeader), nil, headerTimeout},
	} {
		all.Go(func() {
			conn := try.dial()
			defer conn.Close()
			if _, err := io.WriteString(conn, try.says); err != nil {
				return // cut while it spoke
			}
			if try.trick != nil {
				go try.trick(conn)
			}
			start := time.Now()
			if err := conn.SetReadDeadline(start.Add(try.limit + 5*time.Second)); err != nil {
				t.Error(err)
			}
			_, err := io.Copy(io.Discard, conn)
			if timeout, is := err.(interface{ Timeout() bool }); is && timeout.Timeout() {
				t.Errorf("%s: still there after %s", name, time.Since(start))
			}
		})
	}
	all.Wait()
}

// drip sends a byte a second until the connection is gone.
func drip(conn net.Conn) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range tick.C {
		if _, err := conn.Write([]byte("x")); err != nil {
			return
		}
	}
}

// TestAHugeBodyIsNotRead sends more than a statement can be, announced and not.
func TestAHugeBodyIsNotRead(t *testing.T) {
	s := newStage(t, nil, nil)
	huge := strings.Repeat("x", api.MaxPolicyBody+1)
	for name, body := range map[string]io.Reader{"announced": strings.NewReader(huge), "chunked": io.MultiReader(strings.NewReader(huge))} {
		if status, said := s.raw("POST", "/v1/statements", nil, body); status != 400 {
			t.Errorf("%s: %d %s", name, status, said)
		}
	}
}

// TestOneAddressHoldsOnlySoManyConnections opens more than its share: the oldest go, whoever is new gets in, and a stream that
// somebody may read stays.
func TestOneAddressHoldsOnlySoManyConnections(t *testing.T) {
	s := newStage(t, nil, func(_ *Server, front *Front) { front.places.each = 20 })
	stream, err := s.as("alice").Watch(t.Context(), nil)
	s.must(err)
	defer stream.Close()
	pins := []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	var open []*tls.Conn
	for range 60 {
		conn, err := s.dial(api.ClientTLS(api.ProtocolHTTP, pins, nil))
		s.must(err)
		defer conn.Close()
		open = append(open, conn)
	}
	for i, conn := range open[:40] {
		s.must(conn.SetReadDeadline(time.Now().Add(2 * time.Second)))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d of %d is still open", i, len(open))
		}
	}
	if _, err := s.as("erin").Whoami(t.Context()); err != nil {
		t.Errorf("somebody else at that address: %v", err)
	}
	s.submit(s.world.Ask("alice", "web-deploy", "web1", 60, s.world.People["alice"], nil))
	for {
		frame, err := stream.Next()
		s.must(err)
		if strings.Contains(string(frame.Event), `"kind":"RequestFiled"`) {
			break
		}
	}
	s.front.places.mu.Lock()
	defer s.front.places.mu.Unlock()
	if count := s.front.places.open; count > 20 {
		t.Errorf("%d connections", count)
	}
}

// TestWhoHoldsEveryPlaceShutsOthersOut has nothing but held connections: then there is no room.
func TestWhoHoldsEveryPlaceShutsOthersOut(t *testing.T) {
	p := newPlaces(3, 2)
	at := func(address string) *seated {
		return p.take(from{address})
	}
	first, second := at("a:1"), at("a:2")
	first.hold()
	if third := at("a:3"); third == nil || !second.gone || p.open != 2 {
		t.Errorf("the silent one at a did not make room: %d open", p.open)
	} else {
		third.hold()
	}
	if at("a:4") != nil {
		t.Error("one that is held made room")
	}
	other := at("b:1")
	another := at("c:1")
	if another == nil || !other.gone {
		t.Error("the silent one at b did not make room")
	}
	first.used() // let go, and silent for a shorter time than c
	if at("d:1") == nil || !another.gone || first.gone {
		t.Errorf("c gone: %t, a gone: %t", another.gone, first.gone)
	}
	for _, c := range []*seated{first, second, other} {
		c.Close()
		c.Close()
	}
	if p.open != 2 || len(p.from) != 2 {
		t.Errorf("%d open, from %d", p.open, len(p.from))
	}
}

// from is a connection that comes from an address and does nothing.
type from struct{ address string }

func (f from) RemoteAddr() net.Addr             { return f }
func (f from) LocalAddr() net.Addr              { return f }
func (f from) Network() string                  { return "tcp" }
func (f from) String() string                   { return f.address }
func (f from) Close() error                     { return nil }
func (f from) Read([]byte) (int, error)         { return 0, io.EOF }
func (f from) Write([]byte) (int, error)        { return 0, io.EOF }
func (f from) SetDeadline(time.Time) error      { return nil }
func (f from) SetReadDeadline(time.Time) error  { return nil }
func (f from) SetWriteDeadline(time.Time) error { return nil }
