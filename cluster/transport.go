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
	Listener net.Listener // connections that agreed on pim-raft/1; Accept fails only once it is closed
	Dial     func(ctx context.Context, name statement.BrokerName) (net.Conn, error)
	// Who is the broker whose key the other side of an accepted connection proved. A name with an error is told the error and
	// no more; without a name the connection ends.
	Who   func(net.Conn) (statement.BrokerName, error)
	Peers Peers
}

// Peers asks other brokers what raft does not say. Errors of any kind mean no answer.
type Peers interface {
	// Index asks a broker, which must lead, how many events there are by now.
	Index(ctx context.Context, leader statement.BrokerName) (uint64, error)
	// Sum asks a broker for the sum of the first so many events, of which it has so many. ErrNoSums says that its build
	// makes none. That broker must not have to find out first whether it leads: it may need the one that asks for that.
	Sum(ctx context.Context, leader statement.BrokerName, events uint64) (statement.Hash, error)
	// Status asks a broker, which need not lead, how it is, and which policies it knows after a revision.
	Status(ctx context.Context, name statement.BrokerName, revision uint64) (Status, error)
	// Events asks any broker for committed events from index on, in order; fewer than there are, if it likes.
	Events(ctx context.Context, from statement.BrokerName, index uint64) ([][]byte, error)
}

// outbound is how raft reaches other brokers. Raft's addresses are brokers' names. Every connection begins with greetings.
type outbound struct {
	Wire
	*mute // nothing comes in here
	door  *door
}

// Dial reaches another broker.
func (o outbound) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	name := statement.BrokerName(address)
	conn, err := o.Wire.Dial(ctx, name)
	if err != nil {
		return nil, err
	}
	return conn, o.door.greet(name, conn)
}

// Addr is this broker's name.
func (o outbound) Addr() net.Addr { return address(o.door.name) }

// address is a broker's name as raft's address.
type address string

// Network names no network.
func (address) Network() string { return "broker" }

func (a address) String() string { return string(a) }

// AppendEntriesPipeline declines: one request follows the other. Raft's pipeline can lose the reader of its answers when a
// follower says no, and then sends that follower nothing more for as long as this leader leads, while heartbeats keep it
// content.
func (*transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// Alone is a Wire to nobody, for a cluster of one.
func Alone() Wire {
	errAlone := errors.New("this broker is alone")
	return Wire{Listener: newMute(), Dial: func(context.Context, statement.BrokerName) (net.Conn, error) { return nil, errAlone },
		Who: func(net.Conn) (statement.BrokerName, error) { return "", errAlone }}
}

// mute accepts nothing until it is closed.
type mute struct {
	once   sync.Once
	closed chan struct{}
}

func newMute() *mute { return &mute{closed: make(chan struct{})} }

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
