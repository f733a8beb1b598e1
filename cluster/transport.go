package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker/statement"
)

// Wire is how brokers reach each other, by name: where a broker is and which key it must hold is for signed policy to
// say. Both sides of every connection have proved the key of a broker before cluster sees it: package api's TLS does
// that for Listener and for Dial.
type Wire struct {
	Listener net.Listener // connections that agreed on pim-raft/1
	Dial     func(ctx context.Context, name statement.BrokerName) (net.Conn, error)
	Peers    Peers
}

// Peers asks other brokers what raft does not say. Errors of any kind mean no answer.
type Peers interface {
	// Index asks a broker, which must lead, how many events there are by now.
	Index(ctx context.Context, leader statement.BrokerName) (uint64, error)
	// Events asks a broker for committed events from index on, in order; fewer than there are, if it likes.
	Events(ctx context.Context, from statement.BrokerName, index uint64) ([][]byte, error)
}

// layer is raft's view of a Wire. Raft's addresses are brokers' names. Every connection begins with greetings.
type layer struct {
	Wire
	greeting greeting
}

// Dial reaches another broker.
func (l layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := l.Wire.Dial(ctx, statement.BrokerName(address))
	if err != nil {
		return nil, err
	}
	return conn, l.greeting.exchange(conn)
}

// Accept waits for another broker.
func (l layer) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &incoming{Conn: conn, greeting: l.greeting}, nil
}

// Close stops accepting.
func (l layer) Close() error { return l.Listener.Close() }

// Addr is this broker's name.
func (l layer) Addr() net.Addr { return address(l.greeting.name) }

// address is a broker's name as raft's address.
type address string

// Network names no network.
func (address) Network() string { return "broker" }

func (a address) String() string { return string(a) }

// unpiped replicates one request after the other. Raft's pipeline can lose the reader of its answers when a follower says
// no, and then sends that follower nothing more for as long as this leader leads, while heartbeats keep it content.
type unpiped struct{ *raft.NetworkTransport }

// AppendEntriesPipeline declines.
func (unpiped) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// Alone is a Wire to nobody, for a cluster of one.
func Alone() Wire {
	return Wire{Listener: &mute{closed: make(chan struct{})}, Dial: func(context.Context, statement.BrokerName) (net.Conn, error) {
		return nil, errors.New("this broker is alone")
	}}
}

// mute accepts nothing until it is closed.
type mute struct {
	once   sync.Once
	closed chan struct{}
}

// Accept waits for Close.
func (m *mute) Accept() (net.Conn, error) {
	<-m.closed
	return nil, net.ErrClosed
}

// Close ends Accept.
func (m *mute) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// Addr names nobody.
func (m *mute) Addr() net.Addr { return address("nobody") }
