package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// pretend is a TLS server that holds a broker's key and answers as a test says: a broker in an attacker's hands.
type pretend struct {
	t       *testing.T
	address string
	key     statement.Key
}

func newPretend(t *testing.T, answer http.HandlerFunc) pretend {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, err := SelfSigned(rand.Reader, private)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", ServerTLS(own, func() []statement.Key { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	shown, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := statement.KeyOf(shown)
	if err != nil {
		t.Fatal(err)
	}
	return pretend{t, listener.Addr().String(), key}
}

// of is a policy with these brokers, in this order.
func of(brokers ...pretend) *policy.Document {
	doc := &policy.Document{Brokers: map[statement.BrokerName]policy.Broker{}}
	for i, b := range brokers {
		doc.Brokers[statement.BrokerName(fmt.Sprintf("b%d", i+1))] = policy.Broker{Address: b.address, Identity: b.key}
	}
	return doc
}

func client(t *testing.T, config Config) *Client {
	t.Helper()
	c, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func saying(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// TestAClientGoesFromBrokerToBroker puts a dead, a foreign and an unavailable broker before one that answers.
func TestAClientGoesFromBrokerToBroker(t *testing.T) {
	t.Parallel() // it waits
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	good := newPretend(t, saying(200, `{"policies":[]}`))
	dead := pretend{t, closed.Addr().String(), good.key}
	foreign := newPretend(t, saying(200, `{"policies":[]}`))
	foreign.key = good.key
	busy := newPretend(t, saying(503, `{"kind":"unavailable","message":"no leader","hint":""}`))
	if _, err := client(t, Config{Policy: of(dead, foreign, busy, good)}).Policies(t.Context(), 0); err != nil {
		t.Errorf("with one that answers: %v", err)
	}
	_, err = client(t, Config{Policy: of(dead, foreign, busy)}).Policies(t.Context(), 0)
	if broker.KindOf(err) != broker.Unavailable {
		t.Errorf("with none that answers: %v", err)
	}
}

// TestARefusalStands has the first broker refuse; the second must never be asked.
func TestARefusalStands(t *testing.T) {
	no := newPretend(t, saying(403, `{"kind":"denied","message":"no","hint":"ask"}`))
	yes := newPretend(t, func(http.ResponseWriter, *http.Request) { t.Error("the next broker was asked") })
	_, err := client(t, Config{Policy: of(no, yes)}).Policies(t.Context(), 0)
	if broker.KindOf(err) != broker.Denied {
		t.Errorf("got %v, want denied", err)
	}
}

// TestAnAddressOverrideKeepsThePins dials elsewhere; only a broker of the policy is believed there.
func TestAnAddressOverrideKeepsThePins(t *testing.T) {
	real := newPretend(t, saying(200, `{"policies":[]}`))
	other := newPretend(t, saying(200, `{"policies":[]}`))
	if _, err := client(t, Config{Policy: of(pretend{t, "b1.invalid:7443", real.key}), Address: real.address}).Policies(t.Context(), 0); err != nil {
		t.Errorf("the real broker under another address: %v", err)
	}
	if _, err := client(t, Config{Policy: of(real), Address: other.address}).Policies(t.Context(), 0); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("another broker under that address: %v", err)
	}
}

// TestHostileAnswersAreErrors has an owned broker answer nonsense. None may panic, be followed or be taken for success.
func TestHostileAnswersAreErrors(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"nothing":          saying(200, ""),
		"no JSON":          saying(200, "<html>"),
		"an unknown field": saying(200, `{"policies":[],"extra":1}`),
		"trailing data":    saying(200, `{"policies":[]}{}`),
		"another status":   saying(204, ""),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		},
		"an error without words":   saying(500, ""),
		"an error of another kind": saying(403, `{"kind":"unavailable","message":"","hint":""}`),
		"an error of no kind":      saying(418, `{"kind":"teapot","message":"","hint":""}`),
		"an answer that breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		},
		"a gzip bomb nobody asked for": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "\x1f\x8b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := client(t, Config{Policy: of(newPretend(t, answer))}).Policies(t.Context(), 0); err == nil {
				t.Errorf("it was taken for %v", got)
			}
		})
	}
}

// TestHostileStreamsEnd reads frames that an owned broker made up.
func TestHostileStreamsEnd(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":             "",
		"half a line":         `{"beat":"2026-11-23T08:00:00Z"`,
		"no JSON":             "beat\n",
		"an unknown field":    `{"beat":"2026-11-23T08:00:00Z","grant":"root"}` + "\n",
		"a line without end":  strings.Repeat("x", MaxFrame+2),
		"an empty frame":      "{}\n",
		"a checkpoint alone":  `{"index":1,"checkpoint":"pim-ssh/"}` + "\n",
		"a checkpoint astray": `{"event":{},"checkpoint":"pim-ssh/"}` + "\n",
		"two things at once":  `{"index":1,"event":{},"beat":"2026-11-23T08:00:00Z"}` + "\n",
		"a negative position": `{"index":-1,"beat":"2026-11-23T08:00:00Z"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := client(t, Config{Policy: of(newPretend(t, saying(200, body)))}).Watch(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if frame, err := stream.Next(); err == nil {
				t.Errorf("it was taken for %+v", frame)
			}
		})
	}
}

// TestAStreamThatFallsSilentIsDead waits for the client's patience; Close ends a wait at once.
func TestAStreamThatFallsSilentIsDead(t *testing.T) {
	t.Parallel() // it waits
	silentFor := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	c := client(t, Config{Policy: of(newPretend(t, silentFor))})
	stream, err := c.Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := stream.Next(); ended <- err }()
	closing, err := c.Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { _, err := closing.Next(); closed <- err }()
	closing.Close()
	for what, wait := range map[string]struct {
		on    chan error
		limit time.Duration
	}{"closed": {closed, 2 * time.Second}, "silent": {ended, silence + 5*time.Second}} {
		select {
		case err := <-wait.on:
			if broker.KindOf(err) != broker.Unavailable {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(wait.limit):
			t.Errorf("%s: still waiting", what)
		}
	}
}

// TestThreatAHostileBrokerCannotFloodTheTerminal has a broker refuse at great length.
func TestThreatAHostileBrokerCannotFloodTheTerminal(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	p := newPretend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind":"denied","message":%q,"hint":%q}`, long, long)
	})
	client, err := NewClient(Config{Policy: of(p)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Policies(t.Context(), 0)
	var told *broker.Error
	if !errors.As(err, &told) || told.Kind != broker.Denied {
		t.Fatalf("%.100v", err)
	}
	for what, text := range map[string]string{"message": told.Msg, "hint": told.Hint} {
		if len(text) > maxWords+len("…") || !utf8.ValidString(text) || !strings.HasSuffix(text, "é…") {
			t.Errorf("the %s has %d bytes and ends with %q", what, len(text), text[max(0, len(text)-8):])
		}
	}
}

// TestAnAnswerThatBreaksOffIsNotPassedOn has the broker that leads die in the middle of its answer: a broker that passed the
// request on must not make a success of it.
func TestAnAnswerThatBreaksOffIsNotPassedOn(t *testing.T) {
	dying := newPretend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, `{"index":1`)
	})
	request := httptest.NewRequest(http.MethodPost, "/v1/statements", nil)
	calls := NewPeers(nil)
	defer calls.Close()
	answer, err := calls.Pass(t.Context(), policy.Broker{Address: dying.address, Identity: dying.key}, request, []byte("{}"))
	if err == nil {
		t.Errorf("it was taken for an answer of status %d", answer.Status())
	}
}
