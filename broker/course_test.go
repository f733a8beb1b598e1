package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func TestAScheduledGrantIsJudgedAgainAtItsStart(t *testing.T) {
	cases := map[string]struct {
		meanwhile func(sc *scene, p statement.Proof)
		want      []EventKind
	}{
		"nothing changed": {func(*scene, statement.Proof) {}, []EventKind{"GrantStarted"}},
		"the policy expires before": {func(sc *scene, _ statement.Proof) {
			doc := sc.draft(func(*policy.Document) {})
			doc.Expires = sc.now.Add(300)
			sc.must(signPolicy(sc.t, doc, "dave"))
		}, []EventKind{"GrantRevoked"}},
		"the policy was signed twice": {func(sc *scene, _ statement.Proof) {
			one, other := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 1800 })), sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 1801 }))
			sc.must(one)
			sc.refused(Conflict, other)
		}, []EventKind{"GrantRevoked"}},
		"it was returned": {func(sc *scene, p statement.Proof) { sc.must(sc.ends("alice", statement.Return, p)) }, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, func(*policy.Document, *policy.Role) {})
			p := sc.with(func(r *statement.Request) { r.At = sc.now.Add(600) })
			r := sc.opens(p, "bob")
			if !r.Waiting || r.Grant.Phase(sc.now) != PhaseWaiting {
				t.Fatalf("%+v", r)
			}
			c.meanwhile(sc, p)
			sc.now = dawn.Add(599)
			wantKinds(t, sc.tick().Events)
			sc.now = dawn.Add(600)
			wantKinds(t, sc.tick().Events, c.want...)
			wantKinds(t, sc.tick().Events)
			if _, err := Judge(sc.chain, sc.find(p).Dossier, at("db1"), sc.now); (err == nil) != (name == "nothing changed") {
				t.Errorf("at its start: %v", err)
			}
			sc.now = dawn.Add(600 + 1800)
			if name == "nothing changed" {
				wantKinds(t, sc.tick().Events, "GrantLapsed")
			}
		})
	}
}

func TestAnExtensionIsOfALiveGrantOfTheSameRole(t *testing.T) {
	cases := map[string]struct {
		change func(sc *scene, r *statement.Request, g *Grant)
		kind   Kind
		why    string
	}{
		"from its end on": {func(*scene, *statement.Request, *Grant) {}, "", ""},
		"at once":         {func(_ *scene, r *statement.Request, _ *Grant) { r.At = 0 }, "", ""},
		"on fewer hosts":  {func(_ *scene, r *statement.Request, _ *Grant) { r.Hosts = r.Hosts[:1] }, "", ""},
		"after a gap":     {func(_ *scene, r *statement.Request, _ *Grant) { r.At++ }, Invalid, "before this begins"},
		"nobody's": {func(sc *scene, r *statement.Request, _ *Grant) {
			r.Extends = string(StemOf(statement.HashOf(nil)).Grant())
		}, Missing, "alice has no grant"},
		"another role's": {func(_ *scene, r *statement.Request, _ *Grant) {
			r.Role, r.Hosts, r.Expires = "root", []statement.HostName{"db1"}, r.Created.Add(600)
		}, Invalid, "is a grant of role db-admin, not of root"},
		"a grant that was returned": {func(sc *scene, _ *statement.Request, g *Grant) {
			sc.must(sc.ends("alice", statement.Return, sc.s.requests[g.Stem].Dossier.Request))
		}, Conflict, "was returned before"},
		"a grant that lapsed": {func(sc *scene, r *statement.Request, g *Grant) {
			sc.now = g.Until
			r.Created, r.NotAfter, r.At, r.Expires = sc.now, sc.now.Add(60), 0, sc.now.Add(600)
		}, Expired, "lapsed at"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, func(*policy.Document, *policy.Role) {})
			r := sc.opens(sc.with(func(r *statement.Request) { r.Hosts = []statement.HostName{"db1", "db2"} }), "bob")
			longer := sc.request("alice", "db-admin", "db1", "db2")
			longer.Extends, longer.At = string(r.Grant.ID), r.Grant.Until
			c.change(sc, &longer, r.Grant)
			p := sc.sign(longer, key("alice"))
			if c.why != "" {
				refusedFor(t, sc, c.kind, p, c.why)
				return
			}
			if next := sc.opens(p, "carol").Grant; next == nil || next.Extends != r.Grant.ID {
				t.Errorf("%+v", next)
			}
		})
	}
	sc := limited(t, func(*policy.Document, *policy.Role) {})
	r := sc.opens(sc.asks("alice", "db-admin", "db1"), "bob")
	erins := sc.request("erin", "db-admin", "db1")
	erins.Extends, erins.At = string(r.Grant.ID), r.Grant.Until
	refusedFor(t, sc, Missing, sc.sign(erins, key("erin")), "erin has no grant")
}

func emergency(_ *policy.Document, r *policy.Role) { r.Emergency, r.PlainKey = true, true }

func TestAnEmergencyRoleOpensAtOnceAndDemandsAReview(t *testing.T) {
	sc := limited(t, emergency)
	p := sc.asks("alice", "db-admin", "db1")
	d, err := sc.file(p)
	if err != nil {
		t.Fatal(err)
	}
	wantKinds(t, d.Events, "RequestFiled", "GrantOpened", "CertificateIssued")
	if !sc.find(p).Grant.Alarm {
		t.Error("it rings nothing")
	}
	for range 2 {
		if open := sc.s.Reviews(); len(open) != 1 || open[0].Person != "alice" || open[0].Role != "db-admin" || open[0].Grant != sc.find(p).Grant.ID {
			t.Fatalf("reviews %+v", open)
		}
		sc.now += 3600
		sc.tick() // the grant's end does not close it
	}
	refusedFor(t, sc, Denied, sc.reviews("alice", p), "nobody reviews what they did themselves")
	refusedFor(t, sc, Missing, sc.reviews("erin", p), "no review of")
	sc.must(sc.reviews("gwen", p))
	refusedFor(t, sc, Missing, sc.reviews("carol", p), "no review of")
	if open := sc.s.Reviews(); len(open) != 0 {
		t.Errorf("reviews %+v", open)
	}
}

func TestAnAuditorReviewsToo(t *testing.T) {
	sc := limited(t, emergency)
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	sc.must(sc.reviews("frank", p))
}

func TestARenewalIsAnsweredByAPolicy(t *testing.T) {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) {
		r.Eligible, r.Dated = []policy.Name{"erin"}, []policy.Eligibility{{Who: "alice", Until: dawn.Add(statement.Day)}}
	})
	refusedFor(t, sc, Missing, sc.renews("mallory", "db-admin", dawn.Add(2*statement.Day)), "mallory is not eligible")
	refusedFor(t, sc, Conflict, sc.renews("erin", "db-admin", dawn.Add(2*statement.Day)), "for ever")
	refusedFor(t, sc, Conflict, sc.renews("alice", "db-admin", dawn.Add(statement.Day)), "until 2026-11-24T08:00:00Z already")
	sc.must(sc.renews("alice", "db-admin", dawn.Add(2*statement.Day)))
	sc.now++
	sc.must(sc.renews("alice", "db-admin", dawn.Add(3*statement.Day)))
	if open := sc.s.Renewals(); len(open) != 1 || open[0].Until != dawn.Add(3*statement.Day) {
		t.Fatalf("renewals %+v", open)
	}
	until := func(last statement.Time) func(*policy.Document) {
		return changeRole("db-admin", func(r *policy.Role) { r.Dated = []policy.Eligibility{{Who: "alice", Until: last}} })
	}
	sc.must(sc.revises(until(dawn.Add(2 * statement.Day))))
	if len(sc.s.Renewals()) != 1 {
		t.Error("an answer that gives less closes it")
	}
	sc.must(sc.revises(until(dawn.Add(3 * statement.Day))))
	if len(sc.s.Renewals()) != 0 {
		t.Error("the answer does not close it")
	}
}

func TestConditionsAreWhatTheProposerJudged(t *testing.T) {
	key := publicKeyOf("hook")
	cases := map[string]struct {
		role   func(*policy.Role)
		judged Judged
		why    string
	}{
		"inside the network":        {func(r *policy.Role) { r.Networks = []string{"10.0.0.0/8"} }, Judged{Source: "10.1.2.3"}, ""},
		"inside, as IPv6 writes it": {func(r *policy.Role) { r.Networks = []string{"10.0.0.0/8"} }, Judged{Source: "::ffff:10.1.2.3"}, ""},
		"outside":                   {func(r *policy.Role) { r.Networks = []string{"10.0.0.0/8"} }, Judged{Source: "11.1.2.3"}, "this came from 11.1.2.3"},
		"from nowhere":              {func(r *policy.Role) { r.Networks = []string{"10.0.0.0/8"} }, Judged{}, "role db-admin is for people in"},
		"within the hours": {func(r *policy.Role) {
			r.Hours = &policy.Hours{Zone: "Europe/Berlin", Weekly: []policy.Span{{From: 0, Until: 600}}}
		}, Judged{Hours: true, Local: "Mon 09:00"}, ""},
		"outside the hours": {func(r *policy.Role) {
			r.Hours = &policy.Hours{Zone: "Europe/Berlin", Weekly: []policy.Span{{From: 0, Until: 600}}}
		}, Judged{Local: "Sun 03:00"}, "it is Sun 03:00 in Europe/Berlin"},
		"the hook has nothing against": {func(r *policy.Role) { r.Hook = &policy.Hook{URL: "https://hook/", Key: key} }, Judged{Hook: &HookVerdict{Evaluation: "e1"}}, ""},
		"the hook refuses":             {func(r *policy.Role) { r.Hook = &policy.Hook{URL: "https://hook/", Key: key} }, Judged{Hook: &HookVerdict{Evaluation: "e1", Refused: true, Why: "freeze"}}, "refuses (evaluation e1): freeze"},
		"nobody asked the hook":        {func(r *policy.Role) { r.Hook = &policy.Hook{URL: "https://hook/", Key: key} }, Judged{}, "nobody asked it"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, func(_ *policy.Document, r *policy.Role) { c.role(r) })
			p := sc.asks("alice", "db-admin", "db1")
			if c.why != "" {
				refusedFor(t, sc, Denied, p, c.why, judging(c.judged))
				return
			}
			sc.must(p, judging(c.judged))
			refusedFor(t, sc, Denied, sc.approves("bob", p), "role db-admin", judging(Judged{})) // who approves is held to the same
			sc.must(sc.approves("carol", p), judging(c.judged))
		})
	}
}

func TestAHookDemandsMoreApprovals(t *testing.T) {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) {
		r.Hook = &policy.Hook{URL: "https://hook/", Key: publicKeyOf("hook")}
	})
	allow := judging(Judged{Hook: &HookVerdict{Evaluation: "e2"}})
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p, judging(Judged{Hook: &HookVerdict{Evaluation: "e1", More: 1}}))
	sc.must(sc.approves("bob", p), allow)
	if sc.find(p).Grant != nil {
		t.Fatal("one approval opens it")
	}
	if needs := sc.s.Needs(sc.find(p).ID, sc.now); len(needs) != 1 || needs[0].String() != "1 of carol, gwen" {
		t.Errorf("needs %v", needs)
	}
	sc.must(sc.approves("gwen", p), allow)
	if sc.find(p).Grant == nil {
		t.Error("two do not")
	}
}

// A deployment under older rules refuses each new word as its older builds do: without a record.
func TestUnderOlderRulesWhatRules3BroughtLeavesNoEvent(t *testing.T) {
	for name, word := range map[string]func(sc *scene) statement.Proof{
		"an extension": func(sc *scene) statement.Proof {
			return sc.with(func(r *statement.Request) { r.Extends = string(StemOf(statement.HashOf(nil)).Grant()) })
		},
		"a code":     func(sc *scene) statement.Proof { return sc.asksWith("alice", "db-admin", "123456", "db1") },
		"a new seed": func(sc *scene) statement.Proof { return sc.enrolsFactor("alice", "123456", "") },
		"a review":   func(sc *scene) statement.Proof { return sc.reviews("carol", sc.asks("alice", "db-admin", "db1")) },
		"a renewal":  func(sc *scene) statement.Proof { return sc.renews("alice", "db-admin", dawn.Add(3600)) },
		"a policy of version 2": func(sc *scene) statement.Proof {
			return sc.revises(func(doc *policy.Document) {
				changeRole("db-admin", func(r *policy.Role) { r.ReasonLeast = 3 })(doc)
				changeRole("web-deploy", func(r *policy.Role) { r.PlainKey = true })(doc)
			})
		},
	} {
		for rules, begin := range map[int]func(tester) *scene{1: newScene, 2: grown} {
			sc := begin(t)
			before := sc.s.Digest()
			d, err := sc.file(word(sc), judging(right(1)))
			if err == nil || len(d.Events) != 0 || sc.s.Digest() != before {
				t.Errorf("%s under rules %d: %v %v", name, rules, kinds(d.Events), err)
			}
		}
	}
}

// A request that was filed before the role was for some networks, hours or a hook's yes is not opened by the policy that says so.
func TestThreatAPolicyOpensNothingThatNobodyJudged(t *testing.T) {
	for name, limit := range map[string]func(*policy.Role){
		"networks": func(r *policy.Role) { r.Networks = []string{"10.0.0.0/8"} },
		"hours": func(r *policy.Role) {
			r.Hours = &policy.Hours{Zone: "UTC", Weekly: []policy.Span{{From: 0, Until: 60}}}
		},
		"a hook":  func(r *policy.Role) { r.Hook = &policy.Hook{URL: "https://hook/", Key: publicKeyOf("hook")} },
		"nothing": func(*policy.Role) {},
	} {
		sc := limited(t, func(*policy.Document, *policy.Role) {})
		p := sc.asks("alice", "db-admin", "db1")
		sc.must(p)
		sc.must(sc.revises(changeRole("db-admin", func(r *policy.Role) {
			r.Approvals, r.PlainKey = policy.Approvals{None: true}, true
			limit(r)
		})))
		if opened := sc.find(p).Grant != nil; opened != (name == "nothing") {
			t.Errorf("%s: opened by the policy: %v", name, opened)
		}
	}
}
