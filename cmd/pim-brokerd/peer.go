package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// How long a write waits here for somebody to lead before the caller is sent to another broker.
const (
	leaderPatience = 2 * time.Second
	leaderEvery    = 20 * time.Millisecond
)

// listed are the brokers of the policy as of this moment.
func (m *member) listed() map[statement.BrokerName]policy.Broker {
	node := m.node.Load()
	if node == nil {
		return nil
	}
	return node.Chain().Current().Brokers
}

// brokers are the keys that may begin to speak raft: those of every policy, because a broker that was dropped is to be told
// so. Package cluster asks who it is.
func (m *member) brokers() []statement.Key {
	node := m.node.Load()
	if node == nil {
		return nil
	}
	var keys []statement.Key
	chain := node.Chain()
	for revision := chain.Ref().Revision; revision > 0; revision-- {
		doc, _ := chain.At(revision)
		for _, listed := range doc.Brokers {
			keys = append(keys, listed.Identity)
		}
	}
	return keys
}

// who is the broker whose key the other side of a connection proved. A key that only an earlier policy lists is a name with
// an error.
func (m *member) who(conn net.Conn) (statement.BrokerName, error) {
	secure, is := conn.(*tls.Conn)
	if !is {
		return "", errors.New("not a TLS connection")
	}
	key, _ := api.PeerKey(secure.ConnectionState())
	chain := m.node.Load().Chain()
	newest := chain.Ref().Revision
	for revision := newest; revision > 0; revision-- {
		doc, _ := chain.At(revision)
		for name, listed := range doc.Brokers {
			switch {
			case listed.Identity != key:
			case revision == newest:
				return name, nil
			default:
				return name, fmt.Errorf("policy %d lists no broker %s with this key: pim-brokerd init prints what a steward signs", newest, name)
			}
		}
	}
	return "", errors.New("no policy lists that key")
}

// broker finds another broker in the policy.
func (m *member) broker(name statement.BrokerName) (policy.Broker, error) {
	listed, known := m.listed()[name]
	if !known {
		return policy.Broker{}, fmt.Errorf("the policy lists no broker %s", name)
	}
	return listed, nil
}

// dial reaches another broker to speak raft; both sides check the other's key.
func (m *member) dial(ctx context.Context, name statement.BrokerName) (net.Conn, error) {
	to, err := m.broker(name)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: api.ClientTLS(api.ProtocolRaft, []statement.Key{to.Identity}, &m.secrets.certificate)}
	return dialer.DialContext(ctx, "tcp", to.Address)
}

// Index is cluster's question to the broker that leads.
func (m *member) Index(ctx context.Context, leader statement.BrokerName) (uint64, error) {
	to, err := m.broker(leader)
	if err != nil {
		return 0, err
	}
	return m.calls.Index(ctx, to)
}

// Sum is cluster's question to the broker that leads what to hold others' events to.
func (m *member) Sum(ctx context.Context, leader statement.BrokerName, events uint64) (statement.Hash, error) {
	to, err := m.broker(leader)
	if err != nil {
		return statement.Hash{}, err
	}
	sum, err := m.calls.Sum(ctx, to, events)
	if broker.KindOf(err) == broker.Missing {
		err = fmt.Errorf("%w: %w", cluster.ErrNoSums, err)
	}
	return sum, err
}

// Status is cluster's question to any other broker.
func (m *member) Status(ctx context.Context, name statement.BrokerName, revision uint64) (cluster.Status, error) {
	to, err := m.broker(name)
	if err != nil {
		return cluster.Status{}, err
	}
	said, err := m.calls.Status(ctx, name, to, revision)
	return cluster.Status{Disk: said.Disk, Events: said.Events, Now: said.Now, Low: said.Low, Policies: said.Policies}, err
}

// Events is cluster's question after events that this broker missed.
func (m *member) Events(ctx context.Context, from statement.BrokerName, index uint64) ([][]byte, error) {
	to, err := m.broker(from)
	if err != nil {
		return nil, err
	}
	return m.calls.Events(ctx, to, index)
}

// Leader is edge's question whom to pass a write to.
func (m *member) Leader(ctx context.Context) (policy.Broker, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	retry := time.NewTicker(leaderEvery)
	defer retry.Stop()
	for {
		if leader := m.node.Load().Leader(); leader != "" {
			to, err := m.broker(leader)
			return to, leader == m.name, err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return policy.Broker{}, false, broker.Refuse(broker.Unavailable, "try again in a moment", "no broker leads: %w", errors.Join(broker.ErrNotLeader, ctx.Err()))
		}
	}
}

// Lead is edge's look at the state on the broker that leads.
func (m *member) Lead(ctx context.Context, fn func(*broker.State)) error {
	return m.node.Load().Lead(ctx, fn)
}

// leading is the cluster for what only the broker that leads has to do: on any other its View fails at once.
type leading struct{ *cluster.Node }

// View is Lead.
func (l leading) View(ctx context.Context, fn func(*broker.State)) error { return l.Lead(ctx, fn) }
