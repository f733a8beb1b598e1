package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// catchUpBatch is how many events are fetched and checked at once.
const catchUpBatch = 256

// ErrNoSums says that a broker's build makes no sums of its events.
var ErrNoSums = errors.New("it makes no sums of its events")

// fetch gets committed events from index on, at least one and none from to on, that continue a log of this sum.
type fetch func(index, to uint64, before statement.Hash) ([][]byte, error)

// catchUp makes the event log reach as far as a snapshot that another broker sent. What is missing is folded onto a copy
// of what is here, and must give the very state of the snapshot. Nothing is held meanwhile: commands may still be decided
// beside it, whose events are the same, and finding another broker takes a look at the state.
func (m *machine) catchUp(snapshot *broker.State) error {
	if m.log.Len() >= snapshot.Index() {
		return nil
	}
	if m.fetch == nil {
		return fmt.Errorf("the snapshot reaches event %d, %s only %d: %w", snapshot.Index(), eventsFile, m.log.Len(), ErrDisk)
	}
	m.mu.RLock()
	data, err := broker.EncodeState(m.state)
	m.mu.RUnlock()
	if err != nil {
		return err
	}
	folded, err := broker.DecodeState(data) // a copy: raft may yet send the commands themselves
	if err != nil {
		return err
	}
	for folded.Index() < snapshot.Index() {
		if err := m.catchUpSome(folded, snapshot.Index()); err != nil {
			return fmt.Errorf("events from %d: %w", folded.Index(), err)
		}
	}
	if folded.Digest() != snapshot.Digest() {
		err := fmt.Errorf("the events up to %d do not give the leader's snapshot: %w", folded.Index(), broker.ErrDiverged)
		m.fail(err)
		return err
	}
	return nil
}

// catchUpSome folds some events, of those that an attempt before this one left here first.
func (m *machine) catchUpSome(folded *broker.State, to uint64) error {
	index := folded.Index()
	leaves, err := m.log.Read(index, int(min(to-index, catchUpBatch)))
	if err == nil && len(leaves) == 0 {
		var before statement.Hash
		if before, err = m.log.Sum(index); err == nil {
			leaves, err = m.fetch(index, to, before)
		}
		if err == nil {
			err = m.append(index, leaves)
		}
	}
	if err != nil {
		return err
	}
	for _, leaf := range leaves {
		event, err := broker.DecodeEvent(leaf)
		if err != nil {
			return err
		}
		broker.Evolve(folded, event)
	}
	return nil
}

// fetch gets events that this broker missed, from whichever other one has them, and holds them to what the one that leads
// says their sum is. Who sends others is not asked again.
func (n *Node) fetch(index, to uint64, before statement.Hash) ([][]byte, error) {
	leader := n.Leader()
	if leader == "" || leader == n.name || n.peers == nil {
		return nil, errNoLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
	defer cancel()
	to = min(to, index+catchUpBatch)
	want, err := n.peers.Sum(ctx, leader, to)
	if errors.Is(err, ErrNoSums) { // then its own are all there is to believe; the snapshot's digest is checked in the end
		return n.fetchFrom(leader, index, to)
	}
	if err != nil {
		return nil, fmt.Errorf("their sum, from %s: %w", leader, err)
	}
	var all []error
	for _, from := range n.sources(leader) {
		events, err := n.fetchFrom(from, index, to)
		if sum := before; err == nil {
			for _, event := range events {
				sum = link(sum, event)
			}
			if sum == want {
				return events, nil
			}
			err = errors.New("they are not those of the broker that leads")
			n.log.Error("ANOTHER BROKER'S EVENTS WERE ALTERED: it is not asked again", "broker", from, "from", index, "leader", leader)
		}
		n.shunned[from] = true
		all = append(all, fmt.Errorf("from %s: %w", from, err))
	}
	clear(n.shunned) // the next attempt begins anew
	return nil, errors.Join(all...)
}

// sources are the brokers to ask for events: the one that leads has enough to do and comes last.
func (n *Node) sources(leader statement.BrokerName) []statement.BrokerName {
	chain := n.Chain()
	all := slices.DeleteFunc(slices.Sorted(maps.Keys(chain.Current().Brokers)), func(name statement.BrokerName) bool {
		return name == n.name || name == leader || n.shunned[name]
	})
	return append(all, leader)
}

// fetchFrom asks one broker for all events of a range.
func (n *Node) fetchFrom(from statement.BrokerName, index, to uint64) ([][]byte, error) {
	var events [][]byte
	for uint64(len(events)) < to-index {
		select {
		case <-n.closing:
			return nil, errors.New("this broker is closing")
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
		some, err := n.peers.Events(ctx, from, index+uint64(len(events)))
		cancel()
		if err == nil && len(some) == 0 {
			err = fmt.Errorf("there are none from %d on", index+uint64(len(events)))
		}
		if err != nil {
			return nil, err
		}
		events = append(events, some...)
	}
	return events[:to-index], nil
}
