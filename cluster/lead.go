package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// keep looks after what falls to a leader, and to whoever is in the way of one, until the node closes.
func (n *Node) keep() {
	var was stray
	look := time.NewTimer(membersEvery)
	defer look.Stop()
	for {
		select {
		case leads := <-n.raft.LeaderCh():
			n.log.Info("leadership", "broker", n.name, "leads", leads, "term", n.raft.CurrentTerm())
			if leads {
				n.begins()
			}
		case <-look.C:
			n.keepPolicies()
			is := n.stray()
			n.wire.forget(was, is)
			was = is
			ctx, cancel := context.WithTimeout(context.Background(), viewTimeout)
			next := membersEvery
			if n.raft.State() == raft.Leader && !n.misled(ctx) && n.members(ctx) {
				next = stepEvery
			}
			cancel()
			look.Reset(next)
		case <-n.closing:
			return
		}
	}
}

// keepPolicies stores what is to be known at the next start before anybody leads.
func (n *Node) keepPolicies() {
	var adopted policy.Chain
	var events uint64
	err := n.machine.read(func(state *broker.State) { adopted, events = state.Chain(), state.Index() })
	if err == nil {
		err = errors.Join(n.policies.keep(adopted, events), n.keepAdded())
	}
	if err != nil && n.door.due("policies", n.name) {
		n.log.Error("what the next start has to know is not kept", "error", err)
	}
}

// misled hands leadership over when this broker's clock is the odd one: it would take what people sign for too old or too new.
func (n *Node) misled(ctx context.Context) bool {
	if n.alone() || !n.wire.clocks.odd(ctx) {
		return false
	}
	n.log.Error("CLOCK: this broker's clock differs from most brokers': another one is to lead", "clock", n.now(), "error", n.HandOver())
	return true
}

// begins catches up at once, so that the first write need not, and files what is missing of the founding chain.
func (n *Node) begins() {
	retry := time.NewTicker(askEvery)
	defer retry.Stop()
	for n.raft.State() == raft.Leader {
		term := n.raft.CurrentTerm()
		ctx, cancel := context.WithTimeout(context.Background(), viewTimeout)
		err := n.found(ctx)
		cancel()
		switch {
		case err == nil:
			n.founded = term
			return
		case broker.KindOf(err) != broker.Unavailable:
			n.machine.fail(fmt.Errorf("the first command was refused: %w", err))
			return
		}
		select {
		case <-n.closing:
			return
		case <-retry.C:
		}
	}
}

// found files what the log does not have yet of what this cluster was founded with. A broker that joined founds nothing.
func (n *Node) found(ctx context.Context) error {
	if err := n.lead(ctx); err != nil {
		return unavailable(err)
	}
	if n.joined() {
		return nil
	}
	var have, epoch uint64
	if err := n.machine.read(func(state *broker.State) { have, epoch = state.Chain().Ref().Revision, state.Epoch().Number }); err != nil {
		return unavailable(err)
	}
	look := func(ctx context.Context, fn func(*broker.State)) error {
		if err := n.lead(ctx); err != nil {
			return unavailable(err)
		}
		return n.machine.read(fn)
	}
	for i, proof := range n.begin.missing(have, epoch) {
		command, err := broker.CommandFor(proof, 0)
		if err != nil {
			return err
		}
		if have == 0 && i == 0 {
			command.Founding = uint64(len(n.begin.proofs))
		}
		if _, err := n.propose(ctx, command, look); err != nil {
			return err
		}
	}
	return nil
}

// missing are the statements that the first leader files, and has not: the founding chain, or the restore.
func (f founding) missing(revision, epoch uint64) []statement.Proof {
	switch {
	case f.restore == nil:
		return f.proofs[min(revision, uint64(len(f.proofs))):]
	case epoch < f.epoch:
		return []statement.Proof{*f.restore}
	default:
		return nil
	}
}

// joined reports whether this broker came to a cluster that others founded.
func (n *Node) joined() bool { return seatOf(n.id).Disk != "" }

// alone reports whether there is nobody to hand leadership to.
func (n *Node) alone() bool {
	return !slices.ContainsFunc(n.Seats(), func(s Seat) bool { return s.Votes && s.id() != n.id })
}

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
