package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// yieldEvery is how often a leader whose clock is behind tries to hand leadership over.
const yieldEvery = 5 * time.Second

// Propose has the cluster decide a command and returns the answer. The node stamps the time itself; what the caller
// stamped is dropped. Refusals are *broker.Error. Unavailable means that the outcome is unknown: propose the same again,
// which is harmless. A node that does not lead says broker.ErrNotLeader and has done nothing.
//
// A command that would change nothing (a repeated statement, a stranger's) is answered from committed state and never
// becomes a raft entry: nobody without a say in the deployment can fill the log.
func (n *Node) Propose(ctx context.Context, command broker.Command) (broker.Outcome, error) {
	return n.propose(ctx, command, n.Lead)
}

// propose is Propose with a way to look at the state before.
func (n *Node) propose(ctx context.Context, command broker.Command, look func(context.Context, func(*broker.State)) error) (broker.Outcome, error) {
	command.At = n.time()
	changes := false
	var idle applied
	var ahead statement.Time
	err := look(ctx, func(state *broker.State) {
		if state.Now() > n.now().Add(broker.MaxSkew) && command.Kind != broker.BeginEpoch { // which sets the log's time right
			ahead = state.Now()
			return
		}
		command = command.Under(state)
		decided, err := broker.Foresee(state, command)
		changes = len(decided.Events) > 0 || command.Kind == broker.Tick
		idle = applied{decided.Outcome, err}
	})
	if err == nil && ahead != 0 {
		err = n.yield(ahead)
	}
	if err != nil {
		return broker.Outcome{}, err
	}
	if !changes {
		return idle.outcome, idle.err
	}
	if err := n.spare(command.Room()); err != nil {
		return broker.Outcome{}, err
	}
	if idle.err != nil && n.Low() { // what is refused needs no record as much as what ends access does
		return idle.outcome, idle.err
	}
	return n.apply(ctx, command)
}

// apply makes a command a raft entry and waits for what it became.
func (n *Node) apply(ctx context.Context, command broker.Command) (broker.Outcome, error) {
	data, err := broker.EncodeCommand(command)
	if err != nil {
		return broker.Outcome{}, err
	}
	future := n.raft.Apply(data, enqueueTimeout)
	if err := await(ctx, future); err != nil {
		return broker.Outcome{}, unknown(err)
	}
	answer, isAnswer := future.Response().(applied)
	if !isAnswer {
		return broker.Outcome{}, unknown(fmt.Errorf("raft answered %v", future.Response()))
	}
	var refused *broker.Error
	if answer.err != nil && !errors.As(answer.err, &refused) {
		return broker.Outcome{}, unknown(answer.err)
	}
	return answer.outcome, answer.err
}

// time stamps a command: the clock, but never before an earlier stamp.
func (n *Node) time() statement.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stamp = max(n.stamp, n.now())
	return n.stamp
}

// yield refuses to stamp commands under a log whose time is ahead of this broker's clock, and lets another broker lead,
// whose clock may be right.
func (n *Node) yield(ahead statement.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().After(n.yieldNot) {
		n.yieldNot = time.Now().Add(yieldEvery)
		n.log.Error("CLOCK: the log's time is ahead of this broker's clock; it stamps nothing until that is settled", "log", ahead, "clock", n.now())
		if !n.alone() {
			n.raft.LeadershipTransfer() // settles by itself
		}
	}
	return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("the log's time %s is ahead of this broker's clock", ahead),
		Hint: "ask an operator to check the brokers' clocks"}
}

// await waits for raft or for the caller's patience, whichever ends first. The future settles by itself when raft does.
func await(ctx context.Context, future raft.Future) error {
	settled := make(chan error, 1)
	go func() { settled <- future.Error() }()
	select {
	case err := <-settled:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func unavailable(err error) error {
	return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("this broker cannot answer now: %v", err), Hint: "try again in a moment", Err: err}
}

func unknown(err error) error {
	return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("whether it was filed is not known: %v", err),
		Hint: "send the same statement again: it counts once", Err: err}
}
