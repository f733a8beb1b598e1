package broker

import (
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Judges hold a dossier against the policy of today, not of the day it was made.
func TestProveJudgesByTheCurrentPolicy(t *testing.T) {
	only := func(names ...policy.Name) func(*policy.Role) { return func(r *policy.Role) { r.Eligible = names } }
	approvers := func(count int, names ...policy.Name) func(*policy.Role) {
		return func(r *policy.Role) { r.Approvals = policy.Approvals{Count: count, From: names} }
	}
	longest := func(d statement.Seconds) func(*policy.Role) {
		return func(r *policy.Role) { r.Longest, r.Default = d, min(r.Default, d) }
	}
	role := func(change func(*policy.Role)) func(*policy.Document) { return changeRole("db-admin", change) }
	newKey := func(person statement.Person) func(*policy.Document) {
		return func(doc *policy.Document) {
			entry := doc.People[person]
			entry.Keys = []statement.Key{publicKeyOf(string(person) + " new")}
			doc.People[person] = entry
		}
	}
	without := func(doc *policy.Document) { delete(doc.Roles, "db-admin") }
	with := func(doc *policy.Document) { doc.Roles["db-admin"] = labPolicy(t).Roles["db-admin"] }
	cases := map[string]struct {
		revisions []func(*policy.Document)
		why       string            // "" when the grant still holds
		window    statement.Seconds // its length, then
	}{
		"nothing changed":                        {nil, "", 1800},
		"somebody else's role changed":           {[]func(*policy.Document){changeRole("root", longest(600))}, "", 1800},
		"the holder lost eligibility":            {[]func(*policy.Document){role(only("erin"))}, "not eligible", 0},
		"the approver was removed":               {[]func(*policy.Document){role(approvers(1, "carol"))}, "no approver", 0},
		"one approval no longer is enough":       {[]func(*policy.Document){role(approvers(2, "approvers"))}, "1 more approvals", 0},
		"the approver's key was rotated":         {[]func(*policy.Document){newKey("bob")}, "not theirs", 0},
		"the holder's key was rotated":           {[]func(*policy.Document){newKey("alice")}, "not theirs", 0},
		"an uninvolved key was rotated":          {[]func(*policy.Document){newKey("carol")}, "", 1800},
		"the role is gone":                       {[]func(*policy.Document){without}, "no role", 0},
		"the role was gone for one revision":     {[]func(*policy.Document){without, with}, "has no role", 0},
		"the role's longest was cut":             {[]func(*policy.Document){role(longest(600))}, "", 600},
		"the role's longest was cut, and raised": {[]func(*policy.Document){role(longest(600)), role(longest(3600))}, "", 600},
		"the role's longest was raised":          {[]func(*policy.Document){role(longest(8 * 3600))}, "", 1800},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			p := sc.asks("alice", "db-admin", "db1")
			d := sc.dossier(p, sc.approves("bob", p))
			for _, change := range c.revisions {
				sc.must(sc.revises(change))
			}
			g, err := Prove(sc.chain, d)
			if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Fatalf("got %v, want %q", err, c.why)
			}
			if err == nil && g.Until.Sub(g.From) != c.window {
				t.Errorf("window of %d s, want %d", g.Until.Sub(g.From), c.window)
			}
		})
	}
}

func TestAGrantOfTheRoleAsItIsToday(t *testing.T) {
	sc := newScene(t)
	p := sc.granted()
	sc.must(sc.revises(changeRole("db-admin", func(r *policy.Role) {
		r.Accounts, r.Sudo = nil, r.Sudo[:1]
		r.Hosts = policy.Selector{Labels: map[string]string{"tier": "cold"}}
	})))
	r := sc.find(p)
	if r.Grant.Phase(sc.now) != PhaseActive || len(r.Grant.Accounts) != 0 || len(r.Grant.Sudo) != 1 {
		t.Errorf("the grant kept what the role lost: %+v", r.Grant)
	}
	if _, err := Judge(sc.chain, r.Dossier, db1, sc.now); KindOf(err) != Denied {
		t.Errorf("the role no longer reaches db1, but: %v", err)
	}
}

// A rolled-back judge must notice: statements name the newest policy their signers had seen.
func TestAJudgeWithAnOlderPolicyRefusesUntilItHasCaughtUp(t *testing.T) {
	sc := newScene(t)
	old := sc.chain
	sc.must(sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7200 })))
	p := sc.asks("alice", "db-admin", "db1")
	d := sc.dossier(p, sc.approves("bob", p))
	if _, err := Prove(old, d); KindOf(err) != Unavailable {
		t.Errorf("behind: %v", err)
	}
	if _, err := Prove(sc.chain, d); err != nil {
		t.Errorf("caught up: %v", err)
	}
}

func TestNeedsNamesWhoMayFillTheQuorum(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("bob", "root", "db1")
	other := sc.asks("alice", "root", "db1")
	cases := map[string]struct {
		dossier Dossier
		want    []string
	}{
		"nobody has decided, and the asker never counts": {sc.dossier(p), []string{"2 of carol, gwen"}},
		"one has approved":                    {sc.dossier(p, sc.approves("gwen", p)), []string{"1 of carol"}},
		"enough have approved":                {sc.dossier(p, sc.approves("gwen", p), sc.approves("carol", p)), nil},
		"the asker's own approval is no help": {sc.dossier(other, sc.approves("mallory", other)), []string{"2 of bob, carol, gwen"}},
		"a denial: nothing helps any more":    {sc.dossier(p, sc.denies("gwen", p)), nil},
		"an approval of something else":       {sc.dossier(p, sc.approves("gwen", other)), nil},
		"a role that needs nobody":            {sc.dossier(sc.asks("alice", "web-deploy", "web1")), nil},
		"no dossier":                          {Dossier{}, nil},
	}
	for name, c := range cases {
		var got []string
		for _, need := range Needs(sc.chain, c.dossier, sc.now) {
			got = append(got, need.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if words := (Need{Count: 1}).String(); !strings.Contains(words, "nobody is left") {
		t.Error(words)
	}
}
