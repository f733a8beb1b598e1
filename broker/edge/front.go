package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"pim-ssh/broker/api"
)

// Caps on connections. Only raft's and streams that somebody may read are held: any other one makes room for a new one when
// it has been silent for longest.
const (
	handshakeTimeout     = 5 * time.Second
	maxConnections       = 24_000
	maxPerAddress        = 2_048
	connectionsInBacklog = 128
	shakingAtOnce        = 64                     // callers for whom the costly part of a handshake is being done
	shakePatience        = 500 * time.Millisecond // who has waited longer for that has gone, or asks again: nothing is done for them
)

// Front is the one port. It shakes hands and hands each connection to the listener of the protocol that both sides agreed
// on: HTTP's, or raft's, whose callers have proved a broker's key (package api's ServerTLS).
type Front struct {
	inner   net.Listener
	config  *tls.Config
	http    *queue
	raft    *queue
	places  *places
	shaking chan struct{} // one slot for each handshake in its costly part
}

// NewFront takes over a TCP listener. Run closes it.
func NewFront(inner net.Listener, config *tls.Config) *Front {
	f := &Front{inner: inner, config: config.Clone(), shaking: make(chan struct{}, shakingAtOnce), http: newQueue(inner.Addr()), raft: newQueue(inner.Addr()), places: newPlaces(maxConnections, maxPerAddress)}
	f.config.GetConfigForClient = f.greeted
	return f
}

// greeted is called when a caller has said its part of the handshake and before it costs anything. When more come than can be
// served, those who are served are so in time: if all were served a little, all would give up and come again.
func (f *Front) greeted(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	conn, is := hello.Conn.(*seated)
	if !is {
		return nil, nil
	}
	patience := time.NewTimer(shakePatience)
	defer patience.Stop()
	select {
	case f.shaking <- struct{}{}:
		conn.done = sync.OnceFunc(func() { <-f.shaking })
		return nil, nil
	case <-patience.C:
		return nil, errors.New("too many callers at once")
	}
}

// HTTP returns the listener of connections that speak HTTP.
func (f *Front) HTTP() net.Listener { return f.http }

// Raft returns the listener of connections that speak raft.
func (f *Front) Raft() net.Listener { return f.raft }

// Run accepts connections until ctx ends.
func (f *Front) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { f.inner.Close() })
	defer stop()
	for {
		conn, err := f.inner.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if temporary(err) {
			pause(ctx)
			continue
		}
		if err != nil {
			return err
		}
		if seated := f.places.take(conn); seated != nil {
			go f.shake(ctx, seated)
		}
	}
}

// temporary reports whether accepting may work again in a moment: out of descriptors, or the caller went away.
func temporary(err error) bool {
	timeout, is := err.(interface{ Temporary() bool })
	return is && timeout.Temporary()
}

func pause(ctx context.Context) {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
}

// shake finishes the handshake and hands the connection on.
func (f *Front) shake(ctx context.Context, conn *seated) {
	secure := tls.Server(conn, f.config)
	patience, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err := secure.HandshakeContext(patience)
	conn.said()
	if err != nil {
		conn.Close()
		return
	}
	to := f.http
	if secure.ConnectionState().NegotiatedProtocol == api.ProtocolRaft {
		to = f.raft
		conn.hold()
	}
	to.put(patience, secure)
}

// queue is a listener fed by a Front.
type queue struct {
	address net.Addr
	ready   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newQueue(address net.Addr) *queue {
	return &queue{address: address, ready: make(chan net.Conn, connectionsInBacklog), closed: make(chan struct{})}
}

// put hands over a connection, or closes it when nobody takes it in time.
func (q *queue) put(ctx context.Context, conn net.Conn) {
	select {
	case q.ready <- conn:
	case <-q.closed:
		conn.Close()
	case <-ctx.Done():
		conn.Close()
	}
}

// Accept waits for the next connection.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.ready:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail; connections handed over stay open.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr returns the port's address.
func (q *queue) Addr() net.Addr { return q.address }
