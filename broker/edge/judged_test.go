package edge

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/edge/judge"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/broker/totp"
	"pim-ssh/packaging/lab/forger"
)

// judging is a stage on which role web-deploy is limited, and where codes are those of a clock that a test moves.
type judging struct {
	*stage
	ahead atomic.Int64 // seconds: of the clock that codes and hours are held to
}

func newJudging(t *testing.T, limit func(*policy.Role)) *judging {
	j := &judging{}
	j.stage = newStage(t, func(doc *policy.Document) {
		role := doc.Roles["web-deploy"]
		limit(&role)
		doc.Roles["web-deploy"] = role
	}, func(s *Server, _ *Front) {
		s.now = func() statement.Time { return forger.Now() + statement.Time(j.ahead.Load()) }
	})
	j.server.identity = j.world.Identity
	return j
}

func withCodes(r *policy.Role) { r.Factors.Ask = policy.TOTP }

// enrol gives a person a seed, and moves the clock past its first code.
func (j *judging) enrol(person statement.Person) totp.Seed {
	j.t.Helper()
	seed, err := totp.Generate(rand.Reader, person)
	j.must(err)
	j.submit(j.enrolment(person, seed, j.server.now(), nil))
	j.ahead.Add(30)
	return seed
}

func (j *judging) enrolment(person statement.Person, seed totp.Seed, at statement.Time, bend func(*statement.Factor)) statement.Proof {
	j.t.Helper()
	sealed, err := totp.Seal(seed, j.world.Chain.Current().Brokers["b1"].Identity)
	j.must(err)
	first, err := seed.Code(totp.StepAt(at))
	j.must(err)
	f := statement.Factor{Head: j.world.Head(statement.KindFactor, person), Action: statement.EnrolFactor, Sealed: sealed, First: first}
	if bend != nil {
		bend(&f)
	}
	return j.world.Sign(f, person)
}

// code is what the seed gives now.
func (j *judging) code(seed totp.Seed) string {
	j.t.Helper()
	code, err := seed.Code(totp.StepAt(j.server.now()))
	j.must(err)
	return code
}

// wrong is a code that none of the next ones is.
func (j *judging) wrong(seed totp.Seed) string {
	j.t.Helper()
	for n := range 1000 {
		code := fmt.Sprintf("%06d", n)
		if _, right := seed.Check(code, j.server.now()); !right {
			return code
		}
	}
	return ""
}

// with is a request of its own for web-deploy, with a code.
func (j *judging) with(person statement.Person, code string) statement.Proof {
	return j.world.Ask(person, "web-deploy", "web1", 600, j.world.People[person], func(r *statement.Request) { r.Code = code })
}

// says files a statement that must be refused with these words.
func (j *judging) says(p statement.Proof, words string) {
	j.t.Helper()
	if _, err := j.as("").Submit(j.t.Context(), p); err == nil || !strings.Contains(err.Error(), words) {
		j.t.Errorf("got %v, want %q", err, words)
	}
}

// TestThreatMFACodeServesOnce files a code twice, in two statements, at once too.
func TestThreatMFACodeServesOnce(t *testing.T) {
	j := newJudging(t, withCodes)
	seed := j.enrol("alice")
	first := j.with("alice", j.code(seed))
	if answer := j.submit(first); answer.Grant == nil {
		t.Fatal("no grant")
	}
	j.says(j.with("alice", j.code(seed)), "used before")
	if again := j.submit(first); again.Grant == nil {
		t.Error("the same statement, sent again, is another one")
	}
	j.ahead.Add(30)
	code := j.code(seed)
	var taken atomic.Int32
	var filing sync.WaitGroup
	for range 8 {
		p := j.with("alice", code)
		filing.Go(func() {
			if _, err := j.as("").Submit(t.Context(), p); err == nil {
				taken.Add(1)
			}
		})
	}
	filing.Wait()
	if n := taken.Load(); n != 1 {
		t.Errorf("one code was taken %d times", n)
	}
	j.says(j.with("alice", ""), "a code is needed")
	j.says(j.with("erin", "123456"), "has enrolled no second factor")
}

// TestThreatMFARecoveryCodeServesOnceAndForgivesNothing shows a used recovery code, which the record holds, between guesses.
func TestThreatMFARecoveryCodeServesOnceAndForgivesNothing(t *testing.T) {
	j := newJudging(t, withCodes)
	seed := j.enrol("alice")
	if answer := j.submit(j.with("alice", seed.Recovery[4])); answer.Grant == nil {
		t.Fatal("a recovery code does not serve")
	}
	for range broker.MaxFailures - 1 {
		j.says(j.with("alice", j.wrong(seed)), "the code is wrong")
		j.says(j.with("alice", seed.Recovery[4]), "recovery code 5 was used before")
	}
	j.says(j.with("alice", j.wrong(seed)), "the code is wrong")
	j.says(j.with("alice", j.code(seed)), "locked until")
}

// TestThreatMFABruteForceIsCountedByPerson has many guesses in hand at once: five are answered, and nobody else is locked out.
func TestThreatMFABruteForceIsCountedByPerson(t *testing.T) {
	j := newJudging(t, withCodes)
	seed, erins := j.enrol("alice"), j.enrol("erin")
	var wrong, locked atomic.Int32
	var filing sync.WaitGroup
	for range 20 {
		p := j.with("erin", j.wrong(erins))
		filing.Go(func() {
			switch _, err := j.as("").Submit(t.Context(), p); {
			case err == nil:
				t.Error("a wrong code was taken")
			case strings.Contains(err.Error(), "the code is wrong"):
				wrong.Add(1)
			case strings.Contains(err.Error(), "locked until"):
				locked.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	filing.Wait()
	if wrong.Load() != broker.MaxFailures || locked.Load() != 20-broker.MaxFailures {
		t.Errorf("%d were told that they are wrong, %d that they are locked out", wrong.Load(), locked.Load())
	}
	before := j.index()
	j.says(j.with("erin", j.code(erins)), "locked until")
	j.says(j.with("erin", erins.Recovery[0]), "locked until")
	for _, refused := range j.refusals(before) {
		if code := refused.Judged.Code; code != nil && code.Recovery == 0 {
			t.Errorf("a code was checked while codes were locked: %+v", refused.Judged)
		}
	}
	if answer := j.submit(j.with("alice", j.code(seed))); answer.Grant == nil {
		t.Error("alice is locked out by erin's codes")
	}
}

// refusals are those from an event on.
func (j *judging) refusals(from uint64) []*broker.StatementRefused {
	j.t.Helper()
	leaves, _, err := j.node.Events(from, 1000)
	j.must(err)
	var all []*broker.StatementRefused
	for _, leaf := range leaves {
		event, err := broker.DecodeEvent(leaf)
		j.must(err)
		if refused, is := event.(*broker.StatementRefused); is {
			all = append(all, refused)
		}
	}
	return all
}

// TestThreatMFAASeedIsReplacedOnlyWithItsOwnCode tries to enrol another seed with a stolen key.
func TestThreatMFAASeedIsReplacedOnlyWithItsOwnCode(t *testing.T) {
	j := newJudging(t, withCodes)
	first, err := totp.Generate(rand.Reader, "alice")
	j.must(err)
	j.says(j.enrolment("alice", first, j.server.now(), func(f *statement.Factor) { f.First = j.wrong(first) }), "the first code is not what the new seed gives")
	seed := j.enrol("alice")
	next, err := totp.Generate(rand.Reader, "alice")
	j.must(err)
	enrol := func(code string) statement.Proof {
		return j.enrolment("alice", next, j.server.now(), func(f *statement.Factor) { f.Code = code })
	}
	j.says(enrol(""), "a code of it is needed")
	j.says(enrol(j.code(next)), "the code is wrong")
	j.says(enrol(next.Recovery[0]), "the code is wrong")
	j.submit(enrol(j.code(seed)))
	j.ahead.Add(30)
	j.says(j.with("alice", j.code(seed)), "the code is wrong")
	if answer := j.submit(j.with("alice", j.code(next))); answer.Grant == nil {
		t.Error("the new seed does not serve")
	}
}

// TestASeedThatTheLeaderCannotOpenIsSaidAndCountsAsNothing: a broker that the policy listed after the seed was sealed leads.
func TestASeedThatTheLeaderCannotOpenIsSaidAndCountsAsNothing(t *testing.T) {
	j := newJudging(t, withCodes)
	seed := j.enrol("alice")
	other, _ := forger.PrivateKey(t)
	j.server.identity = other
	before := j.index()
	for range broker.MaxFailures + 1 {
		j.says(j.with("alice", j.code(seed)), "the broker that leads cannot check alice's codes: the seed was not sealed to this broker")
	}
	fresh, err := totp.Generate(rand.Reader, "erin")
	j.must(err)
	j.says(j.enrolment("erin", fresh, j.server.now(), nil), "the new seed must be for every broker of the policy")
	if after := j.index(); after != before {
		t.Errorf("%d events of what was never judged", after-before)
	}
	j.server.identity = j.world.Identity
	if answer := j.submit(j.with("alice", j.code(seed))); answer.Grant == nil {
		t.Error("the codes were counted as wrong")
	}
}

// posted files a statement by a connection with a TLS key and headers of the caller's choosing.
func (j *judging) posted(key ed25519.PrivateKey, headers map[string]string, p statement.Proof) (int, string) {
	j.t.Helper()
	var own *tls.Certificate
	if key != nil {
		made, err := api.SelfSigned(rand.Reader, key)
		j.must(err)
		own = &made
	}
	transport := &http.Transport{TLSClientConfig: api.ClientTLS(api.ProtocolHTTP, []statement.Key{j.world.Chain.Current().Brokers["b1"].Identity}, own)}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(p)
	j.must(err)
	request, err := http.NewRequestWithContext(j.t.Context(), http.MethodPost, "https://"+j.address+"/v1/statements", bytes.NewReader(body))
	j.must(err)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	j.must(err)
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	j.must(err)
	return answer.StatusCode, string(said)
}

// TestThreatSourceIsNotWhatACallerSays claims to come from the role's network, as everybody who can connect.
func TestThreatSourceIsNotWhatACallerSays(t *testing.T) {
	j := newJudging(t, func(r *policy.Role) { r.Networks = []string{"192.0.2.0/24"} })
	stranger, _ := forger.PrivateKey(t)
	host := j.hosts["web1"]
	claims := map[string]string{api.HeaderPassed: "1", api.HeaderSource: "192.0.2.7"}
	for name, try := range map[string]struct {
		key     ed25519.PrivateKey
		headers map[string]string
		taken   bool
		from    string
	}{
		"nothing claimed":                    {nil, nil, false, "127.0.0.1"},
		"a person who claims it":             {nil, map[string]string{api.HeaderSource: "192.0.2.7"}, false, "127.0.0.1"},
		"a person who claims to be a broker": {nil, claims, false, "127.0.0.1"},
		"a person, as proxies say it":        {nil, map[string]string{"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7", "X-Real-IP": "192.0.2.7"}, false, "127.0.0.1"},
		"a stranger's key":                   {stranger, claims, false, "127.0.0.1"},
		"a host's key":                       {host, claims, false, "127.0.0.1"},
		"a broker, of itself":                {j.world.Identity, map[string]string{api.HeaderSource: "192.0.2.7"}, false, "127.0.0.1"},
		"a broker, of who is elsewhere":      {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "198.51.100.7"}, false, "198.51.100.7"},
		"a broker, of nobody":                {j.world.Identity, map[string]string{api.HeaderPassed: "1"}, false, ""},
		"a broker, in other words":           {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "192.0.2.7:80"}, false, ""},
		"a broker, of a scoped address":      {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "fe80::1%eth0"}, false, ""},
		"a broker that passes it on":         {j.world.Identity, claims, true, ""},
		"a broker, of a mapped address":      {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "::ffff:192.0.2.9"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := j.index()
			status, said := j.posted(try.key, try.headers, j.with("alice", ""))
			if (status == http.StatusOK) != try.taken {
				t.Fatalf("%d %s", status, said)
			}
			if try.taken {
				return
			}
			if refused := j.refusals(before); len(refused) != 1 || refused[0].Judged.Source != try.from || !strings.Contains(refused[0].Why, "192.0.2.0/24") {
				t.Errorf("the record says %+v", refused)
			}
		})
	}
}

// TestWhatIsPassedOnSaysWhereItCameFrom hands a request on as a follower does.
func TestWhatIsPassedOnSaysWhereItCameFrom(t *testing.T) {
	private, signer := forger.PrivateKey(t)
	own, err := api.SelfSigned(rand.Reader, private)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan http.Header, 1)
	leader := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard <- r.Header }))
	leader.TLS = api.ServerTLS(own, func() []statement.Key { return nil })
	leader.StartTLS()
	defer leader.Close()
	for from, want := range map[string]string{"192.0.2.7:4711": "192.0.2.7", "[2001:db8::1]:4711": "2001:db8::1", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[fe80::1%eth0]:1": "fe80::1", "@": ""} {
		r := httptest.NewRequest(http.MethodPost, "/v1/statements", nil)
		r.RemoteAddr = from
		r.Header.Add(api.HeaderSource, "10.0.0.1")
		r.Header.Add(strings.ToLower(api.HeaderSource), "10.0.0.2")
		calls := api.NewPeers(nil)
		_, err := calls.Pass(t.Context(), policy.Broker{Address: leader.Listener.Addr().String(), Identity: signtest.Public(signer)}, r, nil)
		calls.Close()
		if err != nil {
			t.Fatal(err)
		}
		if said := (<-heard).Values(api.HeaderSource); strings.Join(said, "|") != want {
			t.Errorf("from %s: it says %q", from, said)
		}
	}
}

// TestHoursAreHeldToTheMomentItBegins asks within hours and outside of them, for now and for later.
func TestHoursAreHeldToTheMomentItBegins(t *testing.T) {
	now := forger.Now().Std().UTC()
	minute := (int(now.Weekday())+6)%7*24*60 + now.Hour()*60 + now.Minute()
	begins := (minute + 120) % (7 * 24 * 60)
	j := newJudging(t, func(r *policy.Role) {
		r.Hours = &policy.Hours{Zone: "Etc/UTC", Weekly: []policy.Span{{From: begins, Until: min(begins+60, 7*24*60)}}}
	})
	j.says(j.with("alice", ""), "role web-deploy has its hours, and it is "+now.Format("Mon 15"))
	later := j.world.Ask("alice", "web-deploy", "web1", 60, j.world.People["alice"], func(r *statement.Request) {
		r.At = r.Created.Add(120*60 + 30)
		r.Expires = r.At + 60
	})
	if answer := j.submit(later); answer.Grant == nil {
		t.Error("a window within the hours is refused outside of them")
	}
}

// hooked is a stage whose web-deploy and db-admin ask a hook that says what it is told to.
type hooked struct {
	*judging
	says  atomic.Pointer[string] // what follows the evaluation
	asked atomic.Int32
	last  atomic.Pointer[judge.Evaluation]
}

func newHooked(t *testing.T) *hooked {
	h := &hooked{}
	key := forger.Key(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.asked.Add(1)
		var asked judge.Evaluation
		if err := json.UnmarshalRead(r.Body, &asked); err != nil {
			t.Error(err)
		}
		h.last.Store(&asked)
		body := fmt.Sprintf(`{"evaluation":%q,%s}`, asked.Evaluation, *h.says.Load())
		proof, err := statement.SignPayload(judge.KindHook, []byte(body), key)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set(judge.HeaderSignature, base64.StdEncoding.EncodeToString(proof.Signatures[0]))
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	h.judging = newJudging(t, func(r *policy.Role) {
		withCodes(r)
		r.Approvals, r.PlainKey = policy.Approvals{Count: 1, From: []policy.Name{"approvers"}}, false
		r.Hook = &policy.Hook{URL: server.URL, Key: signtest.Public(key)}
	})
	return h
}

func (h *hooked) say(words string) { h.says.Store(&words) }

// TestAHookRefusesOrDemandsMore has one refuse a request and a decision, and demand an approval more.
func TestAHookRefusesOrDemandsMore(t *testing.T) {
	h := newHooked(t)
	seed := h.enrol("alice")
	h.say(`"verdict":"refuse","why":"freeze"`)
	before := h.index()
	refused := h.with("alice", h.code(seed))
	h.judging.says(refused, "the hook of role web-deploy refuses (evaluation ")
	last := h.last.Load()
	if events := h.refusals(before); len(events) != 1 || events[0].Judged.Hook.Evaluation != last.Evaluation || !strings.Contains(events[0].Why, last.Evaluation+"): freeze") {
		t.Errorf("the record says %+v", events)
	}
	if last.Source != "127.0.0.1" || last.Person != "alice" || last.Role != "web-deploy" || last.Hosts[0] != "web1" || last.Statement.Hash() != refused.Hash() || last.Request != nil {
		t.Errorf("it was asked %+v", *last)
	}
	h.say(`"verdict":"demand","approvals":1`)
	h.ahead.Add(30)
	ask := h.with("alice", h.code(seed))
	h.submit(ask)
	h.say(`"verdict":"allow"`)
	if answer := h.submit(h.world.Approve("bob", ask, nil)); answer.Grant != nil {
		t.Error("one approval is enough, though the hook demanded one more")
	}
	if last = h.last.Load(); last.Person != "bob" || last.Request == nil || last.Request.Hash() != ask.Hash() {
		t.Errorf("it was asked %+v", *last)
	}
	h.say(`"verdict":"refuse"`)
	h.judging.says(h.world.Approve("carol", ask, nil), "the hook of role web-deploy refuses")
	h.say(`"verdict":"allow"`)
	if answer := h.submit(h.world.Approve("carol", ask, nil)); answer.Grant == nil {
		t.Error("two approvals are not enough")
	}
}

// TestThreatHookIsAskedOnlyAboutWhatAllElseHoldsFor: whoever cannot have the role does not have its hook called.
func TestThreatHookIsAskedOnlyAboutWhatAllElseHoldsFor(t *testing.T) {
	h := newHooked(t)
	seed := h.enrol("alice")
	h.say(`"verdict":"allow"`)
	h.judging.says(h.with("alice", h.wrong(seed)), "the code is wrong")
	h.judging.says(h.with("mallory", ""), "not eligible")
	h.judging.says(h.world.Ask("alice", "web-deploy", "web1", 365*24*3600, h.world.People["alice"], nil), "longest")
	stale := h.world.Ask("alice", "web-deploy", "web1", 60, h.world.People["alice"], func(r *statement.Request) {
		r.Created -= 600
		r.Code = h.code(seed)
	})
	h.refused(stale, broker.Expired)
	if n := h.asked.Load(); n != 0 {
		t.Errorf("the hook was asked %d times", n)
	}
	ask := h.with("alice", h.code(seed))
	for range 3 {
		h.submit(ask)
	}
	deny := h.world.Sign(statement.Decision{Head: h.world.Head(statement.KindDecision, "bob"), Request: ask.Hash(), Verdict: statement.Deny}, "bob")
	h.submit(deny)
	if n := h.asked.Load(); n != 1 {
		t.Errorf("the hook was asked %d times about one request", n)
	}
}

// TestAHookThatIsAwayRefuses, and whoever only ends something waits for nobody.
func TestAHookThatIsAwayRefuses(t *testing.T) {
	h := newHooked(t)
	seed := h.enrol("alice")
	silent := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-silent }))
	t.Cleanup(func() { close(silent); hang.Close() })
	h.revise(func(doc *policy.Document) {
		role := doc.Roles["web-deploy"]
		role.Hook = &policy.Hook{URL: hang.URL, Key: role.Hook.Key}
		roles := map[statement.RoleName]policy.Role{"web-deploy": role, "db-admin": doc.Roles["db-admin"], "root": doc.Roles["root"]}
		doc.Roles = roles
	})
	start := time.Now()
	h.judging.says(h.with("alice", h.code(seed)), "it did not answer")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it was waited for for %s", took)
	}
}
