package edge

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// header is a proof as a read carries it.
func (s *stage) header(p statement.Proof) string {
	s.t.Helper()
	encoded, err := json.Marshal(p)
	s.must(err)
	return base64.StdEncoding.EncodeToString(encoded)
}

// readOf is alice's read of her own name; bend may change it before it is signed by signer.
func (s *stage) readOf(signer ssh.Signer, bend func(*statement.Read)) statement.Proof {
	s.t.Helper()
	read := statement.Read{Head: short(s.world.Head(statement.KindRead, "alice")), Method: "GET", PathAndQuery: "/v1/whoami", BodySHA256: statement.HashOf(nil)}
	if bend != nil {
		bend(&read)
	}
	p, err := statement.Sign(read, signer)
	s.must(err)
	return p
}

// TestAReadIsHeldToWhatWasSigned bends one thing at a time.
func TestAReadIsHeldToWhatWasSigned(t *testing.T) {
	s := newStage(t, nil, nil)
	alice := s.world.People["alice"]
	other := forger.New(t, nil)
	for name, try := range map[string]struct {
		bend   func(*statement.Read)
		signer ssh.Signer
		status int
	}{
		"as it should be":             {nil, alice, 200},
		"another path":                {func(r *statement.Read) { r.PathAndQuery = "/v1/roles" }, alice, 403},
		"another query":               {func(r *statement.Read) { r.PathAndQuery = "/v1/whoami?all=true" }, alice, 403},
		"a body that is not there":    {func(r *statement.Read) { r.BodySHA256 = statement.HashOf([]byte("x")) }, alice, 403},
		"another person":              {func(r *statement.Read) { r.Person = "dave" }, alice, 403},
		"a person nobody knows":       {func(r *statement.Read) { r.Person = "eve" }, alice, 403},
		"another deployment":          {func(r *statement.Read) { r.Deployment = other.Chain.Deployment() }, alice, 403},
		"another policy":              {func(r *statement.Read) { r.Policy = other.Chain.Ref() }, alice, 403},
		"a policy not seen here yet":  {func(r *statement.Read) { r.Policy.Revision = 9 }, alice, 503},
		"a minute too old":            {func(r *statement.Read) { r.Created -= 62; r.NotAfter -= 62 }, alice, 410},
		"two minutes in the future":   {func(r *statement.Read) { r.Created += 120; r.NotAfter += 120 }, alice, 410},
		"a life that is over":         {func(r *statement.Read) { r.Created -= 30; r.NotAfter = r.Created + 5 }, alice, 410},
		"mallory's key":               {nil, s.world.People["mallory"], 403},
		"a key of another deployment": {nil, other.People["alice"], 403},
	} {
		t.Run(name, func(t *testing.T) {
			status, said := s.raw("GET", "/v1/whoami", http.Header{api.HeaderProof: {s.header(s.readOf(try.signer, try.bend))}}, nil)
			if status != try.status {
				t.Errorf("%d %s, want %d", status, said, try.status)
			}
		})
	}
	whole := s.readOf(alice, nil)
	spoilt := map[string]http.Header{
		"no header":              {},
		"no base64":              {api.HeaderProof: {"%%%"}},
		"two headers":            {api.HeaderProof: {s.header(whole), s.header(whole)}},
		"a header beyond limits": {api.HeaderProof: {strings.Repeat("A", api.MaxHeaderProof*2)}},
		"a request in its place": {api.HeaderProof: {s.header(s.world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil))}},
		"a changed payload":      {api.HeaderProof: {s.header(statement.Proof{Payload: append(whole.Payload, ' '), Signatures: whole.Signatures})}},
	}
	for name, header := range spoilt {
		t.Run(name, func(t *testing.T) {
			if status, said := s.raw("GET", "/v1/whoami", header, nil); status != 400 && status != 403 {
				t.Errorf("%d %s", status, said)
			}
		})
	}
	status, _ := s.raw("GET", "/v1/roles", http.Header{api.HeaderProof: {s.header(whole)}}, nil)
	if status != http.StatusForbidden {
		t.Errorf("a read of one path opened another: %d", status)
	}
}

// TestASessionReadsAndNothingElse gives a session's key everything a thief of it would try.
func TestASessionReadsAndNothingElse(t *testing.T) {
	s := newStage(t, nil, nil)
	key := forger.Key(t)
	session := func(bend func(*statement.Session), person statement.Person) statement.Proof {
		body := statement.Session{Head: s.world.Head(statement.KindSession, "alice"), Key: signtest.Public(key), Until: forger.Now() + 3600}
		if bend != nil {
			bend(&body)
		}
		return s.world.Sign(body, person)
	}
	for name, try := range map[string]struct {
		session statement.Proof
		signer  ssh.Signer
		status  int
	}{
		"the session's key":             {session(nil, "alice"), key, 200},
		"another key":                   {session(nil, "alice"), forger.Key(t), 403},
		"the person's own key":          {session(nil, "alice"), s.world.People["alice"], 403},
		"a session signed by mallory":   {session(nil, "mallory"), key, 403},
		"a session of mallory":          {session(func(b *statement.Session) { b.Person = "mallory" }, "mallory"), key, 403},
		"a session that is over":        {session(func(b *statement.Session) { b.Created -= 7200; b.Until = b.Created + 3600; b.NotAfter = b.Until }, "alice"), key, 410},
		"a read in the session's place": {s.readOf(s.world.People["alice"], nil), key, 403},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{api.HeaderProof: {s.header(s.readOf(try.signer, nil))}, api.HeaderSession: {s.header(try.session)}}
			if status, said := s.raw("GET", "/v1/whoami", header, nil); status != try.status {
				t.Errorf("%d %s, want %d", status, said, try.status)
			}
		})
	}
	p := session(nil, "alice")
	reader := s.reader("alice")
	reader.Signer, reader.Session = key, &p
	who, err := s.proving(reader).Whoami(t.Context())
	if err != nil || who.Person != "alice" {
		t.Errorf("the client reads as %q, %v", who.Person, err)
	}
	ask, err := statement.Sign(statement.Request{Head: s.world.Head(statement.KindRequest, "alice"), Role: "web-deploy", Hosts: []statement.HostName{"web1"},
		Duration: 60, Reason: "session", Expires: forger.Now() + 600}, key)
	s.must(err)
	s.refused(ask, broker.Denied)
	s.refused(p, broker.Invalid)
}
