package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

const (
	membersEvery = 2 * time.Second        // how late the leader notices what an operator or a policy changed
	stepEvery    = 250 * time.Millisecond // while there is more to do
	withinReach  = 256                    // events: who is no further behind has caught up
)

// Status is what a broker says of itself to another one.
type Status struct {
	Disk   statement.Disk
	Events uint64 // folded
	Now    statement.Time
	Low    bool // its disk is almost full

	Policies []statement.Proof // that it knows after the one that it was asked about
}

// plan is how raft's configuration differs from what the log says of the brokers.
type plan struct {
	leave []Seat // to take out
	enter []Seat // to let in; Votes: and give a vote once it has caught up
	rise  []Seat // in, and to be given a vote
}

// planOf compares. A founding broker is never let in: its disk was in from the first entry on, or is out for ever.
func planOf(state *broker.State, seats []Seat) plan {
	var p plan
	in := map[Seat]bool{}
	for _, seat := range seats {
		standing := state.Standing(seat.Name, seat.Disk)
		in[Seat{Name: seat.Name, Disk: seat.Disk}] = true
		switch {
		case seat.Disk == "" && standing == broker.Listed, seat.Disk != "" && standing == broker.Watching:
		case seat.Disk != "" && standing == broker.Voter:
			if !seat.Votes {
				p.rise = append(p.rise, seat)
			}
		default:
			p.leave = append(p.leave, seat)
		}
	}
	for _, m := range state.Members() {
		standing := state.Standing(m.Name, m.Disk)
		if member := standing == broker.Watching || standing == broker.Voter; member && !in[Seat{Name: m.Name, Disk: m.Disk}] {
			p.enter = append(p.enter, Seat{Name: m.Name, Disk: m.Disk, Votes: standing == broker.Voter})
		}
	}
	return p
}

// members has the leader bring raft's configuration one step nearer to what the log says. It reports whether there is more
// to do soon.
func (n *Node) members(ctx context.Context) bool {
	if n.founded != n.raft.CurrentTerm() || n.lead(ctx) != nil {
		return false
	}
	var p plan
	seats := n.Seats()
	if err := n.machine.read(func(state *broker.State) { p = planOf(state, seats) }); err != nil {
		return false
	}
	switch {
	case len(p.leave) > 0:
		return n.expel(ctx, p.leave, seats)
	case len(p.enter) > 0:
		return n.admit(p.enter[0])
	case len(p.rise) > 0:
		return n.promote(ctx, p.rise, seats)
	default:
		clear(n.caughtUp)
		return false
	}
}

// expel takes one member out. A leader that has to go hands over first. A vote is not taken away while those that are left
// could not go on without it.
func (n *Node) expel(ctx context.Context, leave, seats []Seat) bool {
	for _, seat := range leave {
		if seat.id() == n.id {
			n.log.Warn("this broker is to leave the cluster: another one is to lead", "error", n.HandOver())
			return false
		}
		left := votes(seats, seat)
		if answer := n.answering(ctx, left); seat.Votes && answer <= len(left)/2 {
			n.complain(seat, "a broker keeps the vote that it is to lose: without it no majority would answer", len(left), answer)
			continue
		}
		err := n.raft.RemoveServer(seat.id(), 0, enqueueTimeout).Error()
		n.log.Warn("a broker has left the cluster", "broker", seat.Name, "disk", seat.Disk, "error", err)
		return true
	}
	return false
}

// votes are the seats with a vote, but for one.
func votes(seats []Seat, but Seat) []Seat {
	return slices.DeleteFunc(slices.Clone(seats), func(s Seat) bool { return s == but || !s.Votes })
}

// complain says once a minute why a broker's vote stays as it is.
func (n *Node) complain(seat Seat, what string, votes, answer int) {
	if n.door.due("vote", seat.Name) {
		n.log.Error(what, "broker", seat.Name, "disk", seat.Disk, "votes", votes, "answer", answer)
	}
}

// admit lets a member in, without a vote.
func (n *Node) admit(seat Seat) bool {
	err := n.raft.AddNonvoter(seat.id(), raft.ServerAddress(seat.Name), 0, enqueueTimeout).Error()
	n.log.Warn("a broker has come into the cluster", "broker", seat.Name, "disk", seat.Disk, "error", err)
	return true
}

// promote gives a member its vote that has answered twice in a row that it has what this broker has, if a majority of those
// that vote then is there.
func (n *Node) promote(ctx context.Context, rise, seats []Seat) bool {
	for _, seat := range rise {
		if !n.hasCaughtUp(ctx, seat) {
			n.caughtUp[seat] = 0
			continue
		}
		if n.caughtUp[seat]++; n.caughtUp[seat] < 2 {
			continue
		}
		then := append(votes(seats, seat), seat)
		if answer := n.answering(ctx, then); answer <= len(then)/2 {
			n.complain(seat, "a broker does not get its vote yet: no majority of those that would vote answers", len(then), answer)
			continue
		}
		err := n.raft.AddVoter(seat.id(), raft.ServerAddress(seat.Name), 0, enqueueTimeout).Error()
		n.log.Warn("a broker has its vote", "broker", seat.Name, "disk", seat.Disk, "error", err)
		return true
	}
	return true
}

// hasCaughtUp asks a member how far it has come.
func (n *Node) hasCaughtUp(ctx context.Context, seat Seat) bool {
	status, err := n.ask(ctx, seat.Name)
	var own uint64
	err = errors.Join(err, n.machine.read(func(state *broker.State) { own = state.Index() }))
	return err == nil && status.Disk == seat.Disk && status.Events+withinReach >= own
}

// answering counts those of the seats whose brokers answer now; this one does.
func (n *Node) answering(ctx context.Context, seats []Seat) int {
	answers := make([]bool, len(seats))
	var asked sync.WaitGroup
	for i, seat := range seats {
		asked.Go(func() {
			_, err := n.ask(ctx, seat.Name)
			answers[i] = err == nil || broker.KindOf(err) == broker.Missing // an older build has no answer to this
		})
	}
	asked.Wait()
	count := 0
	for _, answered := range answers {
		if answered {
			count++
		}
	}
	return count
}

// ask asks a broker how it is.
func (n *Node) ask(ctx context.Context, name statement.BrokerName) (Status, error) {
	if name == n.name {
		return n.Status(), nil
	}
	if n.peers == nil {
		return Status{}, errors.New("this broker is alone")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, err := n.peers.Status(ctx, name, n.policies.newest().Ref().Revision)
	if err == nil {
		_ = n.policies.learn(status.Policies) // what its stewards did not sign is not learnt
	}
	return status, err
}
