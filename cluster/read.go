package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// How long a read waits for the cluster: long enough for a new leader to be elected.
const (
	viewTimeout = 3 * time.Second
	askTimeout  = 1 * time.Second // one question to one leader
	askEvery    = 25 * time.Millisecond
)

var (
	errNoLeader = errors.New("no broker leads")
	errNothing  = errors.New("the first policy, or the restore, is not filed yet")
)

// View lets fn look at a state that holds everything acknowledged before View was called, whoever leads: a leader makes
// sure that it still does, any other broker asks the leader how far the log has come and waits until it has come as far.
// It fails with Unavailable when that takes longer than an election does: a broker cut off from the majority shows
// nothing. fn must neither keep the state nor take long.
func (n *Node) View(ctx context.Context, fn func(*broker.State)) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	index, err := n.rounds.join(ctx)
	if err == nil {
		err = n.machine.reach(ctx, index)
	}
	return n.show(err, fn)
}

// Lead is View on the broker that leads; any other refuses at once with broker.ErrNotLeader, and asks nobody.
func (n *Node) Lead(ctx context.Context, fn func(*broker.State)) error {
	if leader := n.Leader(); leader != n.name {
		return &broker.Error{Kind: broker.Unavailable, Msg: "this broker does not lead", Hint: "try again in a moment", Err: broker.ErrNotLeader}
	}
	return n.show(n.lead(ctx), fn)
}

// show calls fn unless something stands against it.
func (n *Node) show(err error, fn func(*broker.State)) error {
	empty := false
	if err == nil {
		err = n.machine.read(func(state *broker.State) {
			if empty = state.Index() == 0 || state.Epoch().Number < n.begin.epoch; !empty {
				fn(state)
			}
		})
	}
	if err == nil && empty {
		err = errNothing
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// Local lets fn look at what this node has applied, whoever leads: committed, but perhaps not all that is. The record is
// made from it; it answers nobody. Before a restore is filed there is nothing: nobody may sign the copy for a record.
func (n *Node) Local(fn func(*broker.State)) error {
	return n.machine.read(func(state *broker.State) {
		if state.Epoch().Number < n.begin.epoch {
			state = broker.NewState()
		}
		fn(state)
	})
}

// Chain returns the policy chain as far as this node knows it, whoever leads: enough to know the other brokers' keys and
// places, and for nothing that answers a person or a host.
func (n *Node) Chain() policy.Chain {
	chain := n.policies.newest()
	_ = n.machine.read(func(state *broker.State) { // a node that failed knows what it knew
		if state.Chain().Ref().Revision >= chain.Ref().Revision {
			chain = state.Chain()
		}
	})
	return chain
}

// Leader returns the broker that leads as far as this node knows, or "".
func (n *Node) Leader() statement.BrokerName {
	name, _ := n.raft.LeaderWithID()
	return statement.BrokerName(name)
}

// Ready waits until this node can answer for the cluster.
func (n *Node) Ready(ctx context.Context) error {
	retry := time.NewTicker(readyEvery)
	defer retry.Stop()
	for {
		err := n.View(ctx, func(*broker.State) {})
		if err == nil || n.Err() != nil {
			return n.Err()
		}
		select {
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}

// readIndex returns the number of events that a state must have folded to hold everything acknowledged before the call.
// It tries until ctx ends: the leader may be gone and the next not yet elected.
func (n *Node) readIndex(ctx context.Context) (uint64, error) {
	retry := time.NewTicker(askEvery)
	defer retry.Stop()
	for {
		index, err := n.askLeader(ctx)
		if err == nil || n.Err() != nil {
			return index, errors.Join(err, n.Err())
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-n.closing:
			return 0, err
		case <-retry.C:
		}
	}
}

func (n *Node) askLeader(ctx context.Context) (uint64, error) {
	leader := n.Leader()
	switch {
	case leader == "" || leader != n.name && n.peers == nil:
		return 0, errNoLeader
	case leader == n.name:
		return 0, n.lead(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return n.peers.Index(ctx, leader)
}

// lead returns nil when this node leads and has applied what was committed when it was called. Leader leases alone would
// not do (FACTS R5), and neither would its word that it leads: what is committed, another broker may have applied and
// shown before this one has.
func (n *Node) lead(ctx context.Context) error {
	term, last := n.raft.CurrentTerm(), n.raft.LastIndex()
	n.mu.Lock()
	caughtUp, since := n.caught == term, n.since
	n.mu.Unlock()
	if caughtUp && n.allVote() {
		committed := n.raft.CommitIndex()
		if err := await(ctx, n.seams.verify(n.raft)); err != nil {
			return err
		}
		if n.raft.CurrentTerm() == term && n.allVote() {
			return n.folded(ctx, since, committed)
		}
	}
	if err := await(ctx, n.raft.Barrier(enqueueTimeout)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.caught, n.since = term, last
	return nil
}

// allVote reports whether every member has a vote. Raft's VerifyLeader takes any member's answer for a vote: beside one that
// watches, or is not caught up yet, a leader cut off from all others would take itself for theirs. An entry is committed by
// those that vote alone.
func (n *Node) allVote() bool {
	members := n.raft.GetConfiguration()
	return members.Error() == nil &&
		!slices.ContainsFunc(members.Configuration().Servers, func(s raft.Server) bool { return s.Suffrage != raft.Voter })
}

// folded waits until the commands among the raft entries after since, up to committed, are applied. What the log no longer
// holds is in a snapshot, and so was applied.
func (n *Node) folded(ctx context.Context, since, committed uint64) error {
	for index := committed; index > since; index-- {
		var entry raft.Log
		err := n.entries.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.Type == raft.LogCommand {
			return n.machine.pass(ctx, index)
		}
	}
	return nil
}

// rounds lets many readers share one question to the leader. Whoever joins is answered by a question that was asked
// after they came.
type rounds struct {
	ask func(context.Context) (uint64, error)

	mu    sync.Mutex
	next  *round // not yet asked; nil: nobody waits
	asked bool   // a goroutine is asking, and will ask for next
}

// round is one question and who waits for it.
type round struct {
	done  chan struct{} // closed when index and err are set
	index uint64
	err   error
}

func (r *rounds) join(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.asked {
		r.asked = true
		go r.run()
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run asks until nobody waits.
func (r *rounds) run() {
	for {
		r.mu.Lock()
		this := r.next
		r.next = nil
		r.asked = this != nil
		r.mu.Unlock()
		if this == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), viewTimeout)
		this.index, this.err = r.ask(ctx)
		cancel()
		close(this.done)
	}
}
