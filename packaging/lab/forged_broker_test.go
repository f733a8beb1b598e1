//go:build lab

package lab

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// staleAfter is the grace of the role fresh.
const staleAfter statement.Seconds = 4

// owned is the host at the end of an owned broker's wire.
func (g *ground) owned(t *testing.T) {
	g.honest(t)
	t.Run("the host files its enrolment, signed by the operator's token and its own identity", g.enrolled)
	for _, f := range slices.Concat(forgeries, factorForgeries) {
		if f.wire {
			t.Run(f.sentence, func(t *testing.T) { g.try(t, f) })
		}
	}
	for _, u := range usurpations {
		if u.wire {
			t.Run(u.sentence, func(t *testing.T) { g.usurp(t, u) })
		}
	}
	t.Run("a narrowing that the host has seen, left out later", g.narrowed)
	t.Run("a narrowing that the host never saw, left out while another approval fills the quorum", g.unnarrowed)
	t.Run("a denial that the host has seen, left out later", g.denied)
	t.Run("frozen: silent on an open stream", g.frozen)
	for _, n := range noises {
		t.Run(n.sentence, func(t *testing.T) { g.noise(t, n) })
	}
	g.honest(t)
}

func (g *ground) enrolled(t *testing.T) {
	labtest.WaitFor(t, "an enrolment", 5*time.Second, func() bool { return len(g.wire.Posted()) > 0 })
	opened, err := statement.Open(g.wire.Posted()[0])
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := opened.Body.(statement.Enrolment); !ok || e.Host != hostName(g.host) {
		t.Errorf("the host filed %+v", opened.Body)
	}
}

// A usurpation is a policy revision that nobody rightly signed; every one makes mallory eligible for root on her own word.
type usurpation struct {
	sentence string
	sign     func(w *forger.World, doc policy.Document) statement.Proof
	why      string
	wire     bool // makes sense down a wire too
}

var usurpations = []usurpation{
	{"a policy signed by the broker", func(w *forger.World, doc policy.Document) statement.Proof { return w.SignPolicyAs(doc, w.Broker()) }, "is no steward's", true},
	{"a policy signed by the broker and the CA", func(w *forger.World, doc policy.Document) statement.Proof {
		return w.SignPolicyAs(doc, w.Broker(), w.CA)
	}, "is no steward's", false},
	{"a policy signed by one steward of two", func(w *forger.World, doc policy.Document) statement.Proof { return w.SignPolicy(doc, "dave") }, "1 of 2 needed stewards signed", true},
	{"a policy signed by one steward and the broker", func(w *forger.World, doc policy.Document) statement.Proof {
		return w.SignPolicyAs(doc, w.People["dave"], w.Broker())
	}, "is no steward's", false},
	{"a policy signed by a steward and an approver", func(w *forger.World, doc policy.Document) statement.Proof {
		return w.SignPolicy(doc, "dave", "bob")
	}, "is no steward's", false},
	{"a policy with one steward's signature twice", func(w *forger.World, doc policy.Document) statement.Proof {
		p := w.SignPolicy(doc, "dave")
		return statement.Proof{Payload: p.Payload, Signatures: [][]byte{p.Signatures[0], p.Signatures[0]}}
	}, "signed twice", false},
	{"a policy that makes mallory its one steward, signed by her", func(w *forger.World, doc policy.Document) statement.Proof {
		doc.Stewards = policy.Stewards{Threshold: 1, People: []statement.Person{"mallory"}}
		return w.SignPolicy(doc, "mallory")
	}, "is no steward's", true},
	{"a policy of two stewards, changed after they signed", func(w *forger.World, doc policy.Document) statement.Proof {
		signed := w.SignPolicy(w.Next(nil), "dave", "frank")
		forged := w.SignPolicyAs(doc, w.Broker())
		return statement.Proof{Payload: forged.Payload, Signatures: signed.Signatures}
	}, "policy: signature 1: ", true},
	{"a policy that skips a revision", func(w *forger.World, doc policy.Document) statement.Proof {
		doc.Revision += 2
		return w.SignPolicy(doc, "dave", "frank")
	}, "is missing", true},
	{"a policy that follows another one than this host's", func(w *forger.World, doc policy.Document) statement.Proof {
		doc.Previous = w.Twin().Chain.Deployment().String()
		return w.SignPolicy(doc, "dave", "frank")
	}, "does not follow this policy", false},
	{"the first policy of the attacker's own deployment", func(w *forger.World, doc policy.Document) statement.Proof {
		doc.Revision, doc.Previous = 1, ""
		doc.Stewards = policy.Stewards{Threshold: 1, People: []statement.Person{"mallory"}}
		return w.SignPolicy(doc, "mallory")
	}, "it is another deployment's first", true},
	{"two stewards' statement of another kind as a policy", func(w *forger.World, doc policy.Document) statement.Proof {
		payload := w.SignPolicy(doc, "dave", "frank")
		return w.Misfiled(payload, statement.KindRead, w.People["dave"])
	}, "made for namespace", false},
}

// coup is the policy that mallory wishes for.
func coup(doc *policy.Document) {
	root := doc.Roles["root"]
	root.Eligible, root.Approvals, root.PlainKey = []policy.Name{"mallory"}, policy.Approvals{None: true}, true
	doc.Roles["root"] = root
}

// usurp shows a policy nobody rightly signed, and mallory's request that it would grant.
func (g *ground) usurp(t *testing.T, u usurpation) {
	proof := u.sign(g.w, g.w.Next(coup))
	since := g.since(t)
	g.showPolicy(t, proof)
	g.said(t, since, u.why)
	key := forger.Key(t)
	d := with(g.w.Ask("mallory", "root", hostName(g.host), 600, key, nil))
	g.show(t, d)
	g.said(t, since, "mallory is not eligible for role root")
	g.nothingStarts(t, d, "mallory", "root", forger.Offer(t, g.w.Certificate(d, key, nil), key))
}

// narrowed: what a host has seen of a request it keeps, whatever it is shown next.
func (g *ground) narrowed(t *testing.T) {
	a := attempt{g, g.w, forger.Key(t)}
	r := a.ask(nil)
	narrow := a.Approve("bob", r, shorter(60))
	g.show(t, with(r, narrow))
	g.opens(t, with(r))
	g.until(t, with(r), madeAt(t, narrow).Add(60))
	since := g.since(t)
	g.show(t, with(r, a.Approve("carol", r, nil)))
	g.honest(t) // by then the host has taken it
	g.until(t, with(r), madeAt(t, narrow).Add(60))
	if again := g.read(t)[since:]; bytes.Contains([]byte(again), []byte("grant open\" grant="+string(with(r).Stem().Grant()))) {
		t.Errorf("opened once more:\n%s", again)
	}
	g.end(t, with(r, narrow))
}

// unnarrowed is what brokers can withhold: the one approval while another, which somebody really gave, fills the quorum.
// The window is then the other's, and not a second more.
func (g *ground) unnarrowed(t *testing.T) {
	a := attempt{g, g.w, forger.Key(t)}
	r := a.ask(nil)
	a.Approve("bob", r, shorter(60)) // the host never sees it
	carols := a.Approve("carol", r, shorter(300))
	g.show(t, with(r, carols))
	g.opens(t, with(r))
	g.until(t, with(r), madeAt(t, carols).Add(300))
	g.end(t, with(r, carols))
}

func (g *ground) denied(t *testing.T) {
	key := forger.Key(t)
	a := attempt{g, g.w, key}
	r := a.ask(nil)
	yes := a.yes(r)
	since := g.since(t)
	g.show(t, with(r, a.Approve("carol", r, func(d *statement.Decision) { d.Verdict = statement.Deny })))
	g.said(t, since, "carol denied")
	g.show(t, with(r, yes))
	since = g.since(t)
	g.nothingStarts(t, with(r), "alice", "postgres", forger.Offer(t, g.w.Certificate(with(r, yes), key, nil), key))
	g.said(t, since, "carol denied")
}

// frozen: a broker that keeps the stream open and says nothing, or says it with a clock that is wrong, holds nothing open
// beyond the role's own bound. What was started goes on until its window ends.
func (g *ground) frozen(t *testing.T) {
	key := forger.Key(t)
	d := g.w.Granted("erin", "fresh", hostName(g.host), 300, key, "bob")
	offer := forger.Offer(t, g.w.Certificate(d, key, nil), key)
	g.show(t, d)
	g.opens(t, d)
	g.entered(t, "postgres", offer)
	g.do(t, "setpriv --reuid=erin --regid=erin --init-groups --reset-env sudo -n -b -u postgres sleep 7901 >/dev/null 2>&1")
	stale := func(why string) {
		since := g.since(t)
		labtest.WaitFor(t, "new starts refused", staleAfter.Std()+3*time.Second, func() bool { _, err := g.login(t, "postgres", offer); return err != nil })
		if out := g.sudo(t, "erin", "postgres"); bytes.Contains([]byte(out), []byte("uid=")) {
			t.Errorf("%s: SUDO on a stale word:\n%s", g.host, out)
		}
		g.said(t, since, why)
		g.said(t, since, "and may start nothing after 4s")
		if g.alive(t, g.host, "^ *[0-9]+ postgres .*sleep 7901") == "" {
			t.Error("what was started before did not go on")
		}
	}
	g.wire.Freeze(true, 0)
	stale("this host last heard from a broker")
	g.wire.Freeze(false, 0)
	labtest.WaitFor(t, "a fresh word", 3*time.Second, func() bool { _, err := g.login(t, "postgres", offer); return err == nil })
	g.wire.Freeze(false, 3600)
	stale("the broker's clock and ours differ too much")
	g.wire.Freeze(false, 0)
	labtest.WaitFor(t, "a fresh word", 3*time.Second, func() bool { _, err := g.login(t, "postgres", offer); return err == nil })
	g.end(t, d)
}

// A noise is what else an owned broker, or whoever stands in its place, can answer.
type noise struct {
	sentence string
	key      bool // the real identity key
	instead  http.HandlerFunc
	why      string
}

func always(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
	}
}

var noises = []noise{
	{"somebody with another key in the broker's place", false, nil, "the broker's key is not in the policy"},
	{"a stream of words", true, always(http.StatusOK, "granted: everything\n"), "the watch stream is not understood"},
	{"a frame with a word too many", true, always(http.StatusOK, `{"beat":"2026-01-01T00:00:00Z","grant":"root"}`+"\n"), "the watch stream is not understood"},
	{"a line without end", true, always(http.StatusOK, string(bytes.Repeat([]byte("x"), api.MaxFrame+1))), "frame too large"},
	{"a redirect", true, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://10.77.0.1:7444/", http.StatusFound)
	}, "brokers never redirect"},
	{"a page", true, always(http.StatusBadGateway, "<html>"), "the broker answered 502"},
}

// noise has the host live with it: what people signed goes on, nothing else begins, and the host finds back by itself.
func (g *ground) noise(t *testing.T, n noise) {
	erins := forger.Key(t)
	d := g.w.Granted("erin", "keeper", hostName(g.host), 300, erins, "gwen")
	g.show(t, d)
	g.opens(t, d)
	key := g.w.Identity
	if !n.key {
		_, key, _ = ed25519.GenerateKey(rand.Reader)
	}
	since := g.since(t)
	g.do(t, "systemctl restart pim-hostd") // it calls at once, and not after the pause that the last noise made longer
	g.wire.Become(key, n.instead)
	g.said(t, since, n.why)
	g.entered(t, "postgres", forger.Offer(t, g.w.Certificate(d, erins, nil), erins))
	alices := forger.Key(t)
	forged := with(g.w.Ask("alice", "db-admin", hostName(g.host), 600, alices, nil))
	g.nothingStarts(t, forged, "alice", "postgres", forger.Offer(t, g.w.Certificate(forged, alices, nil), alices))
	g.wire.Become(g.w.Identity, nil)
	labtest.WaitFor(t, "the host listens again", 15*time.Second, func() bool { return g.wire.Listeners() > 0 })
	g.end(t, d)
}

// showPolicy puts a policy revision before the host.
func (g *ground) showPolicy(t testing.TB, p statement.Proof) {
	t.Helper()
	if g.listens {
		g.wire.ShowPolicy(p)
		return
	}
	g.putJSON(t, p, "policy", "00000099.json")
	g.do(t, "systemctl reload pim-hostd")
}
