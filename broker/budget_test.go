package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func budget(time, per statement.Seconds) func(*policy.Document, *policy.Role) {
	return func(_ *policy.Document, r *policy.Role) { r.Budget = policy.Budget{Time: time, Per: per} }
}

func (sc *scene) lasting(d statement.Seconds) statement.Proof {
	return sc.with(func(r *statement.Request) { r.Duration = d })
}

func TestABudgetBoundsWhatIsUsedWithinItsTime(t *testing.T) {
	sc := limited(t, budget(2*3600, statement.Day))
	first := sc.lasting(3600)
	sc.opens(first, "bob")
	refusedFor(t, sc, Denied, sc.lasting(3601), "1h0m0s: budget of 2h0m0s per 24h0m0s for db-admin; alice used 1h0m0s, and this is 1h0m1s more")
	sc.now += 1800
	sc.must(sc.ends("alice", statement.Return, first)) // half of it was not used
	if used := sc.s.Used("alice", "db-admin", statement.Day, sc.now); used != 1800 {
		t.Errorf("used %d s", used)
	}
	second := sc.lasting(5400)
	sc.opens(second, "bob")
	sc.must(sc.ends("carol", statement.Revoke, second)) // at once
	third := sc.lasting(5400)
	sc.opens(third, "bob")
	refusedFor(t, sc, Denied, sc.lasting(1), "0s: budget")
	sc.now = dawn.Add(statement.Day + 900) // a quarter of an hour of the first has left the day
	sc.must(sc.lasting(900))
	refusedFor(t, sc, Denied, sc.with(func(r *statement.Request) { r.Duration, r.Hosts = 901, []statement.HostName{"db2"} }), "budget")
	if used := sc.s.Used("erin", "db-admin", statement.Day, sc.now); used != 0 {
		t.Errorf("erin used %d s", used)
	}
}

// Two requests that each fit are not both granted.
func TestABudgetIsLookedAtWhenAGrantOpensToo(t *testing.T) {
	sc := limited(t, budget(3600, statement.Day))
	one, other := sc.lasting(3600), sc.with(func(r *statement.Request) { r.Duration, r.Hosts = 3600, []statement.HostName{"db2"} })
	sc.must(one)
	sc.must(other)
	sc.must(sc.approves("bob", one))
	refusedFor(t, sc, Denied, sc.approves("bob", other), "budget of 1h0m0s per 24h0m0s")
	data, err := EncodeState(sc.s)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := DecodeState(data); err != nil || s.Used("alice", "db-admin", statement.Day, sc.now) != 3600 || s.Digest() != sc.s.Digest() {
		t.Errorf("a broker that starts again forgets: %v", err)
	}
}
