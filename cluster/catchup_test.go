package cluster

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// TestABrokerFarBehindGetsTheEventsToo has the leader cut its raft log while a follower is away: the snapshot that it
// is sent holds no history. It may get the events from anybody, and believes nobody.
func TestABrokerFarBehindGetsTheEventsToo(t *testing.T) {
	for name, world := range map[string]func(r *trio, leader, other statement.BrokerName){
		"from any broker":                            func(*trio, statement.BrokerName, statement.BrokerName) {},
		"though another one alters them":             func(r *trio, _, other statement.BrokerName) { r.lies[other] = true },
		"from a leader of a build that makes no sum": func(r *trio, _, _ statement.BrokerName) { r.noSums = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrio(t)
				away := r.follower()
				r.somehow()
				r.close(away)
				for range 40 {
					r.somehow()
				}
				r.forget()
				leader := r.leader()
				other := r.names[slices.IndexFunc(r.names, func(n statement.BrokerName) bool { return n != away && n != leader })]
				_, all := r.digest(leader)
				r.within("the other one has it all", func() bool { return r.node(other).Status().Events >= all })
				r.mu.Lock()
				world(r, leader, other)
				r.mu.Unlock()
				r.open(away)
				r.ready(away)
				mine, index := r.digest(away)
				if theirs, _ := r.digest(r.leader()); mine != theirs {
					t.Errorf("%s has another state", away)
				}
				r.sameEvents(away, index)
				convicted := r.heard(away, "EVENTS WERE ALTERED")
				r.close(away)
				r.open(away)
				r.ready(away)
				r.mu.Lock()
				defer r.mu.Unlock()
				switch {
				case r.noSums && r.asked[other] > 0:
					t.Errorf("%s, of whose events nobody knows the sum, was asked", other)
				case r.lies[other] && r.asked[other] > 0 && (r.asked[leader] == 0 || !convicted):
					t.Errorf("the leader was asked %d times, and nothing was said", r.asked[leader])
				case !r.noSums && r.asked[other] == 0 && r.asked[leader] == 0:
					t.Errorf("nobody was asked")
				case !r.noSums && !r.lies[other] && r.asked[other] > 0 && r.asked[leader] > 0:
					t.Errorf("the leader was asked %d times, though %s has it all", r.asked[leader], other)
				}
			})
		})
	}
}

// somehow files one, whoever leads by then.
func (r *trio) somehow() {
	r.t.Helper()
	r.within("a statement is filed", func() bool { return broker.KindOf(r.propose(r.leader())) == broker.Missing })
}

// sameEvents holds a broker's log to the leader's.
func (r *trio) sameEvents(name statement.BrokerName, index uint64) {
	r.t.Helper()
	theirs, _, err := r.node(r.leader()).Events(0, int(index))
	mine, _, errMine := r.node(name).Events(0, int(index))
	if err != nil || errMine != nil || uint64(len(mine)) != index || !slices.EqualFunc(mine, theirs, bytes.Equal) {
		r.t.Errorf("%s: %d events of %d, %d at the leader; %v, %v", name, len(mine), index, len(theirs), errMine, err)
	}
}

// TestWhenEverybodyLiesNothingIsTaken alters what each broker sends, the leader too: its own sum convicts it.
func TestWhenEverybodyLiesNothingIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		away := r.follower()
		r.somehow()
		r.close(away)
		for range 40 {
			r.somehow()
		}
		r.forget()
		r.mu.Lock()
		for _, name := range r.names {
			r.lies[name] = true
		}
		r.mu.Unlock()
		r.open(away)
		r.within("it is said", func() bool { return r.heard(away, "EVENTS WERE ALTERED") })
		if have := r.node(away).machine.log.Len(); have > 2 {
			t.Errorf("%d events were taken", have)
		}
		r.mu.Lock()
		clear(r.lies)
		r.mu.Unlock()
		r.ready(away) // and it goes on by itself
		_, index := r.digest(away)
		r.sameEvents(away, index)
	})
}

// forget has every broker that is up keep nothing but its snapshot.
func (r *trio) forget() {
	r.t.Helper()
	for _, name := range r.names {
		node := r.node(name)
		if node == nil {
			continue
		}
		short := node.raft.ReloadableConfig()
		short.TrailingLogs = 1
		if err := errors.Join(node.raft.ReloadConfig(short), node.raft.Snapshot().Error()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestASnapshotThatNeverArrivedIsNoneToStartFrom stops a broker in the middle of catching up, after some attempts that failed:
// nothing on its disk may reach further than its events, and what it could start from must still be there.
func TestASnapshotThatNeverArrivedIsNoneToStartFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		away := r.follower()
		r.somehow()
		r.ready(away)
		if err := r.node(away).raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		r.close(away)
		for range 40 {
			r.somehow()
		}
		r.forget()
		r.mu.Lock()
		for _, name := range r.names {
			r.lies[name] = true
		}
		r.mu.Unlock()
		r.open(away)
		r.within("some attempts", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			all := 0
			for _, n := range r.asked {
				all += n
			}
			return all > 3*2*keptSnapshots
		})
		r.close(away)
		r.mu.Lock()
		clear(r.lies)
		r.mu.Unlock()
		r.open(away)
		r.ready(away)
		mine, _ := r.digest(away)
		if theirs, _ := r.digest(r.leader()); mine != theirs {
			t.Errorf("%s has another state", away)
		}
	})
}
