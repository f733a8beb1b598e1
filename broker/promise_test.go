package broker

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pim-ssh/broker/statement"
)

// The promises of DESIGN §2 that the core alone keeps, each held after every step of random histories.
func TestInEveryHistory(t *testing.T) {
	promises := map[string]func(w *walk) error{
		"the naive model agrees on every request and every window":                theModelAgrees,
		"one request has one window for ever":                                     oneWindow,
		"nobody approves a request of their own":                                  nobodyApprovesTheirOwn,
		"a denied, withdrawn or expired request never grants":                     deadStaysDead,
		"a grant opens only with a quorum of distinct current approvers":          onlyAQuorumOpens,
		"a grant that was returned, revoked or lapsed stays so":                   overStaysOver,
		"no window is longer than the least that asker, approvers and role allow": neverLonger,
		"now never goes back": nowNeverGoesBack,
		"replay is harmless":  replayIsHarmless,
		"what brokers hold for a live grant is what hosts would prove": hostsAgree,
		"Decide changes nothing":                                                    decideChangesNothing,
		"refolding the log gives the same digest":                                   refoldingAgrees,
		"every certificate is for a live grant and a key that its holder has named": certificatesAreNamed,
	}
	for sentence, promise := range promises {
		t.Run(sentence, func(t *testing.T) { walks(t, promise) })
	}
}

func theModelAgrees(w *walk) error {
	for number, a := range w.m.asks {
		r, held := w.s.Request(StemOf(w.proofs[number].Hash()).Request())
		if held == a.gone(int64(w.s.Now())) {
			return fmt.Errorf("request %d: held %v, the model says gone %v", number, held, !held)
		}
		if !held {
			continue
		}
		if string(r.State) != a.state {
			return fmt.Errorf("%s is %s, the model says %s", r.ID, r.State, a.state)
		}
		if r.Grant == nil {
			continue
		}
		if int64(r.Grant.From) != a.from || int64(r.Grant.Until) != a.until || !slices.Equal(words(r.Grant.Hosts), a.open) {
			return fmt.Errorf("%s [%d, %d) on %v, the model says [%d, %d) on %v", r.ID, r.Grant.From, r.Grant.Until, r.Grant.Hosts, a.from, a.until, a.open)
		}
		if phase := string(r.Grant.Phase(r.ClosedAt)); a.over != "" && a.over != phase {
			return fmt.Errorf("%s is %s, the model says %s", r.Grant.ID, phase, a.over)
		}
	}
	if len(w.s.Requests()) > len(w.m.asks) {
		return fmt.Errorf("%d requests, the model has %d", len(w.s.Requests()), len(w.m.asks))
	}
	return nil
}

func oneWindow(w *walk) error {
	for _, r := range w.s.Grants() {
		first := w.granted[r.Grant.ID]
		if r.Grant.ID.Stem() != r.ID.Stem() || r.Grant.Request != first.Request || StemOf(first.Request) != r.ID.Stem() {
			return fmt.Errorf("%s has grant %s", r.ID, r.Grant.ID)
		}
		if r.Grant.Until > first.Until {
			return fmt.Errorf("%s: until %s became %s", r.ID, first.Until, r.Grant.Until)
		}
	}
	return nil
}

func nobodyApprovesTheirOwn(w *walk) error {
	for _, r := range w.s.Requests() {
		for _, p := range r.Dossier.Decisions {
			if bodyOf[statement.Decision](p).Person == r.Body.Person {
				return fmt.Errorf("%s was decided by its asker", r.ID)
			}
		}
	}
	return nil
}

func deadStaysDead(w *walk) error {
	dead := map[Stem]EventKind{}
	for _, e := range w.log {
		switch e := e.(type) {
		case *RequestDenied:
			dead[e.Request.Stem()] = e.Kind
		case *RequestWithdrawn:
			dead[e.Request.Stem()] = e.Kind
		case *RequestExpired:
			dead[e.Request.Stem()] = e.Kind
		case *RequestApproved:
			if how, over := dead[e.Request.Stem()]; over {
				return fmt.Errorf("%s: %s, and then approved", e.Request, how)
			}
		case *GrantOpened:
			if how, over := dead[e.Grant.Stem]; over {
				return fmt.Errorf("%s: %s, and then opened", e.Grant.ID, how)
			}
		}
	}
	return nil
}

func onlyAQuorumOpens(w *walk) error {
	for _, e := range w.last.Events {
		opened, ok := e.(*GrantOpened)
		if !ok {
			continue
		}
		role := w.m.role(string(opened.Grant.Role))
		people := map[string]bool{}
		r, _ := w.s.FindGrant(string(opened.Grant.ID))
		for _, p := range r.Dossier.Decisions {
			d := bodyOf[statement.Decision](p)
			if d.Verdict == statement.Approve && d.Person != r.Body.Person && slices.Contains(role.approvers, string(d.Person)) {
				people[string(d.Person)] = true
			}
		}
		if len(people) < role.count || !slices.Contains(role.eligible, string(r.Body.Person)) {
			return fmt.Errorf("%s opened with %v of %d", opened.Grant.ID, people, role.count)
		}
	}
	return nil
}

func overStaysOver(w *walk) error {
	over := map[GrantID]EventKind{}
	for _, e := range w.log {
		var id GrantID
		switch e := e.(type) {
		case *GrantOpened:
			id = e.Grant.ID
		case *CertificateIssued:
			id = e.Grant
		case *GrantReturned:
			id = e.Grant
		case *GrantRevoked:
			id = e.Grant
		case *GrantLapsed:
			id = e.Grant
		default:
			continue
		}
		if how, ended := over[id]; ended {
			return fmt.Errorf("%s: %s after %s", id, e.Head().Kind, how)
		}
		switch e.(type) {
		case *GrantReturned, *GrantRevoked, *GrantLapsed:
			over[id] = e.Head().Kind
		}
	}
	return provenNoMore(w)
}

// provenNoMore holds the dossiers of ended grants to proving nothing, for any judge.
func provenNoMore(w *walk) error {
	for _, r := range w.s.Grants() {
		if r.Grant.Ended == nil {
			continue
		}
		if _, err := Prove(w.chain, r.Dossier); err == nil {
			return fmt.Errorf("%s is %s and still proves", r.Grant.ID, r.Grant.Phase(w.now))
		}
	}
	return nil
}

func neverLonger(w *walk) error {
	for _, r := range w.s.Grants() {
		least := min(r.Body.Duration, statement.Seconds(w.m.policies[r.Body.Policy.Revision-1][string(r.Body.Role)].longest))
		for _, p := range r.Dossier.Decisions {
			if d := bodyOf[statement.Decision](p); d.Duration != 0 {
				least = min(least, d.Duration)
			}
		}
		if length := r.Grant.Until.Sub(r.Grant.From); length > least {
			return fmt.Errorf("%s lasts %d s, the least is %d s", r.Grant.ID, length, least)
		}
	}
	return nil
}

func nowNeverGoesBack(w *walk) error {
	if w.s.Now() < w.then {
		return fmt.Errorf("from %s back to %s", w.then, w.s.Now())
	}
	return nil
}

func replayIsHarmless(w *walk) error {
	if w.replay && len(w.last.Events) != 0 {
		return fmt.Errorf("a repeated statement became %v", kinds(w.last.Events))
	}
	return nil
}

func hostsAgree(w *walk) error {
	for _, r := range w.s.Grants() {
		if !r.live(w.s.Now()) {
			continue
		}
		g, err := Prove(w.chain, r.Dossier)
		if err != nil {
			return fmt.Errorf("%s is live, but: %w", r.Grant.ID, err)
		}
		if g.Until < r.Grant.Until || !slices.Equal(g.Hosts, r.Grant.Hosts) || !slices.Equal(g.Keys, r.Grant.Keys) {
			return fmt.Errorf("%s: hosts would open until %s on %v, brokers say %s on %v", g.ID, g.Until, g.Hosts, r.Grant.Until, r.Grant.Hosts)
		}
	}
	return nil
}

func decideChangesNothing(w *walk) error {
	w.light = false // every later Decide is compared, digest before and after
	return nil
}

// refoldingAgrees folds on from where the step before ended; when the walk is over it begins at the beginning once more.
func refoldingAgrees(w *walk) error {
	for ; w.folded < len(w.log); w.folded++ {
		leaf, err := EncodeEvent(w.log[w.folded])
		if err != nil {
			return err
		}
		again, err := DecodeEvent(leaf)
		if err != nil {
			return err
		}
		Evolve(w.refold, again)
	}
	if refolded, live := w.refold.Digest(), w.s.Digest(); refolded != live {
		return fmt.Errorf("refolded %s, live %s", refolded, live)
	}
	data, err := EncodeState(w.refold)
	if err != nil {
		return err
	}
	_, err = DecodeState(data)
	return err
}

func certificatesAreNamed(w *walk) error {
	for _, e := range w.last.Events {
		issued, ok := e.(*CertificateIssued)
		if !ok {
			continue
		}
		r, _ := w.s.FindGrant(string(issued.Grant))
		if !slices.Contains(r.Grant.Keys, issued.Key) || !r.live(issued.At) {
			return fmt.Errorf("%s: a certificate for %s", issued.Grant, issued.Key.Fingerprint())
		}
	}
	return nil
}

func TestTheOrderInWhichDecisionsArriveDoesNotChangeTheWindow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sc := resume(rt)
		p := sc.asks("alice", "root", "db1", "db2")
		sc.must(p)
		var yes []statement.Proof
		for _, person := range []statement.Person{"bob", "carol"} {
			yes = append(yes, sc.decides(key(string(person)), sc.decision(person, statement.Approve, p), func(d *statement.Decision) {
				d.Created = d.Created.Add(rapid.SampledFrom([]statement.Seconds{-30, 0, 10, 40}).Draw(rt, "created"))
				d.Duration = rapid.SampledFrom([]statement.Seconds{0, 300, 600}).Draw(rt, "narrowed to")
				d.Hosts = rapid.SampledFrom([][]statement.HostName{nil, {"db1"}, {"db1", "db2"}}).Draw(rt, "hosts")
			}))
		}
		data, err := EncodeState(sc.s)
		if err != nil {
			rt.Fatal(err)
		}
		other, err := DecodeState(data)
		if err != nil {
			rt.Fatal(err)
		}
		one := *sc
		for _, d := range yes {
			one.must(d)
		}
		two := *sc
		two.s = other
		slices.Reverse(yes)
		for _, d := range yes {
			two.must(d)
		}
		a, b := one.find(p).Grant, two.find(p).Grant
		if a.From != b.From || a.Until != b.Until || !slices.Equal(a.Hosts, b.Hosts) {
			rt.Fatalf("[%s, %s) on %v or [%s, %s) on %v", a.From, a.Until, a.Hosts, b.From, b.Until, b.Hosts)
		}
	})
}
