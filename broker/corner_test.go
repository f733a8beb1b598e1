package broker

import (
	"bytes"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Rules that no table above would miss if they were gone: each was found by taking it out.

func TestTheNewestStatementIsHeldAgainstTheClock(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	d := sc.dossier(p)
	sc.now += 600
	d.Decisions = append(d.Decisions, sc.approves("bob", p))
	if g, err := Prove(sc.chain, d); err != nil || g.Newest != sc.now {
		t.Errorf("newest %s, want the approval's %s: %v", g.Newest, sc.now, err)
	}
	sc.now += 600
	d.Certificates = append(d.Certificates, sc.certifies("alice", p, "alice desk"))
	g, err := Prove(sc.chain, d)
	if err != nil || g.Newest != sc.now {
		t.Errorf("newest %s, want the certificate statement's %s: %v", g.Newest, sc.now, err)
	}
	if g.LiveOn(db1, sc.now-61) == nil || g.LiveOn(db1, sc.now-60) != nil {
		t.Error("a clock may be a minute behind, and no more")
	}
	g.Ended = &Ended{How: EndedByRevoke, At: sc.now}
	if KindOf(g.LiveOn(db1, sc.now)) != Denied {
		t.Error("an ended grant is live")
	}
}

func TestOnePersonsTwoApprovalsCountByTheEarlier(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	first := sc.approves("bob", p)
	sc.now += 600
	again := sc.sign(sc.decision("bob", statement.Approve, p), key("bob 2"))
	for _, d := range []Dossier{sc.dossier(p, first, again), sc.dossier(p, again, first)} {
		if g, err := Prove(sc.chain, d); err != nil || g.From != dawn {
			t.Errorf("from %s: %v", g.From, err)
		}
	}
}

func TestOperatorsAndStewardsRevokeEachInTheirOwnRight(t *testing.T) {
	sc := newScene(t)
	sc.must(sc.revises(func(doc *policy.Document) { doc.Operators = []statement.Person{"frank"} }))
	for _, person := range []statement.Person{"frank", "dave"} {
		p := sc.granted()
		sc.must(sc.ends(person, statement.Revoke, p))
	}
}

func TestOnlyAForkOfTheNewestRevisionStopsGrantingAndOnce(t *testing.T) {
	sc := newScene(t)
	var twos []statement.Proof
	for _, longest := range []statement.Seconds{7200, 7201, 7202, 7203} {
		twos = append(twos, sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = longest })))
	}
	sc.must(twos[0])
	want := []int{1, 0} // events: the second fork of one number says nothing new
	for i, two := range twos[1:3] {
		if d, err := sc.file(two); KindOf(err) != Conflict || len(d.Events) != want[i] {
			t.Errorf("fork %d: %v %v", i, kinds(d.Events), err)
		}
	}
	sc.must(sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7204 })))
	if d, err := sc.file(twos[3]); KindOf(err) != Conflict || len(d.Events) != 0 || sc.s.Forked() != 0 {
		t.Errorf("a fork further back: %v %v", kinds(d.Events), err)
	}
}

func TestAPolicyThatHasExpiredOpensNothingWhenAdopted(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "root", "db1")
	sc.must(p)
	sc.must(sc.approves("bob", p))
	doc := sc.draft(changeRole("root", func(r *policy.Role) { r.Approvals.Count = 1 }))
	doc.Expires = sc.now
	sc.must(signPolicy(t, doc, "dave"))
	if sc.find(p).Grant != nil {
		t.Error("a grant opened under a policy that has expired")
	}
}

// Two approvals, then a policy that needs one (an earlier window), then one that needs two again.
func TestNoPolicyMovesTheEndOfAWindowAway(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "root", "db1")
	sc.must(p)
	sc.must(sc.approves("bob", p))
	sc.now += 600
	sc.must(sc.approves("carol", p))
	approvals := func(n int) func(*policy.Document) {
		return changeRole("root", func(r *policy.Role) { r.Approvals.Count = n })
	}
	if until := sc.find(p).Grant.Until; until != dawn.Add(600+1800) {
		t.Fatalf("until %s", until)
	}
	for _, n := range []int{1, 2} {
		sc.must(sc.revises(approvals(n)))
		if until := sc.find(p).Grant.Until; until != dawn.Add(1800) {
			t.Errorf("with %d approvals needed: until %s", n, until)
		}
	}
}

func TestAnEventFromThePastDoesNotTurnNowBack(t *testing.T) {
	sc := newScene(t)
	Evolve(sc.s, &RequestExpired{EventHead: EventHead{V: EventVersion, Index: sc.s.Index(), At: dawn - 60, Kind: "RequestExpired"}})
	if sc.s.Now() != dawn {
		t.Errorf("now %s", sc.s.Now())
	}
}

func TestASnapshotCannotGiveARequestAnotherID(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "root", "db1")
	sc.must(p)
	data, err := EncodeState(sc.s)
	if err != nil {
		t.Fatal(err)
	}
	id, other := sc.find(p).ID, StemOf(statement.HashOf(nil)).Request()
	if _, err := DecodeState(bytes.ReplaceAll(data, []byte(id), []byte(other))); err == nil {
		t.Error("accepted")
	}
}

func TestADossierWithoutBoundsIsRefused(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	d := sc.dossier(p, sc.approves("bob", p))
	for range maxDecisions {
		d.Decisions = append(d.Decisions, d.Decisions[0])
	}
	if _, err := Prove(sc.chain, d); KindOf(err) != Invalid {
		t.Error(err)
	}
}

func TestDueSaysWhetherATickWouldRecordSomething(t *testing.T) {
	sc := newScene(t)
	sc.granted()
	if sc.s.Due(dawn.Add(1799)) || !sc.s.Due(dawn.Add(1800)) {
		t.Error("due at the end of the window, not before")
	}
}
