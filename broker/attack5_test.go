package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// A lapsed grant whose window an eligibility cut: stewards renew the eligibility, and an owned broker shows the grant to a host
// that never saw it.
func TestThreatARenewedEligibilityDoesNotMoveTheEndOfAnEarlierWindow(t *testing.T) {
	db1 := &policy.Selector{Names: []statement.HostName{"db1"}}
	for name, entry := range map[string]func(until statement.Time) policy.Eligibility{
		"everywhere": func(until statement.Time) policy.Eligibility { return policy.Eligibility{Who: "alice", Until: until} },
		"on one host": func(until statement.Time) policy.Eligibility {
			return policy.Eligibility{Who: "alice", Until: until, Hosts: db1}
		},
		"for ever": nil,
	} {
		t.Run(name, func(t *testing.T) {
			make := entry
			if make == nil {
				make = func(until statement.Time) policy.Eligibility { return policy.Eligibility{Who: "alice", Until: until} }
			}
			sc := limited(t, dated(make(dawn.Add(600))))
			r := sc.opens(sc.asks("alice", "db-admin", "db1"), "bob")
			if until := sc.livesUntil(r, at("db1")); until != dawn.Add(600) {
				t.Fatalf("until %s", until)
			}
			sc.must(sc.revises(changeRole("db-admin", func(role *policy.Role) {
				role.Dated = []policy.Eligibility{make(dawn.Add(7200))}
				if name == "for ever" {
					role.Dated, role.Eligible = nil, []policy.Name{"alice", "erin"}
				}
			})))
			if until := sc.livesUntil(r, at("db1")); until != dawn.Add(600) {
				t.Errorf("a host that sees it for the first time lets it live until %s, and its window ends at %s", until, dawn.Add(600))
			}
			if g := sc.find(r.Dossier.Request).Grant; g.On(at("db1")).Until != dawn.Add(600) {
				t.Errorf("brokers say %s", g.On(at("db1")).Until)
			}
		})
	}
}

// A thief with alice's plain key waits until she opens a role that wants a touch, and has a key of the thief's certified for it.
func TestThreatAPlainKeyAddsNoKeyToWhatATouchOpened(t *testing.T) {
	sk := signtest.SecurityEd25519("alice sk")
	sc := limited(t, func(doc *policy.Document, _ *policy.Role) {
		entry := doc.People["alice"]
		entry.Keys = append(append([]statement.Key{}, entry.Keys...), signtest.Public(sk))
		doc.People["alice"], doc.V = entry, 2
		changeRole("web-deploy", func(r *policy.Role) { r.PlainKey = false })(doc)
	})
	touched := sc.sign(sc.request("alice", "web-deploy", "web1"), sk.WithFlags(signtest.Presence))
	sc.must(touched)
	r := sc.find(touched)
	c := statement.Certificate{Head: sc.head(statement.KindCertificate, "alice"), Grant: string(r.Grant.ID), Key: publicKeyOf("thief")}
	refusedFor(t, sc, Denied, sc.sign(c, key("alice")), "security key")
	d := r.Dossier
	d.Certificates = []statement.Proof{sc.sign(c, key("alice"))}
	if _, err := Prove(sc.chain, d); KindOf(err) != Denied {
		t.Errorf("a host says %v", err)
	}
	c.Nonce = "00000000000000000000000000000000"
	sc.must(sc.sign(c, sk.WithFlags(signtest.Presence)))
}

// A version 1 document after one of version 2 would take presence, alarms and the ends of approvals away without a word.
func TestThreatPolicyVersionNeverGoesBack(t *testing.T) {
	sc := limited(t, func(doc *policy.Document, _ *policy.Role) { doc.V = 2 })
	sc.must(sc.revises(changeRole("web-deploy", func(r *policy.Role) {
		r.PlainKey, r.Approvals = false, policy.Approvals{Count: 1, From: []policy.Name{"approvers"}}
	})))
	back := sc.draft(func(*policy.Document) {})
	back.V = 1
	if _, err := sc.file(signPolicy(t, back, "dave")); err == nil {
		t.Errorf("version %d was adopted after 2", sc.s.Chain().Current().V)
	}
}

// One person opens and returns an emergency grant again and again: each leaves a review that only others close.
func TestThreatOnePersonsReviewsStayBounded(t *testing.T) {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) { r.Emergency, r.PlainKey = true, true })
	for range 3 * MaxOpen {
		p := sc.asks("alice", "db-admin", "db1")
		if _, err := sc.file(p); err != nil {
			break
		}
		sc.must(sc.ends("alice", statement.Return, p))
		sc.now++
	}
	if open := len(sc.s.Reviews()); open > MaxOpen {
		t.Errorf("one person made %d reviews", open)
	}
}

// One approver says yes again and again, each for a second: the dossier grows, and each is verified with all before it.
func TestThreatOneApproversDecisionsStayBounded(t *testing.T) {
	sc := limited(t, parts(of(2, "approvers")))
	p := sc.with(func(r *statement.Request) { r.Expires = sc.now.Add(3600) })
	sc.must(p)
	for range 100 {
		yes := sc.decision("bob", statement.Approve, p)
		yes.NotAfter = yes.Created
		if _, err := sc.file(sc.sign(yes, key("bob"))); err != nil {
			break
		}
		sc.now++
	}
	if held := len(sc.find(p).Dossier.Decisions); held > 20 {
		t.Errorf("the dossier holds %d decisions of one person", held)
	}
}

// A recovery code typed while codes are locked stands in the record in clear: it serves no more.
func TestThreatMFAARecoveryCodeTypedWhileLockedIsUsedUp(t *testing.T) {
	sc := coded(t, 0)
	for range MaxFailures {
		sc.refused(Denied, sc.asksWith("alice", "db-admin", "000000", "db1"), judging(wrong()))
	}
	third := Judged{Code: &CodeJudged{Right: true, Recovery: 3}}
	refusedFor(t, sc, Denied, sc.asksWith("alice", "db-admin", "abcde-fgh23", "db1"), "locked until", judging(third))
	if f := sc.s.factors["alice"]; f.Failures != MaxFailures || f.LockedUntil == 0 {
		t.Errorf("it unlocked them: %+v", f)
	}
	sc.now = sc.s.factors["alice"].LockedUntil
	refusedFor(t, sc, Denied, sc.asksWith("alice", "db-admin", "abcde-fgh23", "db1"), "recovery code 3 was used before", judging(third))
}

// What is left, and cannot be helped by hosts: nobody but honest brokers attests when a statement was made. With all brokers owned,
// an asker and somebody who stands in need not wait, and a yes that was good for five minutes is good for whoever backdates the
// other one. This test says so, and fails should it ever be better.
func TestKnownOwnedBrokersAndTwoLiarsNeedNotWait(t *testing.T) {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) {
		r.Fallback = []policy.Fallback{{After: 600, From: []policy.Name{"dave"}}}
	})
	sc.now += 700
	p := sc.with(func(r *statement.Request) { r.Created -= 600 })
	d := Dossier{Request: p, Decisions: []statement.Proof{sc.approves("dave", p)}}
	if _, err := Judge(sc.chain, d, at("db1"), sc.now); err != nil {
		t.Error(err)
	}
}
