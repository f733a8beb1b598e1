package cluster

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Wire is how brokers reach each other. Both sides of every connection have proved the key of a broker before cluster
// sees it: package api's TLS does that for Listener and for Dial.
type Wire struct {
	Listener net.Listener // connections that agreed on pim-raft/1
	Dial     func(ctx context.Context, address string) (net.Conn, error)
}

// layer is raft's view of a Wire.
type layer struct {
	net.Listener
	dial func(ctx context.Context, address string) (net.Conn, error)
}

// Dial reaches another broker.
func (l layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.dial(ctx, string(address))
}

// silent is a Wire to nobody, for a broker that is only being bootstrapped.
func silent(address string) Wire {
	return Wire{Listener: &mute{closed: make(chan struct{}), address: mutely(address)}, Dial: func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("bootstrapping talks to nobody")
	}}
}

// mute accepts nothing until it is closed.
type mute struct {
	closed  chan struct{}
	address mutely
}

// Accept waits for Close.
func (m *mute) Accept() (net.Conn, error) {
	<-m.closed
	return nil, net.ErrClosed
}

// Close ends Accept; raft calls it once.
func (m *mute) Close() error {
	close(m.closed)
	return nil
}

// Addr returns the broker's own address.
func (m *mute) Addr() net.Addr { return m.address }

type mutely string

// Network names no network.
func (mutely) Network() string { return "none" }

func (a mutely) String() string { return string(a) }
