package edge

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/edge/judge"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

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
