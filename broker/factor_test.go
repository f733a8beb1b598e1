package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func right(step uint64) Judged { return Judged{Code: &CodeJudged{Right: true, Step: step}} }
func wrong() Judged            { return Judged{Code: &CodeJudged{}} }

// coded is a scene whose db-admin wants a code of who asks and of who approves; alice and bob have enrolled at step 100.
func coded(t tester, fresh statement.Seconds) *scene {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) {
		r.Factors = policy.Factors{Ask: policy.TOTP, Approve: policy.TOTP, Fresh: fresh}
	})
	for _, person := range []statement.Person{"alice", "bob"} {
		sc.must(sc.enrolsFactor(person, "123456", ""), judging(right(100)))
	}
	return sc
}

func TestThreatMFAEachCodeServesOnce(t *testing.T) {
	sc := coded(t, 0)
	asks := func(code string) statement.Proof { return sc.asksWith("alice", "db-admin", code, "db1") }
	refusedFor(t, sc, Denied, sc.asks("alice", "db-admin", "db1"), "a code is needed", judging(Judged{}))
	refusedFor(t, sc, Denied, asks("000001"), "the code is wrong", judging(wrong()))
	refusedFor(t, sc, Denied, asks("000002"), "the code is wrong", judging(Judged{})) // nobody judged it
	refusedFor(t, sc, Denied, asks("000003"), "the code was used before", judging(right(100)))
	p := asks("000004")
	sc.must(p, judging(right(101)))
	again := sc.with(func(r *statement.Request) { r.Code, r.Hosts = "000004", []statement.HostName{"db2"} })
	refusedFor(t, sc, Denied, again, "the code was used before", judging(right(101)))
	older := sc.with(func(r *statement.Request) { r.Code, r.Hosts = "000005", []statement.HostName{"db2"} })
	refusedFor(t, sc, Denied, older, "the code was used before", judging(right(99)))

	yes := sc.decision("bob", statement.Approve, p)
	refusedFor(t, sc, Denied, sc.sign(yes, key("bob")), "a code is needed")
	yes.Code, yes.Nonce = "000006", "00000000000000000000000000000000"
	sc.must(sc.sign(yes, key("bob")), judging(right(101)))
	if sc.find(p).Grant == nil {
		t.Error("nothing opened")
	}
	if first, err := sc.file(p, judging(right(101))); err != nil || len(first.Events) != 0 {
		t.Errorf("the same statement again: %v %v", kinds(first.Events), err)
	}
}

func TestARightCodeOfARefusedStatementIsUsedUp(t *testing.T) {
	sc := coded(t, 0)
	long := sc.with(func(r *statement.Request) { r.Code, r.Duration = "000001", 5*3600 })
	refusedFor(t, sc, Denied, long, "longer than", judging(right(101)))
	refusedFor(t, sc, Denied, sc.asksWith("alice", "db-admin", "000001", "db1"), "the code was used before", judging(right(101)))
}

func TestAFreshCodeServesAWhile(t *testing.T) {
	sc := coded(t, 600)
	sc.now += 599
	sc.must(sc.asks("alice", "db-admin", "db1")) // enrolled with a code just now
	sc.now += 1
	refusedFor(t, sc, Denied, sc.asks("alice", "db-admin", "db2"), "a code is needed")
}

func TestThreatMFAWrongCodesLockAndForLongerEachTime(t *testing.T) {
	sc := coded(t, 0)
	host := []statement.HostName{"db1"}
	fail := func(n int) {
		for range n {
			sc.refused(Denied, sc.asksWith("alice", "db-admin", "000000", host...), judging(wrong()))
		}
	}
	fail(4)
	sc.must(sc.asksWith("alice", "db-admin", "000001", "db2"), judging(right(101))) // a right one forgets them
	fail(4)
	if f := sc.s.factors["alice"]; f.Failures != 4 || f.LockedUntil != 0 {
		t.Fatalf("%+v", f)
	}
	for i, lock := range []statement.Seconds{900, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 86400} {
		fail(1)
		if f := sc.s.factors["alice"]; f.LockedUntil != sc.now.Add(lock) {
			t.Fatalf("lock %d: until %s, want %d s from %s", i, f.LockedUntil, lock, sc.now)
		}
		other := sc.with(func(r *statement.Request) { r.Code, r.Hosts = "000002", []statement.HostName{"db1", "db2"} })
		refusedFor(t, sc, Denied, other, "locked until", judging(right(uint64(200+i)))) // a right one does not help while it lasts
		sc.must(sc.sign(statement.Request{
			Head: sc.head(statement.KindRequest, "erin"), Role: "web-deploy", Hosts: []statement.HostName{"web1"}, Duration: 60, Reason: "release", Expires: sc.now.Add(60),
		}, key("erin"))) // nobody else is locked
		sc.now = sc.s.factors["alice"].LockedUntil
		fail(4)
	}
	data, err := EncodeState(sc.s)
	if err != nil {
		t.Fatal(err)
	}
	s, err := DecodeState(data)
	if err != nil || s.Digest() != sc.s.Digest() || s.factors["alice"].LockedUntil != sc.s.factors["alice"].LockedUntil {
		t.Errorf("a broker that starts again forgets: %v", err)
	}
}

func TestARecoveryCodeServesOnce(t *testing.T) {
	sc := coded(t, 0)
	recovery := func(n int) Judged { return Judged{Code: &CodeJudged{Right: true, Recovery: n}} }
	sc.must(sc.asksWith("alice", "db-admin", "abcde-fgh23", "db1"), judging(recovery(3)))
	second := sc.with(func(r *statement.Request) { r.Code, r.Hosts = "abcde-fgh23", []statement.HostName{"db2"} })
	refusedFor(t, sc, Denied, second, "recovery code 3 was used before", judging(recovery(3)))
	third := sc.with(func(r *statement.Request) { r.Code, r.Hosts = "abcde-fgh24", []statement.HostName{"db2"} })
	sc.must(third, judging(recovery(4)))
}

func TestThreatMFAAStolenKeyDoesNotReplaceASeed(t *testing.T) {
	sc := coded(t, 0)
	both := func(first, old CodeJudged) Judged { return Judged{Code: &first, Old: &old} }
	refusedFor(t, sc, Denied, sc.enrolsFactor("alice", "123456", ""), "a code of it is needed to replace it", judging(right(500)))
	refusedFor(t, sc, Denied, sc.enrolsFactor("alice", "123457", "000000"), "the code is wrong", judging(both(CodeJudged{Right: true, Step: 501}, CodeJudged{})))
	if f := sc.s.factors["alice"]; f.Failures != 1 {
		t.Errorf("it is not counted: %+v", f)
	}
	refusedFor(t, sc, Denied, sc.enrolsFactor("alice", "123458", "000001"), "the first code is not", judging(both(CodeJudged{}, CodeJudged{Right: true, Step: 502})))
	refusedFor(t, sc, Denied, sc.enrolsFactor("alice", "123459", "000001"), "used before", judging(both(CodeJudged{Right: true, Step: 503}, CodeJudged{Right: true, Step: 100})))
	sc.must(sc.enrolsFactor("alice", "123450", "000002"), judging(both(CodeJudged{Right: true, Step: 504}, CodeJudged{Right: true, Step: 504})))

	refusedFor(t, sc, Denied, sc.resetsFactor("bob", "alice"), "only operators")
	refusedFor(t, sc, Missing, sc.resetsFactor("dave", "erin"), "enrolled no second factor")
	sc.must(sc.resetsFactor("dave", "alice"))
	refusedFor(t, sc, Denied, sc.asksWith("alice", "db-admin", "000009", "db1"), "enrolled no second factor", judging(right(600)))
	sc.must(sc.enrolsFactor("alice", "123451", ""), judging(right(601)))
}

func TestAnOperatorDoesNotResetTheirOwnFactor(t *testing.T) {
	sc := coded(t, 0)
	sc.must(sc.enrolsFactor("dave", "123456", ""), judging(right(100)))
	refusedFor(t, sc, Denied, sc.resetsFactor("dave", "dave"), "nobody resets their own")
}

// A request that was filed before the role wanted a code does not open without one, whoever approves it and whatever the policy.
func TestThreatMFAWhatWasAskedEarlierIsHeldToTheCodeToo(t *testing.T) {
	for name, approvals := range map[string]policy.Approvals{
		"approved afterwards": {Count: 1, From: []policy.Name{"approvers"}}, "needing nobody any more": {None: true},
	} {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, func(*policy.Document, *policy.Role) {})
			p := sc.asks("alice", "db-admin", "db1")
			sc.must(p)
			sc.must(sc.revises(changeRole("db-admin", func(r *policy.Role) {
				r.Factors.Ask, r.Approvals, r.PlainKey = policy.TOTP, approvals, approvals.None
			})))
			if approvals.None {
				if sc.find(p).Grant != nil {
					t.Error("the policy opened it")
				}
				return
			}
			refusedFor(t, sc, Denied, sc.approves("bob", p), "was asked without a code")
		})
	}
}
