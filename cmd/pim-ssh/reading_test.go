package main

import (
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// TestOnlyVerifiedDossiersAreShown tries what a hostile broker would put before an approver.
func TestOnlyVerifiedDossiersAreShown(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	foreign := newScene(t, "127.0.0.1:1")
	honest := s.ask("alice", func(*statement.Request) {})
	other := s.ask("alice", func(r *statement.Request) { r.Reason = "something else" })
	tampered := statement.Proof{Payload: []byte(strings.Replace(string(honest.Payload), "db-admin", "root-dbs", 1)), Signatures: honest.Signatures}
	for name, c := range map[string]struct {
		dossier broker.Dossier
		want    string // "" is shown, else part of the refusal
	}{
		"an honest request":                       {broker.Dossier{Request: honest}, ""},
		"bytes changed after signing":             {broker.Dossier{Request: tampered}, "signature"},
		"a request of another deployment":         {broker.Dossier{Request: foreign.ask("alice", func(*statement.Request) {})}, "another deployment"},
		"signed by somebody else":                 {broker.Dossier{Request: s.sign(s.body(honest), s.keys["mallory"])}, "not alice's"},
		"a decision where the request belongs":    {broker.Dossier{Request: s.decide("bob", statement.Approve, honest)}, "stands in its place"},
		"under a policy revision nobody has seen": {broker.Dossier{Request: s.ask("alice", func(r *statement.Request) { r.Policy.Revision = 9 })}, "ahead"},
		"under a forged policy revision":          {broker.Dossier{Request: s.ask("alice", func(r *statement.Request) { r.Policy.Hash = statement.HashOf([]byte("x")) })}, "foreign"},
		"an approval of another request": {broker.Dossier{Request: honest,
			Decisions: []statement.Proof{s.decide("bob", statement.Approve, other)}}, "another request"},
		"an approval by a stranger's key": {broker.Dossier{Request: honest,
			Decisions: []statement.Proof{s.forgedDecision("bob", "mallory", honest)}}, "not bob's"},
		"no signature at all": {broker.Dossier{Request: statement.Proof{Payload: honest.Payload}}, "signatures"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.read("bob", c.dossier)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// body opens a proof again, so that somebody else can sign the same words.
func (s *scene) body(p statement.Proof) statement.Body {
	s.t.Helper()
	opened, err := statement.Open(p)
	s.must(err)
	return opened.Body
}

func (s *scene) forgedDecision(as, by statement.Person, request statement.Proof) statement.Proof {
	s.t.Helper()
	return s.sign(statement.Decision{Head: s.head(as, statement.KindDecision), Request: request.Hash(), Verdict: statement.Approve}, s.keys[by])
}

func TestStateFollowsFromSignedBytes(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	request := s.ask("alice", func(*statement.Request) {})
	yes, no := s.decide("bob", statement.Approve, request), s.decide("carol", statement.Deny, request)
	nobody := s.decide("mallory", statement.Approve, request)
	own := s.decide("alice", statement.Approve, request)
	for name, c := range map[string]struct {
		dossier broker.Dossier
		later   statement.Seconds
		want    api.State
	}{
		"asked":                            {broker.Dossier{Request: request}, 0, api.Pending},
		"approved":                         {broker.Dossier{Request: request, Decisions: []statement.Proof{yes}}, 0, api.Approved},
		"denied":                           {broker.Dossier{Request: request, Decisions: []statement.Proof{no}}, 0, api.Denied},
		"approved by one who may not":      {broker.Dossier{Request: request, Decisions: []statement.Proof{nobody}}, 0, api.Pending},
		"approved by the asker":            {broker.Dossier{Request: request, Decisions: []statement.Proof{own}}, 0, api.Pending},
		"unanswered for a day":             {broker.Dossier{Request: request}, statement.Day + 1, api.Expired},
		"withdrawn, which only takes away": {broker.Dossier{Request: request, Ended: &broker.Ended{How: broker.EndedByWithdraw, At: s.now()}}, 0, api.Withdrawn},
		"revoked after approval: the request stands": {broker.Dossier{Request: request, Decisions: []statement.Proof{yes}, Ended: &broker.Ended{How: broker.EndedByRevoke, At: s.now()}}, 0, api.Approved},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := s.read("alice", c.dossier)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.state(s.now().Add(c.later)); got != c.want {
				t.Errorf("state %s, want %s", got, c.want)
			}
		})
	}
}

func TestWhoMayNotDecideIsToldBeforeSigning(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	request := s.ask("bob", func(r *statement.Request) { r.Role = "root" })
	r, err := s.read("bob", broker.Dossier{Request: request})
	if err != nil {
		t.Fatal(err)
	}
	for person, want := range map[statement.Person]int{"bob": 3, "alice": 3, "mallory": 3, "carol": 0, "gwen": 0} {
		if got := exitCode(r.mayDecide(s.pinned(person), s.now())); got != want {
			t.Errorf("%s: exit %d, want %d", person, got, want)
		}
	}
	if got := exitCode(r.mayDecide(s.pinned("carol"), s.now().Add(2*statement.Day))); got != 6 {
		t.Errorf("expired: exit %d, want 6", got)
	}
}

func TestEnrolmentsAreBelievedOnlyUnderAnOperatorsToken(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	foreign := newScene(t, "127.0.0.1:1")
	db := map[string]string{"tier": "db"}
	honest := s.enrol("db1", db)
	for name, c := range map[string]struct {
		proof statement.Proof
		want  string
	}{
		"an operator's token":           {honest, ""},
		"somebody else's token":         {s.enrolUnder("mallory", "db1", db), "no operator"},
		"another deployment's token":    {foreign.enrol("db1", db), "another deployment"},
		"the token alone":               {s.body(honest).(statement.Enrolment).Token, "no enrolment"},
		"another host's key on top":     {statement.Proof{Payload: honest.Payload, Signatures: s.enrol("db1", db).Signatures}, "signature"},
		"a request instead":             {s.ask("alice", func(*statement.Request) {}), "no enrolment"},
		"a token for another host name": {s.enrolRenamed("db1", "db2"), "for host"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := vouched(s.chain, c.proof)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// enrolRenamed is the envelope of an enrolment under another host's token; statement.Sign refuses to make it, so the
// payload is signed as it is.
func (s *scene) enrolRenamed(token, host statement.HostName) statement.Proof {
	s.t.Helper()
	real := s.enrol(token, map[string]string{"tier": "db"})
	payload := strings.Replace(string(real.Payload), `"host":"`+string(token)+`"`, `"host":"`+string(host)+`"`, 1)
	proof, err := statement.SignPayload(statement.KindEnrolment, []byte(payload), s.signer(newKey(s.t)), s.signer(newKey(s.t)))
	s.must(err)
	return proof
}

// TestOperatorOfTheTokensOwnRevisionCounts: a host stays vouched for when the operator who enrolled it leaves.
func TestOperatorOfTheTokensOwnRevisionCounts(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	enrolment := s.enrol("db1", map[string]string{"tier": "db"})
	next, err := s.chain.Advance(s.revise(s.chain, func(doc *policy.Document) { doc.Operators = []statement.Person{"frank"} }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vouched(next, enrolment); err != nil {
		t.Errorf("the enrolment is no longer believed: %v", err)
	}
	s.chain = next
	if _, err := vouched(next, s.enrol("db2", map[string]string{"tier": "db"})); err == nil {
		t.Error("a token by a former operator is believed")
	}
}
