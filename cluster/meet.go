package cluster

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker/statement"
)

const (
	meetEvery = 1 * time.Second // how often members that were never met are dialled
	askIn     = 5               // of those times, how often a broker that is no member asks the others why
)

// meet dials members until each has greeted: a disk can only be missed by those who knew it. A broker that is no member
// dials everybody now and then, to be told what is missing.
func (n *Node) meet() {
	again := time.NewTicker(meetEvery)
	defer again.Stop()
	for round := 0; ; round++ {
		seats := n.Seats()
		member := slices.ContainsFunc(seats, func(s Seat) bool { return s.id() == n.id })
		if !member && round%askIn == 0 {
			for _, name := range slices.Sorted(maps.Keys(n.Chain().Current().Brokers)) {
				n.greet(name)
			}
		}
		for _, seat := range seats {
			if member && seat.Disk == "" && !n.door.knows(seat.Name) {
				n.greet(seat.Name)
			}
		}
		if n.Leader() == "" {
			n.catchUpWithPolicy()
		}
		select {
		case <-again.C:
		case <-n.closing:
			return
		}
	}
}

// catchUpWithPolicy asks every broker which policies it knows: the one that leads may have come, or have got its key, while
// this one was away.
func (n *Node) catchUpWithPolicy() {
	var asked sync.WaitGroup
	for name := range n.Chain().Current().Brokers {
		asked.Go(func() { _, _ = n.ask(context.Background(), name) }) // who does not answer has nothing to say
	}
	asked.Wait()
}

// greet exchanges greetings with another broker and no more.
func (n *Node) greet(name statement.BrokerName) {
	if name == n.name {
		return
	}
	if conn, err := n.wire.reach.Dial(raft.ServerAddress(name), meetEvery); err == nil {
		conn.Close()
	}
}
