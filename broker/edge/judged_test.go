package edge

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	_ "time/tzdata"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
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
	as := statement.Factor{Head: j.world.Head(statement.KindFactor, "alice"), Action: statement.EnrolFactor, Sealed: []byte("nothing that opens"), First: "123456"}
	j.says(j.world.Sign(as, "mallory"), "is not theirs")
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
	later := New(Config{Cluster: j.node, CA: j.world.CA, Seeds: other, Member: alone{j.node}, Now: j.server.now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	says := func(p statement.Proof, words string) {
		t.Helper()
		body, err := json.Marshal(p)
		j.must(err)
		answer := httptest.NewRecorder()
		later.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/v1/statements", bytes.NewReader(body)))
		if answer.Code == http.StatusOK || !strings.Contains(answer.Body.String(), words) {
			t.Errorf("got %d %s, want %q", answer.Code, answer.Body, words)
		}
	}
	before := j.index()
	for range broker.MaxFailures + 1 {
		says(j.with("alice", j.code(seed)), "the broker that leads cannot check alice's codes: the seed was not sealed to this broker")
	}
	fresh, err := totp.Generate(rand.Reader, "erin")
	j.must(err)
	says(j.enrolment("erin", fresh, j.server.now(), nil), "the new seed must be for every broker of the policy")
	if after := j.index(); after != before {
		t.Errorf("%d events of what was never judged", after-before)
	}
	if answer := j.submit(j.with("alice", j.code(seed))); answer.Grant == nil {
		t.Error("the codes were counted as wrong")
	}
}

// TestApproversProveThemselvesToo has one approve without a code, with somebody else's, and with their own.
func TestApproversProveThemselvesToo(t *testing.T) {
	j := newJudging(t, func(r *policy.Role) {
		r.Approvals, r.PlainKey, r.Factors.Approve = policy.Approvals{Count: 1, From: []policy.Name{"approvers"}}, false, policy.TOTP
	})
	bobs, carols := j.enrol("bob"), j.enrol("carol")
	ask := j.with("alice", "")
	j.submit(ask)
	yes := func(code string) statement.Proof {
		return j.world.Approve("bob", ask, func(d *statement.Decision) { d.Code = code })
	}
	j.says(yes(""), "a code is needed")
	j.says(yes(j.code(carols)), "the code is wrong")
	if answer := j.submit(yes(j.code(bobs))); answer.Grant == nil {
		t.Error("no grant")
	}
	other := j.with("erin", "")
	j.submit(other)
	j.submit(j.world.Sign(statement.Decision{Head: j.world.Head(statement.KindDecision, "carol"), Request: other.Hash(), Verdict: statement.Deny}, "carol"))
}

// TestNothingIsJudgedUnderOlderRules: brokers that know no others would not read such a command.
func TestNothingIsJudgedUnderOlderRules(t *testing.T) {
	world := forger.New(t, func(doc *policy.Document) {
		doc.V = 1
		role := doc.Roles["web-deploy"]
		role.PlainKey = false
		doc.Roles["web-deploy"] = role
	})
	ask := world.Ask("alice", "web-deploy", "web1", 60, world.People["alice"], nil)
	opened, err := statement.Open(ask)
	if err != nil {
		t.Fatal(err)
	}
	for rules, judged := range map[int]bool{1: false, 2: false, 3: true} {
		state := broker.NewState()
		command, err := broker.CommandFor(world.Chain.Proofs()[0], forger.Now())
		if err != nil {
			t.Fatal(err)
		}
		command.Rules = rules
		decided, err := broker.Decide(state, command)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range decided.Events {
			broker.Evolve(state, event)
		}
		s := New(Config{Now: forger.Now})
		if q := s.asks(state, ask, opened.Body, opened.Signers[0].Key); (q != nil) != judged || state.Rules() != rules {
			t.Errorf("under rules %d: %+v", state.Rules(), q)
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
