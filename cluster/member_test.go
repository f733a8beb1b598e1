package cluster

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// list has the stewards list a broker, and the cluster adopt that.
func (r *trio) list(name statement.BrokerName) {
	r.t.Helper()
	r.filed(r.leader()) // what the first policies list may have founded the cluster
	current := r.world.Chain.Current()
	doc := r.world.Chain.Next(*current, current.Expires)
	doc.Brokers = maps.Clone(doc.Brokers)
	doc.Brokers[name] = policy.Broker{Address: string(name) + ":7443", Identity: keyOf(r.t), CA: keyOf(r.t), Log: keyOf(r.t)}
	proof := r.world.SignPolicy(doc, "dave")
	r.file(proof)
	chain, err := r.world.Chain.Advance(proof)
	if err != nil {
		r.t.Fatal(err)
	}
	r.world.Chain = chain
}

// file has the leader decide a statement that must be taken; leaders may change meanwhile.
func (r *trio) file(proof statement.Proof) {
	r.t.Helper()
	command, err := broker.CommandFor(proof, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.within("a decision", func() bool {
		_, err = r.node(r.leader()).Propose(r.t.Context(), command)
		return broker.KindOf(err) != broker.Unavailable
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// change is an operator's word on a broker.
func (r *trio) change(what statement.Change, name statement.BrokerName, disk statement.Disk, watching bool) {
	r.t.Helper()
	r.file(r.world.Sign(statement.Cluster{Head: r.world.Head(statement.KindCluster, "dave"), Action: what, Broker: name, Disk: disk, Watching: watching}, "dave"))
}

// join gives a broker an empty disk, and starts it.
func (r *trio) join(name statement.BrokerName) statement.Disk {
	r.t.Helper()
	r.dirs[name] = memory(r.t)
	disk, err := Join(Config{Name: name, Dir: r.dirs[name], Now: forger.Now, Log: io.Discard}, r.world.Chain.Proofs())
	if err != nil {
		r.t.Fatal(err)
	}
	if !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
	r.open(name)
	return disk
}

// seated waits until the leader's raft has these members and no others. A broker that votes is NAME or NAME/DISK; one that
// watches has a ? before it.
func (r *trio) seated(want ...string) {
	r.t.Helper()
	slices.Sort(want)
	var have []string
	defer func() {
		if r.t.Failed() {
			r.t.Logf("members are %v, want %v", have, want)
		}
	}()
	r.within("members "+strings.Join(want, " "), func() bool {
		have = nil
		for _, seat := range r.node(r.leader()).Seats() {
			mark := map[bool]string{true: "", false: "?"}[seat.Votes]
			have = append(have, mark+string(seat.id()))
		}
		slices.Sort(have)
		return slices.Equal(have, want)
	})
}

// agree holds every broker that runs to one state, with everything acknowledged.
func (r *trio) agree() {
	r.t.Helper()
	digest, index := r.digest(r.leader())
	for _, name := range r.names {
		if r.node(name) == nil {
			continue
		}
		r.ready(name)
		if mine, at := r.digest(name); mine != digest || at != index {
			r.t.Errorf("%s has %d events, digest %s; the leader %d, %s", name, at, mine, index, digest)
		}
		if events, _, err := r.node(name).Events(0, 1<<20); err != nil || uint64(len(events)) != index {
			r.t.Errorf("%s holds %d events of %d, %v", name, len(events), index, err)
		}
	}
}

func joined(name statement.BrokerName, disk statement.Disk) string {
	return string(Seat{Name: name, Disk: disk}.id())
}

// TestAFourthBrokerJoins waits to be added, follows, votes, and counts: two of four are no majority, three are.
func TestAFourthBrokerJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.filed(r.leader())
		r.list("b4")
		disk := r.join("b4")
		r.within("it is told what an operator types", func() bool {
			for _, refusal := range r.node("b4").Refusals() {
				if strings.Contains(refusal.Why, "an operator types pim-ssh cluster add b4 --disk "+string(disk)) {
					return true
				}
			}
			return false
		})
		if status := r.node("b4").Status(); status.Events != 0 || status.Disk != disk {
			t.Errorf("not yet added, it has %d events on disk %s", status.Events, status.Disk)
		}
		r.change(statement.Add, "b4", disk, false)
		r.seated("b1", "b2", "b3", joined("b4", disk))
		r.agree()
		for _, name := range []statement.BrokerName{"b1", "b2"} {
			r.close(name)
		}
		if err := r.propose("b4"); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("two of four decided: %v", err)
		}
		r.open("b1")
		r.within("three of four decide", func() bool { return broker.KindOf(r.propose(r.leader())) == broker.Missing })
		r.open("b2")
		r.agree()
		r.close("b4")
		r.open("b4")
		r.agree()
		r.seated("b1", "b2", "b3", joined("b4", disk))
	})
}

// TestAWatchingBrokerServesAndNeverVotes reads and refuses to write like any follower, is missed by nobody, and gets its
// vote when an operator says so.
func TestAWatchingBrokerServesAndNeverVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.list("b4")
		disk := r.join("b4")
		r.change(statement.Add, "b4", disk, true)
		r.seated("b1", "b2", "b3", "?"+joined("b4", disk))
		for range 10 {
			r.filed(r.leader())
			want, _ := r.digest(r.leader())
			if have, _ := r.digest("b4"); have != want {
				t.Fatal("it shows less than what was acknowledged")
			}
		}
		if err := r.propose("b4"); !errors.Is(err, broker.ErrNotLeader) {
			t.Errorf("it decided: %v", err)
		}
		r.close("b1")
		r.close("b2")
		if err := r.node("b4").View(t.Context(), func(*broker.State) {}); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("without a majority of those that vote it shows a state: %v", err)
		}
		if state := r.node("b4").raft.State(); state != raft.Follower {
			t.Errorf("it is a %s", state)
		}
		r.open("b1")
		r.open("b2")
		r.agree()
		r.change(statement.Add, "b4", disk, false)
		r.seated("b1", "b2", "b3", joined("b4", disk))
	})
}

// TestARemovedBrokerIsRefusedAndToldWhy removes a follower, whose disk returns, and then the leader.
func TestARemovedBrokerIsRefusedAndToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		gone := r.follower()
		r.filed(r.leader())
		r.change(statement.Remove, gone, "", false)
		r.within("two members", func() bool { return len(r.node(r.leader()).Seats()) == 2 })
		r.close(gone)
		for range 3 {
			r.filed(r.leader())
		}
		r.open(gone)
		r.within("it is told why", func() bool {
			told := r.node(gone).Refusals()
			return len(told) > 0 && strings.Contains(slices.Collect(maps.Values(told))[0].Why, string(gone)+" was removed by dave at ")
		})
		if err := r.node(gone).View(t.Context(), func(*broker.State) {}); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("it shows a state: %v", err)
		}
		if _, have := r.digest(r.leader()); r.node(gone).Status().Events >= have {
			t.Error("it was told events")
		}
		r.close(gone)
		r.names = slices.DeleteFunc(r.names, func(n statement.BrokerName) bool { return n == gone })
		leader := r.leader()
		r.change(statement.Remove, leader, "", false)
		r.within("one member, another leader", func() bool { return r.leader() != leader && len(r.node(r.leader()).Seats()) == 1 })
		r.filed(r.leader())
	})
}

// TestAVoteStaysWhileItIsNeeded removes a broker while another one is away: without it there would be no majority. It goes
// once the other is back.
func TestAVoteStaysWhileItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		leader := r.leader()
		var others []statement.BrokerName
		for _, name := range r.names {
			if name != leader {
				others = append(others, name)
			}
		}
		r.close(others[0])
		r.change(statement.Remove, others[1], "", false)
		r.within("it says why nothing happens", func() bool { return r.heard(leader, "without it no majority would answer") })
		r.filed(leader)
		if n := len(r.node(leader).Seats()); n != 3 {
			t.Errorf("there are %d members", n)
		}
		r.open(others[0])
		r.within("two members", func() bool { return len(r.node(r.leader()).Seats()) == 2 })
		r.filed(r.leader())
	})
}

// TestAWipedBrokerComesBackUnderLoad loses a follower's disk while people file: the directory is bootstrapped again, joined
// before it was removed, and at last removed, joined and added.
func TestAWipedBrokerComesBackUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		ctx, stop := context.WithCancel(t.Context())
		var filing sync.WaitGroup
		filing.Go(func() {
			pace := time.NewTicker(50 * time.Millisecond)
			defer pace.Stop()
			for ; ctx.Err() == nil; <-pace.C {
				if err := r.propose(r.leader()); broker.KindOf(err) != broker.Missing && broker.KindOf(err) != broker.Unavailable {
					t.Errorf("while brokers came and went: %v", err)
				}
			}
		})
		defer filing.Wait()
		defer stop()
		lost := r.follower()
		r.within("everybody has met", func() bool {
			return !slices.ContainsFunc(r.names, func(name statement.BrokerName) bool { return name != lost && !r.node(name).door.knows(lost) })
		})
		r.close(lost)
		disk := r.join(lost)
		told := func(what string) func() bool {
			return func() bool {
				for _, refusal := range r.node(lost).Refusals() {
					if strings.Contains(refusal.Why, what) {
						return true
					}
				}
				return false
			}
		}
		r.within("it is told what comes first", told("an operator types pim-ssh cluster remove "+string(lost)+", then pim-ssh cluster add "+string(lost)+" --disk "+string(disk)))
		r.change(statement.Remove, lost, "", false)
		r.within("two members", func() bool { return len(r.node(r.leader()).Seats()) == 2 })
		r.within("it is told what is next", told("an operator types pim-ssh cluster add "+string(lost)+" --disk "+string(disk)))
		r.change(statement.Add, lost, disk, false)
		r.within("it votes", func() bool {
			return slices.Contains(r.node(r.leader()).Seats(), Seat{lost, disk, true})
		})
		stop()
		filing.Wait()
		r.agree()
	})
}

// TestABrokerIsAddedDuringAPartition adds one while another is cut off, which learns of it when it is back.
func TestABrokerIsAddedDuringAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		away := r.follower()
		r.list("b4")
		r.sever(away)
		disk := r.join("b4")
		r.change(statement.Add, "b4", disk, false)
		r.seated("b1", "b2", "b3", joined("b4", disk))
		r.filed(r.leader())
		r.heal(away)
		r.agree()
		if n := len(r.node(away).Seats()); n != 4 {
			t.Errorf("%s knows %d members", away, n)
		}
	})
}

// TestABrokerThatWasAwayFollowsOneThatCameMeanwhile replaces a broker while another is down, and has the new one lead when
// that comes back, knowing nothing of it.
func TestABrokerThatWasAwayFollowsOneThatCameMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.list("b4")
		disk4 := r.join("b4")
		r.change(statement.Add, "b4", disk4, false)
		r.seated("b1", "b2", "b3", joined("b4", disk4))
		r.agree()
		r.close("b3")
		r.change(statement.Remove, "b2", "", false)
		r.seated("b1", "b3", joined("b4", disk4))
		r.close("b2")
		disk2 := r.join("b2")
		r.change(statement.Add, "b2", disk2, false)
		r.seated("b1", "b3", joined("b2", disk2), joined("b4", disk4))
		r.within("b2 leads", func() bool {
			leader := r.leader()
			if leader != "b2" {
				_ = r.node(leader).raft.LeadershipTransferToServer(raft.ServerID(joined("b2", disk2)), "b2").Error()
			}
			return leader == "b2"
		})
		r.filed("b2")
		r.open("b3")
		r.agree()
		if leader := r.leader(); leader != "b2" {
			t.Logf("%s leads by now", leader)
		}
	})
}

// TestAJoiningBrokerGetsASnapshotAndTheEvents joins a cluster whose raft logs are cut.
func TestAJoiningBrokerGetsASnapshotAndTheEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		for range 40 {
			r.filed(r.leader())
		}
		r.forget()
		r.list("b4")
		disk := r.join("b4")
		r.change(statement.Add, "b4", disk, false)
		r.seated("b1", "b2", "b3", joined("b4", disk))
		r.agree()
	})
}

// TestAForeignDeploymentsBrokerStaysOut joins with the chain file of another deployment, that has a broker of that name too.
func TestAForeignDeploymentsBrokerStaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.list("b4")
		own := r.world
		r.world = forger.New(t, func(doc *policy.Document) {
			doc.Brokers["b4"] = policy.Broker{Address: "b4:7443", Identity: keyOf(t), CA: keyOf(t), Log: keyOf(t)}
		})
		disk := r.join("b4")
		r.world = own
		r.change(statement.Add, "b4", disk, false)
		r.within("the others refuse it", func() bool { return r.heard(r.leader(), errForeign.Error()) })
		r.within("it is let in by raft alone", func() bool { return len(r.node(r.leader()).Seats()) == 4 })
		r.filed(r.leader())
		if events := r.node("b4").Status().Events; events != 0 {
			t.Errorf("it was told %d events", events)
		}
		if slices.Contains(r.node(r.leader()).Seats(), Seat{"b4", disk, true}) {
			t.Error("it votes")
		}
	})
}

// TestAWatchersWordIsNoVote leaves a leader alone with a broker that watches: from then on it shows nothing, though raft would
// take the watcher's answer to a heartbeat for a vote until the lease ends.
func TestAWatchersWordIsNoVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.list("b4")
		disk := r.join("b4")
		r.change(statement.Add, "b4", disk, true)
		r.seated("b1", "b2", "b3", "?"+joined("b4", disk))
		leader := r.leader()
		for _, name := range []statement.BrokerName{"b1", "b2", "b3"} {
			if name != leader {
				r.close(name)
			}
		}
		for range 100 { // raft asks the watcher first in some of them
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			err := r.node(leader).Lead(ctx, func(*broker.State) {})
			cancel()
			if err == nil {
				t.Fatal("a leader without any other that votes shows a state")
			}
		}
	})
}

// TestOneBrokerBecomesThree grows a cluster of one, and loses the first.
func TestOneBrokerBecomesThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrioOf(t, "b1")
		start := time.Now()
		r.filed("b1")
		for _, name := range []statement.BrokerName{"b2", "b3"} {
			r.list(name)
			r.change(statement.Add, name, r.join(name), false)
		}
		r.within("three members that vote", func() bool {
			return !slices.ContainsFunc(r.node(r.leader()).Seats(), func(s Seat) bool { return !s.Votes }) && len(r.node(r.leader()).Seats()) == 3
		})
		t.Logf("three after %s", time.Since(start))
		r.agree()
		r.close("b1")
		r.filed(r.leader())
		r.open("b1")
		r.agree()
	})
}

// TestADiskThatWasNotAddedElectsNobody loses the disk of one of the two brokers that had acknowledged something. The third has
// not heard of it, and asks the empty disk that came in its place for the vote it would need to lead.
func TestADiskThatWasNotAddedElectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		leader, late := r.leader(), r.follower()
		lost := r.names[slices.IndexFunc(r.names, func(n statement.BrokerName) bool { return n != leader && n != late })]
		r.filed(leader)
		r.ready(late)
		r.close(late)
		for range 5 {
			r.filed(leader)
		}
		_, acknowledged := r.digest(leader)
		r.close(lost)
		r.close(leader)
		r.join(lost)
		r.open(late)
		until := time.NewTimer(5 * time.Second)
		defer until.Stop()
		look := time.NewTicker(20 * time.Millisecond)
		defer look.Stop()
		for over := false; !over; {
			select {
			case <-until.C:
				over = true
			case <-look.C:
				if r.node(late).raft.State() == raft.Leader {
					t.Fatal("it leads, by the vote of a disk that has forgotten everything")
				}
			}
		}
		r.open(leader)
		r.ready(leader, late)
		if _, index := r.digest(late); index < acknowledged {
			t.Errorf("%d events, %d were acknowledged", index, acknowledged)
		}
	})
}
