package edge

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// TestSlowHugeAndIdleClientsAreCut has each kind of bad client wait for the broker's patience to end.
func TestSlowHugeAndIdleClientsAreCut(t *testing.T) {
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

// TestOneAddressHoldsOnlySoManyConnections opens more than its share, and gets back in once it lets go.
func TestOneAddressHoldsOnlySoManyConnections(t *testing.T) {
	s := newStage(t, nil, func(_ *Server, front *Front) { front.perAddress = 20 })
	pins := []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	var open []*tls.Conn
	for range 40 {
		if conn, err := s.dial(api.ClientTLS(api.ProtocolHTTP, pins, nil)); err == nil {
			open = append(open, conn)
		}
	}
	if len(open) == 0 || len(open) > 20 {
		t.Errorf("%d connections", len(open))
	}
	for _, conn := range open {
		conn.Close()
	}
	waitFor(t, "a place", func() bool {
		conn, err := s.dial(api.ClientTLS(api.ProtocolHTTP, pins, nil))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// waitFor waits until something holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s after 10 s", what)
		}
	}
}
