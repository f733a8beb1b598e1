package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/totp"
	"pim-ssh/packaging/lab/forger"
)

// withCodes has web-deploy ask for a code.
func withCodes(doc *policy.Document) {
	role := doc.Roles["web-deploy"]
	role.Factors.Ask = policy.TOTP
	doc.Roles["web-deploy"] = role
}

// enrolFactor gives a person a seed that all three brokers open. Its first code is the step's before this one: this one's and
// the next one's are left to use.
func (r *trio) enrolFactor(person statement.Person) (totp.Seed, uint64) {
	r.t.Helper()
	seed, err := totp.Generate(rand.Reader, person)
	r.must(err)
	var keys []statement.Key
	for _, name := range r.names {
		keys = append(keys, r.world.Chain.Current().Brokers[name].Identity)
	}
	sealed, err := totp.Seal(seed, keys...)
	r.must(err)
	step := totp.StepAt(forger.Now())
	first, err := seed.Code(step - 1)
	r.must(err)
	_, err = r.as("").Submit(r.t.Context(), r.world.Sign(statement.Factor{Head: r.world.Head(statement.KindFactor, person), Action: statement.EnrolFactor,
		Sealed: sealed, First: first}, person))
	r.must(err)
	return seed, step
}

// with is a request of its own with a code.
func (r *trio) with(person statement.Person, code string) statement.Proof {
	return r.world.Ask(person, "web-deploy", "web1", 600, r.world.People[person], func(q *statement.Request) { q.Code = code })
}

// wrongCode is none that the seed gives for minutes.
func (r *trio) wrongCode(seed totp.Seed) string {
	r.t.Helper()
	for n := range 1000 {
		code, now, right := fmt.Sprintf("%06d", n), forger.Now(), false
		for later := range 20 {
			_, once := seed.Check(code, now.Add(statement.Seconds(30*later)))
			right = right || once
		}
		if !right {
			return code
		}
	}
	return ""
}

// restart kills all three at once and waits until they answer again.
func (r *trio) restart() {
	r.t.Helper()
	for _, name := range r.names {
		r.kill(name)
	}
	for _, name := range r.names {
		r.start(name)
	}
	r.within(20*time.Second, "all three again", func() bool {
		for _, name := range r.names {
			if _, err := r.at(name, "frank").Whoami(r.t.Context()); err != nil {
				return false
			}
		}
		return true
	})
}

// TestThreatMFAOneCodeSentToThreeBrokersIsTakenOnce sends each code in three statements, one to each broker, at the same moment;
// and one statement to all three, which counts once and is answered alike.
func TestThreatMFAOneCodeSentToThreeBrokersIsTakenOnce(t *testing.T) {
	r := newTrioUnder(t, withCodes)
	seed, step := r.enrolFactor("alice")
	this, err := seed.Code(step)
	r.must(err)
	next, err := seed.Code(step + 1)
	r.must(err)
	for _, code := range append([]string{this, next}, seed.Recovery[:6]...) {
		answers := r.atOnce(r.with("alice", code), r.with("alice", code), r.with("alice", code))
		taken := 0
		for _, one := range answers {
			if one.err == nil {
				taken++
			} else if !strings.Contains(one.err.Error(), "used before") {
				t.Errorf("code %s: %v", code, one.err)
			}
		}
		if taken != 1 {
			t.Errorf("code %s was taken %d times", code, taken)
		}
	}
	same := r.with("alice", seed.Recovery[8])
	for _, one := range r.atOnce(same, same, same) {
		if one.err != nil || one.answer.Index == 0 || one.answer.Request != broker.StemOf(same.Hash()).Request() {
			t.Errorf("one statement sent three times: %+v, %v", one.answer, one.err)
		}
	}
	filed := 0
	for _, event := range r.log("") {
		if request, is := event.(*broker.RequestFiled); is && request.Proof.Hash() == same.Hash() {
			filed++
		}
	}
	if filed != 1 {
		t.Errorf("it was filed %d times", filed)
	}
}

// told is what one broker said.
type told struct {
	answer api.Answer
	err    error
}

// atOnce files three statements, one at each broker, at the same moment.
func (r *trio) atOnce(proofs ...statement.Proof) []told {
	r.t.Helper()
	all := make([]told, len(proofs))
	begin := make(chan struct{})
	var filing sync.WaitGroup
	for i, p := range proofs {
		client := r.at(r.names[i], "")
		filing.Go(func() {
			<-begin
			all[i].answer, all[i].err = client.Submit(r.t.Context(), p)
		})
	}
	close(begin)
	filing.Wait()
	return all
}

// TestThreatMFALockoutHoldsAcrossBrokersAndRestarts guesses at each broker in turn, with all of them killed in between; and
// somebody else's guesses lock nobody out but them.
func TestThreatMFALockoutHoldsAcrossBrokersAndRestarts(t *testing.T) {
	r := newTrioUnder(t, withCodes)
	seed, _ := r.enrolFactor("alice")
	erins, _ := r.enrolFactor("erin")
	tries := func(name statement.BrokerName, p statement.Proof, words string) {
		t.Helper()
		if _, err := r.at(name, "").Submit(t.Context(), p); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("at %s: got %v, want %q", name, err, words)
		}
	}
	for i := range 10 {
		words := "the code is wrong"
		if i >= broker.MaxFailures {
			words = "locked until"
		}
		tries(r.names[i%3], r.with("erin", r.wrongCode(erins)), words)
		if i == 1 || i == 3 || i == 6 {
			r.restart()
		}
	}
	tries("b2", r.with("erin", erins.Recovery[0]), "locked until")
	r.restart()
	step := totp.StepAt(forger.Now())
	right, err := erins.Code(step)
	r.must(err)
	tries("b3", r.with("erin", right), "locked until")
	who, err := r.at("b1", "erin").Whoami(t.Context())
	r.must(err)
	if !who.Factor.Enrolled || who.Factor.LockedUntil < forger.Now() {
		t.Errorf("whoami says %+v", who.Factor)
	}
	right, err = seed.Code(totp.StepAt(forger.Now()) + 1)
	r.must(err)
	if answer, err := r.at("b2", "").Submit(t.Context(), r.with("alice", right)); err != nil || answer.Grant == nil {
		t.Errorf("alice is locked out by erin's guesses: %v", err)
	}
	for _, name := range r.names {
		r.within(10*time.Second, "the alarm in the journal of "+string(name), func() bool {
			return strings.Contains(r.all[name].said.String(), `codes are locked" person=erin`)
		})
	}
}

// TestThreatMFARecoveryCodesServeOnceAtAnyBroker uses each at one broker and shows it again at the next, after restarts too.
func TestThreatMFARecoveryCodesServeOnceAtAnyBroker(t *testing.T) {
	r := newTrioUnder(t, withCodes)
	seed, _ := r.enrolFactor("alice")
	for i, code := range seed.Recovery[:4] {
		if answer, err := r.at(r.names[i%3], "").Submit(t.Context(), r.with("alice", code)); err != nil || answer.Grant == nil {
			t.Fatalf("recovery code %d: %v", i+1, err)
		}
		if i == 2 {
			r.restart()
		}
		for _, name := range r.names {
			if _, err := r.at(name, "").Submit(t.Context(), r.with("alice", code)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("recovery code %d was used before", i+1)) {
				t.Errorf("%s takes recovery code %d again: %v", name, i+1, err)
			}
		}
	}
}

// forging puts headers of its own into every request.
type forging struct {
	headers map[string]string
	through http.RoundTripper
}

// RoundTrip sends a request with them.
func (f forging) RoundTrip(r *http.Request) (*http.Response, error) {
	for name, value := range f.headers {
		r.Header.Set(name, value)
	}
	return f.through.RoundTrip(r)
}

// TestThreatSourceIsTheConnectionsAtEveryBroker asks every broker for a role of this machine's network, and for one of another
// network with headers that claim it: at a follower, which passes the request on, as at the leader.
func TestThreatSourceIsTheConnectionsAtEveryBroker(t *testing.T) {
	r := newTrioUnder(t, func(doc *policy.Document) {
		role := doc.Roles["web-deploy"]
		role.Networks = []string{"127.0.0.0/8"}
		doc.Roles["web-deploy"] = role
		role.Networks = []string{"192.0.2.0/24"}
		doc.Roles["far"] = role
	})
	for _, name := range r.names {
		if answer, err := r.at(name, "").Submit(t.Context(), r.ask("alice")); err != nil || answer.Grant == nil {
			t.Errorf("at %s: %v", name, err)
		}
		transport := &http.Transport{TLSClientConfig: api.ClientTLS(api.ProtocolHTTP, []statement.Key{r.world.Chain.Current().Brokers[name].Identity}, nil)}
		client := http.Client{Transport: forging{map[string]string{api.HeaderSource: "192.0.2.7", "X-Forwarded-For": "192.0.2.7"}, transport}}
		body, err := json.Marshal(r.world.Ask("alice", "far", "web1", 600, r.world.People["alice"], nil))
		r.must(err)
		answer, err := client.Post("https://"+r.all[name].address+"/v1/statements", "application/json", strings.NewReader(string(body)))
		r.must(err)
		answer.Body.Close()
		transport.CloseIdleConnections()
		if answer.StatusCode == http.StatusOK {
			t.Errorf("%s believes what a caller says of itself", name)
		}
	}
	refused := 0
	for _, event := range r.log("") {
		if e, is := event.(*broker.StatementRefused); is {
			refused++
			if e.Judged.Source != "127.0.0.1" || !strings.Contains(e.Why, "192.0.2.0/24") {
				t.Errorf("the record says from %q: %s", e.Judged.Source, e.Why)
			}
		}
	}
	if refused != len(r.names) {
		t.Errorf("%d refusals on the record", refused)
	}
}
