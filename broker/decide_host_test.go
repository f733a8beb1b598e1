package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func TestACertificateStatementIsRefused(t *testing.T) {
	cases := map[string]refusal{
		"by another person": {func(sc *scene) statement.Proof { return sc.certifies("erin", sc.granted(), "erin desk") },
			Missing, "no grant", true},
		"by who approved it": {func(sc *scene) statement.Proof { return sc.certifies("bob", sc.granted(), "bob desk") },
			Denied, "which is alice's", true},
		"for another person's key": {func(sc *scene) statement.Proof { return sc.certifies("alice", sc.granted(), "bob") },
			Denied, "belongs to bob", true},
		"for a request that is no grant": {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.certifies("alice", p, "alice desk") }),
			Missing, "no grant", true},
		"after the return": {func(sc *scene) statement.Proof {
			p := sc.granted()
			sc.must(sc.ends("alice", statement.Return, p))
			return sc.certifies("alice", p, "alice desk")
		}, Conflict, "was returned", true},
		"after the revocation": {func(sc *scene) statement.Proof {
			p := sc.granted()
			sc.must(sc.ends("bob", statement.Revoke, p))
			return sc.certifies("alice", p, "alice desk")
		}, Conflict, "was revoked", true},
		"after the window": {func(sc *scene) statement.Proof {
			p := sc.granted()
			sc.now += 1800
			return sc.certifies("alice", p, "alice desk")
		}, Expired, "lapsed", true},
		"without end": {func(sc *scene) statement.Proof {
			p := sc.granted()
			for range maxCertificates {
				sc.must(sc.certifies("alice", p, "alice desk"))
			}
			return sc.certifies("alice", p, "alice desk")
		}, Denied, "at most 32", true},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

func TestACertificatesSerialIsTheIndexOfItsEvent(t *testing.T) {
	sc := newScene(t)
	p := sc.granted()
	out := sc.must(sc.certifies("alice", p, "alice desk"))
	r := sc.find(p)
	if len(r.Issued) != 2 || r.Issued[1] != (Issued{publicKeyOf("alice desk"), out.Index}) {
		t.Errorf("issued %v at index %d", r.Issued, out.Index)
	}
	if len(r.Grant.Keys) != 2 || out.Grant != r.Grant.ID {
		t.Errorf("keys %v, outcome %+v", r.Grant.Keys, out)
	}
}

// joining makes a machine's enrolment with a token that somebody changed.
func joining(name statement.HostName, change func(sc *scene, token *statement.HostToken) string) func(sc *scene) statement.Proof {
	return func(sc *scene) statement.Proof {
		token := statement.HostToken{
			Head: sc.head(statement.KindHostToken, "dave"), Name: name, Labels: map[string]string{"tier": "db"},
			Addresses: []string{string(name)}, Key: publicKeyOf(string(name) + " token"), Expires: sc.now.Add(300),
		}
		signer := change(sc, &token)
		return sc.joins(name, "new machine", sc.sign(token, key(signer)))
	}
}

func TestAnEnrolmentIsRefused(t *testing.T) {
	cases := map[string]refusal{
		"with a token signed by nobody we know": {joining("db3", func(_ *scene, _ *statement.HostToken) string { return "stranger" }),
			Denied, "not theirs", false},
		"with a token signed by a person who is no operator": {joining("db3", func(_ *scene, token *statement.HostToken) string {
			token.Person = "alice"
			return "alice"
		}), Denied, "no operator", false},
		"with a token under a foreign policy": {joining("db3", func(_ *scene, token *statement.HostToken) string {
			token.Policy.Hash = statement.HashOf(nil)
			return "dave"
		}), Denied, "foreign", false},
		"with a token under a newer policy": {joining("db3", func(_ *scene, token *statement.HostToken) string {
			token.Policy.Revision = 2
			return "dave"
		}), Unavailable, "behind", false},
		"with a token from the future": {joining("db3", func(_ *scene, token *statement.HostToken) string {
			token.Created += 61
			token.NotAfter += 61
			return "dave"
		}), Denied, "future", false},
		"with a token past its own not_after": {joining("db3", func(sc *scene, token *statement.HostToken) string {
			sc.now += 301
			token.Expires += 301
			return "dave"
		}), Expired, "the token for db3 expired", true},
		"with a token that was used": {func(sc *scene) statement.Proof {
			token := sc.token("db3", "db", "dave")
			sc.must(sc.joins("db3", "one machine", token))
			return sc.joins("db3", "another machine", token)
		}, Conflict, "was used by host db3", true},
		"under a name that another machine has": {func(sc *scene) statement.Proof {
			return sc.joins("db1", "another machine", sc.token("db1", "db", "dave"))
		}, Conflict, "enrolled as db1", true},
		"with the identity of another host": {func(sc *scene) statement.Proof {
			return sc.joins("db3", "db1", sc.token("db3", "db", "dave"))
		}, Conflict, "host db1 has the same identity", true},
		"after the operator was removed": {func(sc *scene) statement.Proof {
			token := sc.token("db3", "db", "dave")
			sc.must(sc.revises(func(doc *policy.Document) { doc.Operators = []statement.Person{"frank"} }))
			return sc.joins("db3", "db3", token)
		}, Denied, "no operator", false},
		"that is stale": {func(sc *scene) statement.Proof {
			p := sc.enrolment("db3", "db")
			sc.now += 61
			return p
		}, Expired, "too old", false},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

func TestAnEnrolmentRepeatedAnswersTheSameForEver(t *testing.T) {
	sc := newScene(t)
	p := sc.enrolment("db3", "db")
	first := sc.must(p)
	sc.now += 2 * statement.Time(statement.Day)
	sc.must(sc.asks("alice", "db-admin", "db3"))
	if again := sc.must(p); again != first {
		t.Errorf("again %+v, first %+v", again, first)
	}
	host, ok := sc.s.HostOf(publicKeyOf("db3 identity"))
	if !ok || host.Name != "db3" || host.Labels["tier"] != "db" || host.HostKeys[0] != publicKeyOf("db3 host key") {
		t.Errorf("host %+v", host)
	}
}

func TestReports(t *testing.T) {
	sc := newScene(t)
	sc.must(sc.reports("db1", 1))
	late := sc.reports("db1", 4)
	sc.now += 5 * statement.Time(statement.Day)
	d, err := sc.file(late)
	if err != nil {
		t.Fatalf("a report that waited for days: %v", err)
	}
	if missed := d.Events[0].(*HostReported).Missed; missed != 2 {
		t.Errorf("%d reports missed, want 2", missed)
	}
	if again := sc.must(late); again != d.Outcome {
		t.Errorf("again %+v, first %+v", again, d.Outcome)
	}
	sc.refused(Conflict, sc.reports("db1", 4)) // the same number in other words
	old, err := sc.file(sc.reports("db1", 3))
	if KindOf(err) != Conflict || len(old.Events) != 0 {
		t.Errorf("an old report: %v %v", kinds(old.Events), err)
	}
	if host, _ := sc.s.Host("db1"); host.Sequence != 4 || host.SeenAt != sc.now {
		t.Errorf("host %+v", host)
	}
}

func TestAReportIsRefused(t *testing.T) {
	cases := map[string]refusal{
		"of a host nobody enrolled": {func(sc *scene) statement.Proof { return sc.reports("db9", 1) }, Denied, "not signed by the identity", false},
		"signed by another host": {func(sc *scene) statement.Proof {
			h := sc.head(statement.KindReport, "")
			h.Host = "db1"
			return sc.sign(statement.Report{Head: h, Sequence: 1, What: statement.SessionRefused, Service: "sudo", At: sc.now}, key("web1 identity"))
		}, Denied, "not signed by the identity", false},
		"from the future": {func(sc *scene) statement.Proof {
			sc.now += 61
			p := sc.reports("db1", 1)
			sc.now -= 61
			return p
		}, Denied, "future", false},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

func TestAPolicyIsRefused(t *testing.T) {
	longer := changeRole("root", func(r *policy.Role) { r.Longest = 7200 })
	cases := map[string]refusal{
		"signed by somebody who is no steward": {func(sc *scene) statement.Proof { return signPolicy(sc.t, sc.draft(longer), "mallory") },
			Denied, "no steward", false},
		"signed by a steward and a stranger": {func(sc *scene) statement.Proof { return signPolicy(sc.t, sc.draft(longer), "dave", "mallory") },
			Denied, "no steward", false},
		"that skips a revision": {func(sc *scene) statement.Proof {
			doc := sc.draft(longer)
			doc.Revision = 3
			return signPolicy(sc.t, doc, "dave")
		}, Unavailable, "revision 2 must come first", false},
		"that follows another first policy": {func(sc *scene) statement.Proof {
			doc := sc.draft(longer)
			doc.Previous = statement.HashOf(nil).String()
			return signPolicy(sc.t, doc, "dave")
		}, Conflict, "names another revision", false},
		"that is another first policy": {func(sc *scene) statement.Proof {
			doc := labPolicy(sc.t)
			doc.Expires--
			return signPolicy(sc.t, doc, "dave")
		}, Conflict, "another deployment", false},
		"rolled back: a revision that a new steward signs in place of the current one": {func(sc *scene) statement.Proof {
			doc := sc.draft(longer)
			sc.must(sc.revises(func(doc *policy.Document) { doc.Stewards.People = []statement.Person{"frank"} }))
			return signPolicy(sc.t, doc, "frank")
		}, Denied, "no steward", false},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

func TestAPolicyRepeatedAnswersTheSameForEver(t *testing.T) {
	sc := newScene(t)
	p := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7200 }))
	first := sc.must(p)
	sc.must(sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7201 })))
	if again := sc.must(p); again != first {
		t.Errorf("again %+v, first %+v", again, first)
	}
}

func TestAForkStopsGrantingUntilTheNextRevision(t *testing.T) {
	sc := newScene(t)
	one := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7200 }))
	two := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7201 }))
	sc.must(one)
	d, err := sc.file(two)
	if KindOf(err) != Conflict {
		t.Fatal(err)
	}
	wantKinds(t, d.Events, "PolicyForked")
	if again, err := sc.file(two); len(again.Events) != 0 || again.Outcome != d.Outcome || KindOf(err) != Conflict {
		t.Errorf("again %v %+v %v", kinds(again.Events), again.Outcome, err)
	}
	sc.refused(Denied, sc.asks("alice", "web-deploy", "web1"))
	sc.must(sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7202 })))
	sc.must(sc.asks("alice", "web-deploy", "web1"))
	if again, _ := sc.file(two); len(again.Events) != 0 || sc.s.Forked() != 0 {
		t.Errorf("a fork that was settled stops granting again: %v", kinds(again.Events))
	}
}

func TestAdoptingAPolicyJudgesEverythingAgain(t *testing.T) {
	sc := newScene(t)
	kept, lost := sc.granted(), sc.asks("erin", "web-deploy", "web1")
	sc.must(lost)
	waiting := sc.asks("alice", "root", "db1")
	sc.must(waiting)
	sc.now += 60
	approved := sc.now
	sc.must(sc.approves("bob", waiting))
	sc.now += 60
	d, err := sc.file(sc.revises(func(doc *policy.Document) {
		changeRole("web-deploy", func(r *policy.Role) { r.Eligible = []policy.Name{"alice"} })(doc)
		changeRole("root", func(r *policy.Role) { r.Approvals.Count = 1 })(doc)
	}))
	if err != nil {
		t.Fatal(err)
	}
	met := map[EventKind]int{}
	for _, e := range d.Events {
		met[e.Head().Kind]++
	}
	if met["GrantRevoked"] != 1 || met["GrantOpened"] != 1 || met["RequestApproved"] != 1 {
		t.Errorf("events %v", kinds(d.Events))
	}
	if g := sc.find(waiting).Grant; g == nil || g.From != approved {
		t.Errorf("the request whose quorum is full now: %+v", g)
	}
	if phase := sc.find(lost).Grant.Phase(sc.now); phase != PhaseRevoked {
		t.Errorf("erin's grant is %s", phase)
	}
	if phase := sc.find(kept).Grant.Phase(sc.now); phase != PhaseActive {
		t.Errorf("alice's grant is %s", phase)
	}
}
