package broker

import (
	"slices"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// parts makes db-admin need each part; the first stands in Approvals.
func parts(all ...policy.Part) func(*policy.Document, *policy.Role) {
	return func(doc *policy.Document, r *policy.Role) {
		doc.Groups["sre"], doc.Groups["security"] = []statement.Person{"bob", "carol"}, []statement.Person{"carol", "gwen"}
		r.Approvals, r.And = policy.Approvals{Count: all[0].Count, From: all[0].From}, all[1:]
	}
}

func of(count int, from ...policy.Name) policy.Part { return policy.Part{Count: count, From: from} }

func TestEveryPartOfAQuorumIsFilledByPeopleOfItsOwn(t *testing.T) {
	both := parts(of(1, "security"), of(1, "sre"))
	cases := map[string]struct {
		parts func(*policy.Document, *policy.Role)
		yes   []statement.Person
		open  bool
		needs []string // what is left, when it is not open
	}{
		"one of each":                          {both, []statement.Person{"bob", "gwen"}, true, nil},
		"one who is in both counts once":       {both, []statement.Person{"carol"}, false, []string{"1 of bob"}},
		"and makes room for who is in one":     {both, []statement.Person{"carol", "bob"}, true, nil},
		"whichever part that is":               {both, []statement.Person{"carol", "gwen"}, true, nil},
		"two of one part do not fill another":  {parts(of(1, "security"), of(1, "bob", "dave")), []statement.Person{"carol", "gwen"}, false, []string{"1 of bob, dave"}},
		"nobody has approved":                  {both, nil, false, []string{"1 of carol, gwen", "1 of bob, carol"}},
		"more than one of a part":              {parts(of(2, "approvers"), of(1, "dave")), []statement.Person{"bob", "gwen", "dave"}, true, nil},
		"more than one of a part, one missing": {parts(of(2, "approvers"), of(1, "dave")), []statement.Person{"bob", "dave"}, false, []string{"1 of carol, gwen"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, c.parts)
			p := sc.asks("alice", "db-admin", "db1")
			r := sc.opens(p, c.yes...)
			if open := r.Grant != nil; open != c.open {
				t.Fatalf("open: %v", open)
			}
			var left []string
			for _, need := range sc.s.Needs(r.ID, sc.now) {
				left = append(left, need.String())
			}
			slices.Sort(left)
			slices.Sort(c.needs)
			if !c.open && !slices.Equal(left, c.needs) {
				t.Errorf("it needs %v, want %v", left, c.needs)
			}
		})
	}
}

func TestWhoStandsInDoesSoAfterAWhile(t *testing.T) {
	sc := limited(t, func(doc *policy.Document, r *policy.Role) {
		r.Fallback = []policy.Fallback{{After: 600, From: []policy.Name{"dave"}}, {After: 1200, From: []policy.Name{"frank"}}}
	})
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	sc.now += 599
	refusedFor(t, sc, Denied, sc.approves("dave", p), "dave is no approver of db-admin")
	refusedFor(t, sc, Denied, sc.denies("dave", p), "dave is no approver of db-admin")
	sc.now++
	refusedFor(t, sc, Denied, sc.approves("frank", p), "frank is no approver of db-admin")
	if needs := sc.s.Needs(sc.find(p).ID, sc.now); len(needs) != 1 || needs[0].String() != "1 of bob, carol, dave, gwen" {
		t.Errorf("needs %v", needs)
	}
	if len(sc.s.Inbox("dave", sc.now)) != 1 || len(sc.s.Inbox("frank", sc.now)) != 0 {
		t.Error("the wrong people find it in their inbox")
	}
	early := sc.decision("frank", statement.Approve, p)
	if _, err := Prove(sc.chain, Dossier{Request: p, Decisions: []statement.Proof{sc.sign(early, key("frank"))}}); KindOf(err) != Denied {
		t.Errorf("a host takes a yes that came too early: %v", err)
	}
	sc.must(sc.approves("dave", p))
	if sc.find(p).Grant == nil {
		t.Error("nothing opened")
	}
}

func TestAnApprovalWaitsForTheOthersUntilItsNotAfter(t *testing.T) {
	sc := limited(t, parts(of(2, "approvers")))
	p := sc.with(func(r *statement.Request) { r.Expires = sc.now.Add(3600) })
	sc.must(p)
	sc.must(sc.approves("bob", p)) // for five minutes
	refusedFor(t, sc, Conflict, sc.approves("bob", p), "bob decided")
	sc.now += 301
	sc.must(sc.approves("gwen", p))
	if sc.find(p).Grant != nil {
		t.Fatal("a yes counts that was over")
	}
	if needs := sc.s.Needs(sc.find(p).ID, sc.now); len(needs) != 1 || needs[0].String() != "1 of bob, carol" {
		t.Errorf("needs %v", needs)
	}
	sc.must(sc.approves("bob", p))
	if r := sc.find(p); r.Grant == nil || r.Grant.From != sc.now {
		t.Errorf("grant %+v", r.Grant)
	}
}

func TestAnApproverGivesAReasonWhereTheRoleWantsOne(t *testing.T) {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) { r.ApproverReason = true })
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	silent := sc.approves("bob", p)
	refusedFor(t, sc, Denied, silent, "bob gave no reason")
	if _, err := Prove(sc.chain, Dossier{Request: p, Decisions: []statement.Proof{silent}}); KindOf(err) != Denied {
		t.Errorf("a host says %v", err)
	}
	d := sc.decision("bob", statement.Approve, p)
	d.Reason = "seen the ticket"
	sc.must(sc.sign(d, key("bob")))
	if sc.find(p).Grant == nil {
		t.Error("nothing opened")
	}
}
