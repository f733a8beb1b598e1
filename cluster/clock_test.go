package cluster

import (
	"slices"
	"testing"
	"testing/synctest"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// clock sets brokers' clocks so far ahead of the real one.
func (r *trio) clock(ahead statement.Seconds, names ...statement.BrokerName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		r.ahead[name] = ahead
	}
}

func (r *trio) now(at statement.BrokerName) (now statement.Time) {
	r.t.Helper()
	if err := r.node(at).View(r.t.Context(), func(s *broker.State) { now = s.Now() }); err != nil {
		r.t.Fatal(err)
	}
	return now
}

// TestALeaderAheadOfMostClocksIsRefused sets the leader's clock ahead, by a minute and by an hour: what it stamps is never
// committed, another one leads, and time goes on as before.
func TestALeaderAheadOfMostClocksIsRefused(t *testing.T) {
	statements := func(r *trio, leader statement.BrokerName) error { return r.propose(leader) }
	ticks := func(r *trio, leader statement.BrokerName) error {
		_, err := r.node(leader).Propose(r.t.Context(), broker.TickAt(0, nil))
		return err
	}
	for name, try := range map[string]struct {
		ahead   statement.Seconds
		propose func(*trio, statement.BrokerName) error
		taken   broker.Kind
	}{
		"a minute":                     {60, statements, broker.Missing},
		"an hour":                      {3600, statements, broker.Missing},
		"an hour, and it ends windows": {3600, ticks, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrio(t)
				leader := r.leader()
				r.filed(leader)
				r.clock(try.ahead, leader)
				if err := try.propose(r, leader); broker.KindOf(err) == try.taken {
					t.Errorf("what it stamped was decided: %v", err)
				}
				r.within("another leader", func() bool { return r.leader() != leader })
				r.within("a write", func() bool { return broker.KindOf(r.propose(r.leader())) == broker.Missing })
				if now := r.now(r.leader()); now > forger.Now().Add(broker.MaxSkew) {
					t.Errorf("the log's time is %s, and it is %s", now, forger.Now())
				}
				r.agree()
				if !slices.ContainsFunc(r.names, func(name statement.BrokerName) bool { return r.heard(name, "CLOCK: ") }) {
					t.Error("nobody complains")
				}
			})
		})
	}
}

// TestABrokerWhoseClockIsBehindFollows sets a follower's clock behind: it says so, and follows all the same.
func TestABrokerWhoseClockIsBehindFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		leader, behind := r.leader(), r.follower()
		r.clock(-60, behind)
		term := r.node(leader).raft.CurrentTerm()
		for range 5 {
			r.filed(leader)
		}
		r.agree()
		if now := r.node(leader).raft.CurrentTerm(); now != term {
			t.Errorf("term %d became %d", term, now)
		}
		if !r.heard(behind, "CLOCK") {
			t.Errorf("%s does not complain", behind)
		}
	})
}

// TestMostClocksAreRight sets two clocks of three ahead: that is the time. Once they are set back nobody stamps until it has
// come.
func TestMostClocksAreRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		leader := r.leader()
		var second, third statement.BrokerName
		for _, name := range r.names {
			switch {
			case name == leader:
			case second == "":
				second = name
			default:
				third = name
			}
		}
		r.clock(50, leader, second)
		r.filed(leader)
		r.agree()
		if !r.heard(third, "CLOCK") || r.heard(second, "CLOCK") {
			t.Error("not the broker whose clock differs complains")
		}
		r.clock(0, r.names...)
		if err := r.propose(r.leader()); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("the leader stamped into the future: %v", err)
		}
		r.clock(50, r.names...)
		r.within("a write, once the time has come", func() bool { return broker.KindOf(r.propose(r.leader())) == broker.Missing })
	})
}
