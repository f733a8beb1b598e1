package judge

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// service is a role's hook: answers says what it answers, and how.
type service struct {
	t      *testing.T
	key    ssh.Signer
	server *httptest.Server
	asked  atomic.Pointer[Evaluation]
}

func newService(t *testing.T, answers func(s *service, w http.ResponseWriter, asked Evaluation)) *service {
	s := &service{t: t, key: forger.Key(t)}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked Evaluation
		if err := json.UnmarshalRead(r.Body, &asked); err != nil || r.Method != http.MethodPost {
			t.Errorf("asked by %s: %v", r.Method, err)
		}
		s.asked.Store(&asked)
		answers(s, w, asked)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *service) hook() policy.Hook {
	return policy.Hook{URL: s.server.URL + "/ask", Key: signtest.Public(s.key)}
}

// sign answers with a body under a namespace.
func (s *service) sign(w http.ResponseWriter, kind statement.Kind, key ssh.Signer, body string) {
	proof, err := statement.SignPayload(kind, []byte(body), key)
	if err != nil {
		s.t.Error(err)
		return
	}
	w.Header().Add(HeaderSignature, base64.StdEncoding.EncodeToString(proof.Signatures[0]))
	fmt.Fprint(w, body)
}

// says answers rightly: words are what follows the evaluation.
func says(words string) func(*service, http.ResponseWriter, Evaluation) {
	return func(s *service, w http.ResponseWriter, asked Evaluation) {
		s.sign(w, KindHook, s.key, fmt.Sprintf(`{"evaluation":%q,%s}`, asked.Evaluation, words))
	}
}

func about(t *testing.T) Evaluation {
	world := forger.New(t, nil)
	return Evaluation{Statement: world.Ask("alice", "db-admin", "db1", 60, world.People["alice"], nil), Person: "alice", Role: "db-admin",
		Hosts: []statement.HostName{"db1"}, Source: "192.0.2.7"}
}

// TestAHooksWordIsTakenAsItIs has a hook allow, refuse and demand.
func TestAHooksWordIsTakenAsItIs(t *testing.T) {
	for name, try := range map[string]struct {
		words string
		want  broker.HookVerdict
	}{
		"it allows":          {`"verdict":"allow"`, broker.HookVerdict{}},
		"it allows, and why": {`"verdict":"allow","why":"INC-42 is open"`, broker.HookVerdict{Why: "INC-42 is open"}},
		"it refuses":         {`"verdict":"refuse","why":"freeze"`, broker.HookVerdict{Refused: true, Why: "freeze"}},
		"it demands two":     {`"verdict":"demand","approvals":2`, broker.HookVerdict{More: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			s, asked := newService(t, says(try.words)), about(t)
			got, err := NewHooks(rand.Reader).Ask(t.Context(), s.hook(), asked)
			if err != nil {
				t.Fatal(err)
			}
			heard := s.asked.Load()
			if try.want.Evaluation = heard.Evaluation; *got != try.want || len(got.Evaluation) != 32 {
				t.Errorf("got %+v, want %+v", *got, try.want)
			}
			asked.V, asked.Evaluation = 1, heard.Evaluation
			if fmt.Sprint(*heard) != fmt.Sprint(asked) {
				t.Errorf("it was asked %+v, want %+v", *heard, asked)
			}
		})
	}
}

// TestThreatHookEveryWrongAnswerRefuses gives each wrong answer once.
func TestThreatHookEveryWrongAnswerRefuses(t *testing.T) {
	allow := func(evaluation string) string { return fmt.Sprintf(`{"evaluation":%q,"verdict":"allow"}`, evaluation) }
	elsewhere := newService(t, says(`"verdict":"allow"`))
	for name, try := range map[string]struct {
		answers func(*service, http.ResponseWriter, Evaluation)
		why     string
	}{
		"unsigned": {func(s *service, w http.ResponseWriter, e Evaluation) { fmt.Fprint(w, allow(e.Evaluation)) }, "not signed"},
		"signed twice": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.Header().Add(HeaderSignature, "AAAA")
			s.sign(w, KindHook, s.key, allow(e.Evaluation))
		}, "not signed"},
		"signed with nothing": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.Header().Set(HeaderSignature, "")
			fmt.Fprint(w, allow(e.Evaluation))
		}, "does not hold"},
		"signed with no base64": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.Header().Set(HeaderSignature, "!")
			fmt.Fprint(w, allow(e.Evaluation))
		}, "base64"},
		"by another key": {func(s *service, w http.ResponseWriter, e Evaluation) {
			s.sign(w, KindHook, forger.Key(t), allow(e.Evaluation))
		}, "another key"},
		"for another purpose": {func(s *service, w http.ResponseWriter, e Evaluation) {
			s.sign(w, statement.KindDecision, s.key, allow(e.Evaluation))
		}, "does not hold"},
		"over other bytes": {func(s *service, w http.ResponseWriter, e Evaluation) {
			s.sign(w, KindHook, s.key, allow(e.Evaluation)[:40])
			fmt.Fprint(w, allow(e.Evaluation)[40:]+" ")
		}, "does not hold"},
		"to another evaluation": {func(s *service, w http.ResponseWriter, e Evaluation) {
			s.sign(w, KindHook, s.key, allow(strings.Repeat("0", 32)))
		}, "another evaluation"},
		"huge": {func(s *service, w http.ResponseWriter, e Evaluation) {
			s.sign(w, KindHook, s.key, allow(e.Evaluation)+strings.Repeat(" ", hookAnswer))
		}, "larger than"},
		"huge headers": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.Header().Set("X-Filler", strings.Repeat("x", 8*hookAnswer))
			s.sign(w, KindHook, s.key, allow(e.Evaluation))
		}, "did not answer"},
		"elsewhere": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.Header().Set("Location", elsewhere.server.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "answered 307"},
		"not found": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.WriteHeader(http.StatusNotFound)
			s.sign(w, KindHook, s.key, allow(e.Evaluation))
		}, "answered 404"},
		"broken off": {func(s *service, w http.ResponseWriter, e Evaluation) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, "did not answer"},
		"no JSON":                 {func(s *service, w http.ResponseWriter, e Evaluation) { s.sign(w, KindHook, s.key, "ok") }, "not understood"},
		"an unknown member":       {says(`"verdict":"allow","grant":true`), "not understood"},
		"two verdicts":            {says(`"verdict":"refuse","verdict":"allow"`), "not understood"},
		"an unknown verdict":      {says(`"verdict":"permit"`), "none that a hook may give"},
		"no verdict":              {says(`"why":"hm"`), "none that a hook may give"},
		"a demand of nothing":     {says(`"verdict":"demand"`), "none that a hook may give"},
		"a demand of too many":    {says(`"verdict":"demand","approvals":11`), "none that a hook may give"},
		"a demand of minus one":   {says(`"verdict":"demand","approvals":-1`), "none that a hook may give"},
		"allowing with approvals": {says(`"verdict":"allow","approvals":1`), "none that a hook may give"},
		"escapes in the reason":   {says(`"verdict":"allow","why":"\u001b[2J"`), "plain text"},
		"a long reason":           {says(`"verdict":"allow","why":"` + strings.Repeat("x", 201) + `"`), "plain text"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, try.answers)
			got, err := NewHooks(rand.Reader).Ask(t.Context(), s.hook(), about(t))
			if err == nil || got == nil || !got.Refused || got.More != 0 || !strings.Contains(got.Why, try.why) || len(got.Evaluation) != 32 {
				t.Errorf("got %+v, %v: want a refusal that says %q", got, err, try.why)
			}
		})
	}
	if elsewhere.asked.Load() != nil {
		t.Error("a redirect was followed")
	}
}

// TestThreatHookSilenceRefuses has hooks answer too late, slowly, and not at all.
func TestThreatHookSilenceRefuses(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"late": func(http.ResponseWriter) {},
		"a word, then silence": func(w http.ResponseWriter) {
			fmt.Fprint(w, "{")
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			s := newService(t, func(_ *service, w http.ResponseWriter, _ Evaluation) { begin(w); <-over })
			t.Cleanup(func() { close(over) })
			start := time.Now()
			got, err := NewHooks(rand.Reader).Ask(t.Context(), s.hook(), about(t))
			if err == nil || !got.Refused || got.Why != "it did not answer" {
				t.Errorf("got %+v, %v", got, err)
			}
			if took := time.Since(start); took > hookPatience+time.Second {
				t.Errorf("it was waited for for %s", took)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := newService(t, says(`"verdict":"allow"`))
		s.server.Close()
		got, err := NewHooks(rand.Reader).Ask(t.Context(), s.hook(), about(t))
		if err == nil || !got.Refused || got.Why != "it did not answer" {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// TestHooksTakeNoMoreThanTheirShare asks a silent hook until no more are asked: who comes then is told at once.
func TestHooksTakeNoMoreThanTheirShare(t *testing.T) {
	asked := make(chan struct{}, hooksAtOnce)
	over := make(chan struct{})
	s := newService(t, func(*service, http.ResponseWriter, Evaluation) { asked <- struct{}{}; <-over })
	hooks := NewHooks(rand.Reader)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, hooksAtOnce)
	question := about(t)
	for range hooksAtOnce {
		go func() { _, err := hooks.Ask(ctx, s.hook(), question); ended <- err }()
	}
	for range hooksAtOnce {
		<-asked
	}
	start := time.Now()
	got, err := hooks.Ask(ctx, s.hook(), question)
	if got != nil || broker.KindOf(err) != broker.Unavailable || time.Since(start) > time.Second {
		t.Errorf("one more gets %+v, %v after %s", got, err, time.Since(start))
	}
	cancel()
	close(over)
	for range hooksAtOnce {
		if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one ended with %v", err)
		}
	}
}
