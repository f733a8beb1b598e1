package agent

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// scripted is a broker's TLS and routes in a test's hands: it says what the test says, which is what an owned broker can do.
type scripted struct {
	t       *testing.T
	w       *forger.World
	server  *httptest.Server
	mu      sync.Mutex
	posted  []statement.Opened
	refuse  map[statement.Kind]int // status to answer a kind with
	say     chan []byte            // lines of the one open stream
	asked   []string               // queries of watches
	hostKey []statement.Key        // keys shown on watches
	record  shown                  // whose tiles it serves
}

func newScripted(t *testing.T, w *forger.World, identity ed25519.PrivateKey) *scripted {
	t.Helper()
	b := &scripted{t: t, w: w, refuse: map[statement.Kind]int{}, say: make(chan []byte, 64)}
	own, err := api.SelfSigned(rand.Reader, identity)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/statements", b.statements)
	mux.HandleFunc("GET /v1/watch", b.watch)
	mux.HandleFunc("GET /v1/tile/{path...}", func(w http.ResponseWriter, r *http.Request) {
		data, err := b.record.source()(strings.TrimPrefix(r.URL.Path, "/v1/"))
		if err != nil {
			t.Errorf("asked for %s: %v", r.URL.Path, err)
		}
		_, _ = w.Write(data)
	})
	b.server = httptest.NewUnstartedServer(mux)
	b.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	b.server.TLS = api.ServerTLS(own, func() []statement.Key { return nil })
	b.server.StartTLS()
	b.server.TLS.Certificates = []tls.Certificate{own}
	t.Cleanup(func() { b.server.CloseClientConnections(); b.server.Close() })
	return b
}

func (b *scripted) address() string { return strings.TrimPrefix(b.server.URL, "https://") }

func (b *scripted) statements(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	proof, err := statement.ParseProof(data)
	if err != nil {
		b.t.Errorf("posted: %v", err)
		return
	}
	opened, err := statement.Open(proof)
	if err != nil {
		b.t.Errorf("posted: %v", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if status := b.refuse[opened.Body.Header().Kind]; status != 0 {
		kind := map[int]broker.Kind{403: broker.Denied, 503: broker.Unavailable}[status]
		w.WriteHeader(status)
		_, _ = w.Write(encode(b.t, api.Problem{Kind: string(kind), Message: "no"}))
		return
	}
	b.posted = append(b.posted, opened)
	_, _ = w.Write(encode(b.t, api.Answer{Index: uint64(len(b.posted))}))
}

func (b *scripted) watch(w http.ResponseWriter, r *http.Request) {
	key, _ := api.PeerKey(*r.TLS)
	b.mu.Lock()
	b.asked = append(b.asked, r.URL.RawQuery)
	b.hostKey = append(b.hostKey, key)
	b.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.Flush()
	out := bufio.NewWriter(w)
	for {
		select {
		case line := <-b.say:
			if line == nil {
				return
			}
			_, _ = out.Write(append(line, '\n'))
			_ = out.Flush()
			_ = control.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (b *scripted) frame(f api.Frame) { b.say <- encode(b.t, f) }

func (b *scripted) kinds() (kinds []statement.Kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.posted {
		kinds = append(kinds, o.Body.Header().Kind)
	}
	return kinds
}

func (b *scripted) watches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.asked)
}

func at(index uint64) *uint64 { return &index }

// following is a machine whose agent dials the broker.
func (m *machine) following(b *scripted) *serving {
	m.t.Helper()
	m.dial = b.address()
	return m.serve()
}

func TestTheHostEnrolsItselfOnceByTokenAndIdentity(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	b := newScripted(t, w, w.Identity)
	b.refuse[statement.KindEnrolment] = 503
	s := m.following(b)
	waitFor(t, "a try that failed", func() bool { return strings.Contains(m.log.String(), "not following") })
	b.mu.Lock()
	delete(b.refuse, statement.KindEnrolment)
	b.mu.Unlock()
	waitFor(t, "a watch", func() bool { return b.watches() == 1 })
	b.say <- nil // the stream breaks, and the host comes again
	waitFor(t, "another watch", func() bool { return b.watches() == 2 })
	if kinds := b.kinds(); len(kinds) != 1 || kinds[0] != statement.KindEnrolment {
		t.Fatalf("posted %v", kinds)
	}
	body := b.posted[0].Body.(statement.Enrolment)
	if body.Host != "db1" || body.MachineID != HashMachineID("m1") || b.hostKey[0] != body.Identity || b.posted[0].Signers[1].Key != body.Identity {
		t.Errorf("%+v by %v, TLS key %s", body, b.posted[0].Signers, b.hostKey[0])
	}
	if s.Host().Name != "db1" {
		t.Error("host is ", s.Host())
	}
}

func TestTheStreamOpensRevokesAndFreshens(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	m.enforce()
	b := newScripted(t, w, w.Identity)
	s := m.following(b)
	d := strict(w)
	stem := d.Stem()
	b.frame(api.Frame{Policy: &w.Chain.Proofs()[0]})
	b.frame(api.Frame{Dossier: &d})
	b.frame(api.Frame{Index: at(7), Beat: statement.TimeOf(m.clock.Wall())})
	waitFor(t, "the grant open", func() bool { return strings.Contains(m.log.String(), "grant open") })
	sudo := newCaller(t, aliceUID, 0)
	if got := sudo.say(s.pam, sudoAccount("alice")); !got.Allow {
		t.Fatalf("%+v\n%s", got, m.log)
	}
	if got := sudo.say(s.pam, sudoOpen("alice", "postgres")); !got.Allow {
		t.Fatalf("%+v", got)
	}
	m.clock.pass(16 * time.Second) // strict, and no beat for longer than three
	if got := newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")); got.Allow || !strings.Contains(got.Text, "last heard") {
		t.Errorf("stale: %+v", got)
	}
	b.frame(api.Frame{Index: at(7), Beat: statement.TimeOf(m.clock.Wall())})
	waitFor(t, "a start under a fresh word", func() bool { return newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")).Allow })
	begun := time.Now()
	b.frame(api.Frame{Index: at(8), Ended: &api.EndedFrame{Request: d.Request.Hash(), How: broker.EndedByRevoke, At: forger.Now()}})
	waitFor(t, "the session gone", sudo.dead)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("revoked after %v", took)
	}
	s.settled()
	m.wantStands(stem, false)
	waitFor(t, "opened and closed reported", func() bool {
		var what []string
		for _, o := range b.reports() {
			what = append(what, string(o.What))
		}
		return strings.HasPrefix(strings.Join(what, " "), "opened refused closed")
	})
	for i, o := range b.reports() {
		if o.Sequence != uint64(i+1) {
			t.Errorf("report %d has sequence %d", i, o.Sequence)
		}
	}
}

func (b *scripted) reports() (reports []statement.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.posted {
		if r, ok := o.Body.(statement.Report); ok {
			reports = append(reports, r)
		}
	}
	return reports
}

func TestReportsWaitOutADeafBrokerAndARefusedOneBlocksNothing(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	b := newScripted(t, w, w.Identity)
	b.refuse[statement.KindReport] = 503
	s := m.following(b)
	newCaller(t, erinUID, 0).say(s.pam, sudoAccount("erin"))
	waitFor(t, "a report that waits", func() bool { return strings.Contains(m.log.String(), "reports wait") })
	b.mu.Lock()
	b.refuse[statement.KindReport] = 403
	b.mu.Unlock()
	poke(s.reports.spare)
	waitFor(t, "the report set aside", func() bool { return setAside(t, s.Spool) == 1 })
	b.mu.Lock()
	delete(b.refuse, statement.KindReport)
	b.mu.Unlock()
	newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice"))
	waitFor(t, "the next one taken", func() bool { r := b.reports(); return len(r) == 1 && r[0].Sequence == 2 })
}

func TestABrokerWithoutThePoliciesKeyIsNotBelieved(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := newScripted(t, w, other)
	m.following(b)
	waitFor(t, "refusing to talk", func() bool { return strings.Contains(m.log.String(), "the broker's key is not in the policy") })
	if b.watches() != 0 || len(b.kinds()) != 0 {
		t.Error("spoke with it all the same")
	}
}

// An owned broker says what it likes; none of it may open anything, stop the agent, or stay unsaid.
func TestWhatAnOwnedBrokerSays(t *testing.T) {
	for sentence, c := range map[string]struct {
		say  func(w *forger.World, b *scripted)
		said string
	}{
		"a grant nobody approved": {func(w *forger.World, b *scripted) {
			d := w.Granted("alice", "db-admin", "db1", 600, forger.Key(w.T))
			b.frame(api.Frame{Index: at(1), Dossier: &d})
		}, "dossier opens nothing"},
		"another deployment's policy": {func(w *forger.World, b *scripted) {
			b.frame(api.Frame{Index: at(1), Policy: &forger.New(w.T, nil).Chain.Proofs()[0]})
		}, "policy revision refused"},
		"a policy mallory signed": {func(w *forger.World, b *scripted) {
			doc := w.Chain.Next(*w.Chain.Current(), forger.Now()+3600)
			b.frame(api.Frame{Index: at(1), Policy: proofOf(w.SignPolicy(doc, "mallory"))})
		}, "policy revision refused"},
		"a policy that skips one": {func(w *forger.World, b *scripted) {
			doc := w.Chain.Next(*w.Chain.Current(), forger.Now()+3600)
			doc.Revision = 3
			b.frame(api.Frame{Index: at(1), Policy: proofOf(w.SignPolicy(doc, "dave"))})
		}, "policy revision refused"},
		"a fork": {func(w *forger.World, b *scripted) {
			for _, who := range []statement.Person{"gwen", "bob"} {
				chain := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{who} })
				b.frame(api.Frame{Index: at(1), Policy: proofOf(chain.Proofs()[1])})
			}
		}, "GRANTING STOPS"},
		"no frame at all": {func(_ *forger.World, b *scripted) { b.say <- []byte(`{"open":"sesame"}`) }, "not following"},
		"a beat from next year": {func(w *forger.World, b *scripted) {
			b.frame(api.Frame{Index: at(1), Beat: forger.Now() + 365*24*3600})
		}, "clock"},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			b := newScripted(t, w, w.Identity)
			s := m.following(b)
			waitFor(t, "a watch", func() bool { return b.watches() > 0 })
			c.say(w, b)
			waitFor(t, c.said, func() bool { return strings.Contains(m.log.String(), c.said) })
			s.settled()
			if stems, err := m.units.Stems(context.Background()); err != nil || len(stems) != 0 {
				t.Errorf("open: %v, %v", stems, err)
			}
			if strings.Contains(m.log.String(), "broker last seen") {
				t.Error(m.log)
			}
		})
	}
}

func proofOf(p statement.Proof) *statement.Proof { return &p }

// A broker that is behind what this host has heard (a follower, a restored disk) does not end grants by not knowing them.
func TestABrokerThatIsBehindEndsNothingByItsSilence(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	d := db("alice", "db1")(w)
	m.feed(d)
	a := m.start()
	a.settle(t.Context())
	a.reached = 10
	for _, c := range []struct {
		index uint64
		stays bool
	}{{9, true}, {10, false}} {
		l := &listing{whole: true}
		if err := a.take(api.Frame{Index: at(c.index), Beat: a.Clock.now()}, l); err != nil {
			t.Fatal(err)
		}
		a.settle(t.Context())
		m.wantStands(d.Stem(), c.stays)
	}
}
