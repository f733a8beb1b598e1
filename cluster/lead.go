package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// dismissEvery is how late a broker that policy no longer lists loses its vote. Its key is refused at once.
const dismissEvery = 2 * time.Second

// keep looks after what falls to a leader, until the node closes.
func (n *Node) keep() {
	look := time.NewTicker(dismissEvery)
	defer look.Stop()
	for {
		select {
		case leads := <-n.raft.LeaderCh():
			n.log.Info("leadership", "broker", n.name, "leads", leads, "term", n.raft.CurrentTerm())
			if leads {
				n.begins()
			}
		case <-look.C:
			n.dismiss()
		case <-n.closing:
			return
		}
	}
}

// begins catches up at once, so that the first write need not, and files what is missing of the founding chain.
func (n *Node) begins() {
	retry := time.NewTicker(askEvery)
	defer retry.Stop()
	for n.raft.State() == raft.Leader {
		ctx, cancel := context.WithTimeout(context.Background(), viewTimeout)
		err := n.found(ctx)
		cancel()
		switch {
		case err == nil:
			return
		case broker.KindOf(err) != broker.Unavailable:
			n.machine.fail(fmt.Errorf("the first policy was refused: %w", err))
			return
		}
		select {
		case <-n.closing:
			return
		case <-retry.C:
		}
	}
}

// dismiss takes the vote of brokers that policy no longer lists: a majority is one of those that are left.
func (n *Node) dismiss() {
	if n.raft.State() != raft.Leader {
		return
	}
	members := n.raft.GetConfiguration()
	if members.Error() != nil {
		return
	}
	listed := n.Chain().Current().Brokers
	for _, server := range members.Configuration().Servers {
		if _, stays := listed[statement.BrokerName(server.ID)]; stays {
			continue
		}
		err := n.raft.RemoveServer(server.ID, 0, enqueueTimeout).Error()
		n.log.Warn("a broker that policy no longer lists loses its vote", "broker", server.ID, "error", err)
	}
}

// found files the revisions of the founding chain that the log does not have yet.
func (n *Node) found(ctx context.Context) error {
	if err := n.lead(ctx); err != nil {
		return unavailable(err)
	}
	var have uint64
	if err := n.machine.read(func(state *broker.State) { have = state.Chain().Ref().Revision }); err != nil {
		return unavailable(err)
	}
	look := func(ctx context.Context, fn func(*broker.State)) error {
		if err := n.lead(ctx); err != nil {
			return unavailable(err)
		}
		return n.machine.read(fn)
	}
	for revision := have; revision < uint64(len(n.begin.proofs)); revision++ {
		command, err := broker.CommandFor(n.begin.proofs[revision], 0)
		if err != nil {
			return err
		}
		if _, err := n.propose(ctx, command, look); err != nil {
			return err
		}
	}
	return nil
}

// alone reports whether there is nobody to hand leadership to.
func (n *Node) alone() bool { return len(n.begin.voters().Servers) == 1 }

// HandOver lets another broker lead, if this one does and there is another. It returns when that has happened, or cannot.
func (n *Node) HandOver() error {
	if n.alone() || n.raft.State() != raft.Leader {
		return nil
	}
	if err := n.raft.LeadershipTransfer().Error(); err != nil {
		return fmt.Errorf("handing leadership over: %w", err)
	}
	return nil
}

// fetch gets events that this broker missed from the one that leads.
func (n *Node) fetch(index uint64) ([][]byte, error) {
	leader := n.Leader()
	if leader == "" || leader == n.name || n.peers == nil {
		return nil, errNoLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
	defer cancel()
	return n.peers.Events(ctx, leader, index)
}
