package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// The rows of THREATS.md that the core answers, where no table names them already.

func TestThreatSelfApprovalThroughAGroup(t *testing.T) {
	sc := newScene(t)
	sc.must(sc.revises(func(doc *policy.Document) {
		doc.Groups["approvers"] = []statement.Person{"alice", "bob", "carol", "gwen"}
	}))
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	if needs := sc.s.Needs(sc.find(p).ID, sc.now); needs[0].String() != "1 of bob, carol, gwen" {
		t.Errorf("needs %v", needs)
	}
	sc.refused(Denied, sc.approves("alice", p))
	sc.refused(Denied, sc.sign(sc.decision("alice", statement.Approve, p), key("alice 2")))
	if _, err := Prove(sc.chain, sc.dossier(p, sc.approves("alice", p))); KindOf(err) != Denied {
		t.Errorf("a judge took it: %v", err)
	}
}

func TestThreatQuorumOfZero(t *testing.T) {
	sc := newScene(t)
	doc := sc.draft(changeRole("db-admin", func(r *policy.Role) { r.Approvals = policy.Approvals{From: []policy.Name{"approvers"}} }))
	if _, err := policy.Draft(doc); err == nil {
		t.Error("a role that needs 0 approvals without saying none passes the policy's check")
	}
	p := sc.asks("alice", "db-admin", "db1")
	a, err := openRequest(sc.chain, p)
	if err != nil {
		t.Fatal(err)
	}
	for name, approvals := range map[string]policy.Approvals{"nothing said": {}, "count 0": {From: []policy.Name{"approvers"}}, "count -1": {Count: -1}} {
		tally, err := count(sc.chain, a, policy.Role{Approvals: approvals}, nil)
		if err != nil || tally.missing() != 1 {
			t.Errorf("%s: %d missing at use, %v", name, tally.missing(), err)
		}
	}
}

// Approve, deny, withdraw and expire race: whichever is first wins, and nothing undoes it.
func TestThreatRaceOfTransitionsOneWins(t *testing.T) {
	moves := map[RequestState]func(sc *scene, p statement.Proof) error{
		StateApproved: func(sc *scene, p statement.Proof) error {
			_, err := sc.file(sc.approves("bob", p))
			return err
		},
		StateDenied: func(sc *scene, p statement.Proof) error {
			_, err := sc.file(sc.denies("carol", p))
			return err
		},
		StateWithdrawn: func(sc *scene, p statement.Proof) error {
			_, err := sc.file(sc.ends("alice", statement.Withdraw, p))
			return err
		},
		StateExpired: func(sc *scene, _ statement.Proof) error {
			sc.now += 3601
			sc.tick()
			return nil
		},
	}
	for first, move := range moves {
		for second, then := range moves {
			if first == second {
				continue
			}
			t.Run(string(first)+", then "+string(second), func(t *testing.T) {
				sc := newScene(t)
				p := sc.asks("alice", "db-admin", "db1")
				sc.must(p)
				if err := move(sc, p); err != nil {
					t.Fatal(err)
				}
				if err := then(sc, p); err == nil && second != StateExpired {
					t.Errorf("%s was taken after %s", second, first)
				}
				if got := sc.find(p).State; got != first {
					t.Errorf("state %s, want %s", got, first)
				}
			})
		}
	}
}

func TestThreatOneApprovalReusedForAnotherKey(t *testing.T) {
	cases := map[string]func(sc *scene, p statement.Proof) statement.Proof{
		"by another person, for a key of their own": func(sc *scene, p statement.Proof) statement.Proof {
			return sc.certifies("mallory", p, "mallory laptop")
		},
		"in the holder's name": func(sc *scene, p statement.Proof) statement.Proof {
			return sc.sign(statement.Certificate{
				Head: sc.head(statement.KindCertificate, "alice"), Grant: string(StemOf(p.Hash()).Grant()), Key: publicKeyOf("mallory laptop"),
			}, key("mallory"))
		},
		"after the revocation": func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.ends("bob", statement.Revoke, p))
			return sc.certifies("alice", p, "alice desk")
		},
		"after the window": func(sc *scene, p statement.Proof) statement.Proof {
			sc.now += 1800
			return sc.certifies("alice", p, "alice desk")
		},
	}
	for name, file := range cases {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			p := sc.granted()
			stmt := file(sc, p)
			if d, err := sc.file(stmt); err == nil {
				t.Errorf("taken: %v", kinds(d.Events))
			}
			if r := sc.find(p); len(r.Issued) != 1 || len(r.Grant.Keys) != 1 {
				t.Errorf("issued %v for %v", r.Issued, r.Grant.Keys)
			}
			d := sc.find(p).Dossier
			d.Ended, d.Certificates = nil, []statement.Proof{stmt}
			if g, err := Prove(sc.chain, d); err == nil && name != "after the revocation" {
				t.Errorf("a judge took it: %v", g.Keys)
			}
		})
	}
}

func TestThreatStewardsOneWithTwoKeys(t *testing.T) {
	sc := newScene(t)
	sc.must(sc.revises(func(doc *policy.Document) {
		dave := doc.People["dave"]
		dave.Keys = append([]statement.Key{publicKeyOf("dave 2")}, dave.Keys...)
		doc.People["dave"] = dave
		doc.Stewards = policy.Stewards{Threshold: 2, People: []statement.Person{"dave", "frank"}}
	}))
	next := sc.draft(changeRole("root", func(r *policy.Role) { r.Longest = 7200 }))
	sc.refused(Denied, signPolicy(t, next, "dave"))
	sc.refused(Denied, signPolicy(t, next, "dave", "dave 2"))
	sc.must(signPolicy(t, next, "dave", "frank"))
}

func TestThreatRollbackOfPolicyByReplay(t *testing.T) {
	sc := newScene(t)
	var signed []statement.Proof
	for _, longest := range []statement.Seconds{600, 1200} {
		p := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest, r.Default = longest, 600 }))
		sc.must(p)
		signed = append(signed, p)
	}
	ref := sc.chain.Ref()
	for _, p := range append(signed, sc.chain.Proofs()...) {
		if d, err := sc.file(p); err != nil || len(d.Events) != 0 {
			t.Errorf("an adopted policy shown again: %v %v", kinds(d.Events), err)
		}
	}
	if sc.chain.Ref() != ref {
		t.Errorf("revision %d, want %d", sc.chain.Ref().Revision, ref.Revision)
	}
}

// A signature made for one purpose is none for another: namespaces keep kinds apart.
func TestThreatASignatureMadeForAnotherPurpose(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	payload, err := statement.Encode(sc.decision("bob", statement.Approve, p))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []statement.Kind{statement.KindRead, statement.KindSession, statement.KindRequest, statement.KindPolicy, "file"} {
		other, err := statement.SignPayload(kind, payload, key("bob"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := sc.apply(Command{V: CommandVersion, At: sc.now, Kind: FileDecision, Rules: 1, Proof: other})
		if KindOf(err) != Invalid || len(d.Events) != 0 {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
