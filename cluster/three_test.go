package cluster

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

func TestEveryBrokerShowsWhatWasAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		leader := r.leader()
		for n := range uint64(30) {
			r.filed(leader)
			for _, name := range r.names {
				if _, index := r.digest(name); index != n+2 {
					t.Fatalf("%s shows %d events, %d are acknowledged", name, index, n+2)
				}
			}
		}
	})
}

func TestAFollowerProposesNothingAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		if err := r.propose(r.follower()); !errors.Is(err, broker.ErrNotLeader) || broker.KindOf(err) != broker.Unavailable {
			t.Errorf("got %v, want not leader", err)
		}
		if _, index := r.digest("b1"); index != 1 {
			t.Errorf("there are %d events", index)
		}
	})
}

// TestAPartitionedBrokerShowsNothing cuts off the leader, and then a follower, from the other two.
func TestAPartitionedBrokerShowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		for _, who := range []func() statement.BrokerName{r.leader, r.follower} {
			alone := who()
			r.filed(r.leader())
			r.sever(alone)
			r.within("another leader", func() bool { return r.leader() != alone })
			r.filed(r.leader())
			start := time.Now()
			if err := r.node(alone).View(t.Context(), func(s *broker.State) { t.Errorf("%s, alone, showed %d events", alone, s.Index()) }); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("%s, alone: %v", alone, err)
			}
			if took := time.Since(start); took > viewTimeout+time.Second {
				t.Errorf("it took %s to say so", took)
			}
			if err := r.propose(alone); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("%s, alone, took a write: %v", alone, err)
			}
			r.heal(alone)
			r.ready(alone)
			mine, _ := r.digest(alone)
			if theirs, _ := r.digest(r.leader()); mine != theirs {
				t.Errorf("%s came back with another state", alone)
			}
		}
	})
}

func TestALeaderThatHandsOverIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		old := r.leader()
		if err := r.node(old).HandOver(); err != nil {
			t.Fatal(err)
		}
		r.within("another leader", func() bool { return r.leader() != old })
		r.filed(r.leader())
	})
}

// TestABrokerThatPolicyDropsHasNoVote drops the leader itself, the hardest case, and then nobody misses it.
func TestABrokerThatPolicyDropsHasNoVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		gone := r.leader()
		current := r.world.Chain.Current()
		doc := r.world.Chain.Next(*current, current.Expires)
		doc.Brokers = maps.Clone(doc.Brokers)
		delete(doc.Brokers, gone)
		command, err := broker.CommandFor(r.world.SignPolicy(doc, "dave"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.node(gone).Propose(t.Context(), command); err != nil {
			t.Fatal(err)
		}
		r.within("another leader, of two", func() bool {
			next := r.leader()
			return next != gone && len(r.node(next).raft.GetConfiguration().Configuration().Servers) == 2
		})
		r.within("it shows nothing any more", func() bool {
			return broker.KindOf(r.node(gone).View(t.Context(), func(*broker.State) {})) == broker.Unavailable
		})
		r.filed(r.leader())
	})
}

// TestAWipedBrokerIsNotHeard bootstraps a broker a second time, with the right file and its old name: what it had stored
// and promised is gone, so the others take neither its vote nor its word for what is committed.
func TestAWipedBrokerIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		wiped := r.follower()
		r.within("everybody has met", func() bool {
			for _, name := range r.names {
				for _, other := range r.names {
					if other != name && !r.node(name).door.knows(other) {
						return false
					}
				}
			}
			return true
		})
		r.close(wiped)
		r.dirs[wiped] = memory(t)
		if err := Bootstrap(Config{Name: wiped, Dir: r.dirs[wiped], Now: forger.Now, Log: io.Discard}, r.world.Chain.Proofs()); err != nil {
			t.Fatal(err)
		}
		leader := r.leader()
		r.open(wiped)
		r.within("the leader refuses it", func() bool { return r.heard(leader, "another disk") })
		r.filed(leader)
		if err := r.node(wiped).machine.read(func(s *broker.State) {
			if s.Index() != 0 {
				t.Errorf("it was told %d events", s.Index())
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// TestReadersShareOneQuestion has a thousand readers at once ask less often than they are, and nobody be answered by a
// question that was asked before they came.
func TestReadersShareOneQuestion(t *testing.T) {
	var asked, at atomic.Uint64
	r := rounds{ask: func(context.Context) (uint64, error) {
		asked.Add(1)
		now := at.Load()
		<-time.After(time.Millisecond)
		return now, nil
	}}
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			came := at.Add(1)
			if index, err := r.join(t.Context()); err != nil || index < came {
				t.Errorf("came at %d, answered %d, %v", came, index, err)
			}
		})
	}
	all.Wait()
	if asked.Load() > 500 {
		t.Errorf("%d questions for 1000 readers", asked.Load())
	}
}

// TestBootstrapRefusesWhatCouldNotBegin tries chains that would only fail later.
func TestBootstrapRefusesWhatCouldNotBegin(t *testing.T) {
	world := forger.New(t, nil)
	config := Config{Name: "b1", Dir: t.TempDir(), Now: forger.Now, Log: t.Output()}
	stranger := config
	stranger.Name = "b7"
	for name, err := range map[string]error{
		"no policy":                       Bootstrap(config, nil),
		"a broker that is not listed":     Bootstrap(stranger, world.Chain.Proofs()),
		"a second revision without first": Bootstrap(config, []statement.Proof{world.SignPolicy(world.Chain.Next(*world.Chain.Current(), forger.Now()+9999), "dave")}),
	} {
		if err == nil {
			t.Errorf("%s: it began", name)
		}
	}
	if found, err := present(config.Dir); err != nil || len(found) != 0 {
		t.Errorf("it left %v, %v", found, err)
	}
}

// TestRaftSendsNothingThroughItsPipeline: raft's loses the reader of its answers when a follower says no (see AppendEntriesPipeline).
func TestRaftSendsNothingThroughItsPipeline(t *testing.T) {
	var wire raft.Transport = &transport{NetworkTransport: nil}
	if _, err := wire.AppendEntriesPipeline("b2", "b2"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("got %v", err)
	}
}
