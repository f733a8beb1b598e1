package clustertest

import (
	"context"
	"net"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// who is the broker at the other end of an accepted connection.
func who(conn net.Conn) (statement.BrokerName, error) { return conn.(*side).peer(), nil }

// Status asks another broker how it is, over the wires.
func (l *life) Status(ctx context.Context, name statement.BrokerName, revision uint64) (status cluster.Status, err error) {
	err = l.ask(ctx, name, func(there *life) error {
		status = there.node.Status()
		proofs := there.node.Chain().Proofs()
		status.Policies = proofs[min(revision, uint64(len(proofs))):]
		return nil
	})
	return status, err
}

// Sum asks another broker for the sum of its events, over the wires.
func (l *life) Sum(ctx context.Context, leader statement.BrokerName, events uint64) (sum statement.Hash, err error) {
	err = l.ask(ctx, leader, func(there *life) (err error) {
		sum, err = there.node.Sum(events)
		return err
	})
	return sum, err
}

// Index asks the broker that leads, over the wires.
func (l *life) Index(ctx context.Context, leader statement.BrokerName) (index uint64, err error) {
	err = l.ask(ctx, leader, func(there *life) error {
		return there.node.Lead(ctx, func(s *broker.State) { index = s.Index() })
	})
	return index, err
}

// Events asks another broker for some events, over the wires.
func (l *life) Events(ctx context.Context, from statement.BrokerName, index uint64) (events [][]byte, err error) {
	err = l.ask(ctx, from, func(there *life) (err error) {
		events, _, err = there.node.Events(index, 7)
		return err
	})
	return events, err
}

// ask does something at another broker, if both live until the answer is there.
func (l *life) ask(ctx context.Context, at statement.BrokerName, do func(*life) error) error {
	if l.gone.Load() {
		return errRefused
	}
	wires := l.broker.cluster.Wires
	if err := wires.travel(ctx, l.broker.Name, at); err != nil {
		return err
	}
	there := l.broker.cluster.brokers[at].current()
	if there == nil {
		return errRefused
	}
	if err := do(there); err != nil {
		return err
	}
	if there.gone.Load() {
		return errReset
	}
	return wires.travel(ctx, at, l.broker.Name)
}
