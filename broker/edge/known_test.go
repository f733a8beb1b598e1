package edge

import (
	"slices"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// TestAnApproverSeesWhatOnlyBrokersKnow: where a request came from, what is left of a budget, and whether it is the first of its kind,
// also once the state has forgotten the one before.
func TestAnApproverSeesWhatOnlyBrokersKnow(t *testing.T) {
	j := newJudging(t, func(r *policy.Role) {
		r.Approvals, r.PlainKey = policy.Approvals{Count: 1, From: []policy.Name{"approvers"}}, false
		r.Networks, r.Budget = []string{"127.0.0.0/8"}, policy.Budget{Time: 8 * 3600, Per: 7 * statement.Day}
	})
	inbox := func() api.RequestView {
		t.Helper()
		all, err := j.as("bob").Inbox(t.Context())
		j.must(err)
		if len(all) != 1 {
			t.Fatalf("%d requests wait", len(all))
		}
		one, err := j.as("bob").Request(t.Context(), string(all[0].ID))
		j.must(err)
		if one.Judged != all[0].Judged || one.First != all[0].First || *one.Budget != *all[0].Budget {
			t.Errorf("the inbox says %+v, the request %+v", all[0], one)
		}
		return one
	}
	ask := j.with("alice", "")
	j.submit(ask)
	view := inbox()
	if want := (api.BudgetView{Time: 8 * 3600, Per: 7 * statement.Day}); *view.Budget != want || !view.First || view.Judged.Source != "127.0.0.1" {
		t.Errorf("the first request: %+v %+v first %t", *view.Budget, view.Judged, view.First)
	}
	granted := j.submit(j.world.Approve("bob", ask, nil))
	if view, err := j.as("bob").Request(t.Context(), string(granted.Request)); err != nil || !view.First || view.Budget.Used != 600 {
		t.Errorf("once granted: %+v, %v", view, err)
	}
	j.submit(j.end("alice", *granted.Grant, statement.Return))
	j.submit(j.with("alice", ""))
	if view = inbox(); view.First || view.Budget.Used > 60 {
		t.Errorf("the second request: %+v first %t", *view.Budget, view.First)
	}
	j.submit(j.world.Sign(statement.Decision{Head: j.world.Head(statement.KindDecision, "bob"), Request: view.Dossier.Request.Hash(), Verdict: statement.Deny}, "bob"))
	j.submit(j.with("erin", ""))
	if view = inbox(); !view.First || view.Budget.Used != 0 {
		t.Errorf("another person's first: %+v first %t", *view.Budget, view.First)
	}
}

// TestAReviewAndARenewalAreSeenByThoseWhoAnswerThem until they have.
func TestAReviewAndARenewalAreSeenByThoseWhoAnswerThem(t *testing.T) {
	ends := forger.Now() + 3600
	s := newStage(t, func(doc *policy.Document) {
		fire := doc.Roles["db-admin"]
		fire.Emergency, fire.PlainKey, fire.Eligible = true, true, []policy.Name{"alice", "bob"}
		fire.Dated = []policy.Eligibility{{Who: "erin", Until: ends}}
		doc.Roles["fire"] = fire
	}, nil)
	see := func(person statement.Person) (reviews, renewals int) {
		t.Helper()
		open, err := s.as(person).Reviews(t.Context())
		s.must(err)
		asked, err := s.as(person).Renewals(t.Context())
		s.must(err)
		return len(open), len(asked)
	}
	grant := s.granted("bob", "fire", "db1", forger.Key(t))
	s.submit(s.world.Sign(statement.Renewal{Head: s.world.Head(statement.KindRenewal, "erin"), Role: "fire", Until: ends + 3600, Reason: "goes on"}, "erin"))
	for person, want := range map[statement.Person][2]int{"alice": {0, 0}, "bob": {0, 0}, "carol": {1, 0}, "frank": {1, 0}, "erin": {0, 1}, "dave": {0, 1}, "mallory": {0, 0}} {
		if reviews, renewals := see(person); reviews != want[0] || renewals != want[1] {
			t.Errorf("%s sees %d reviews and %d renewals, want %v", person, reviews, renewals, want)
		}
	}
	roles, err := s.as("erin").Roles(t.Context())
	s.must(err)
	at := slices.IndexFunc(roles, func(r api.RoleView) bool { return r.Role == "fire" })
	if at < 0 || roles[at].EligibleUntil != ends || !roles[at].Emergency || roles[at].Approvals != 0 {
		t.Errorf("erin's roles: %+v", roles)
	}
	s.submit(s.world.Sign(statement.Review{Head: s.world.Head(statement.KindReview, "carol"), Grant: string(grant), Reason: "looked"}, "carol"))
	if reviews, _ := see("frank"); reviews != 0 {
		t.Error("a review that was done is still open")
	}
}

// TestWhoamiSaysHowCodesStand before there are any, with some, and while they are locked.
func TestWhoamiSaysHowCodesStand(t *testing.T) {
	j := newJudging(t, withCodes)
	factor := func() api.FactorView {
		t.Helper()
		who, err := j.as("alice").Whoami(t.Context())
		j.must(err)
		return who.Factor
	}
	if f := factor(); f != (api.FactorView{}) {
		t.Errorf("before: %+v", f)
	}
	seed := j.enrol("alice")
	if f := factor(); f != (api.FactorView{Enrolled: true}) {
		t.Errorf("enrolled: %+v", f)
	}
	for range broker.MaxFailures {
		j.says(j.with("alice", j.wrong(seed)), "the code is wrong")
	}
	if f := factor(); !f.Enrolled || f.LockedUntil <= forger.Now() {
		t.Errorf("locked: %+v", f)
	}
	j.submit(j.world.Sign(statement.Factor{Head: j.world.Head(statement.KindFactor, "dave"), Action: statement.ResetFactor, Of: "alice", Reason: "lost"}, "dave"))
	if f := factor(); f != (api.FactorView{}) {
		t.Errorf("taken away: %+v", f)
	}
}
