package edge

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// raw sends one HTTP request as written and returns status and body.
func (s *stage) raw(method, target string, header http.Header, body io.Reader) (int, string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.address, body)
	s.must(err)
	request.URL.Opaque = target // sent as written, never cleaned
	if header != nil {
		request.Header = header
	}
	pins := []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: api.ClientTLS(api.ProtocolHTTP, pins, nil)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	s.must(err)
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	s.must(err)
	return response.StatusCode, string(said)
}

// TestWrongBodiesAreRefusedAndOnlyCounted posts what no signer meant. None leaves an event.
func TestWrongBodiesAreRefusedAndOnlyCounted(t *testing.T) {
	s := newStage(t, nil, nil)
	good, err := json.Marshal(s.world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil))
	s.must(err)
	respelt := s.world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil)
	respelt.Payload = append([]byte(" "), respelt.Payload...)
	spaced, err := json.Marshal(respelt)
	s.must(err)
	read, err := json.Marshal(s.world.Sign(statement.Read{Head: short(s.world.Head(statement.KindRead, "alice")), Method: "GET", PathAndQuery: "/v1/whoami",
		BodySHA256: statement.HashOf(nil)}, "alice"))
	s.must(err)
	before, rubbish := s.index(), s.server.Rubbish()
	wrong := map[string]string{
		"nothing":                         "",
		"no JSON":                         "statement",
		"an array":                        "[]",
		"null":                            "null",
		"a number":                        "1",
		"an empty object":                 "{}",
		"an unknown field":                strings.Replace(string(good), `{"payload"`, `{"extra":1,"payload"`, 1),
		"a doubled field":                 strings.Replace(string(good), `{"payload"`, `{"payload":"","payload"`, 1),
		"a case variant of a field":       strings.Replace(string(good), `"payload"`, `"Payload"`, 1),
		"trailing data":                   string(good) + "{}",
		"two statements":                  string(good) + string(good),
		"invalid UTF-8":                   strings.Replace(string(good), `"payload"`, "\"payl\xffad\"", 1),
		"base64 that is not standard":     strings.Replace(string(good), `"payload":"`, `"payload":"-_`, 1),
		"a payload that is spelt anew":    string(spaced),
		"a signature over something else": strings.Replace(string(good), `"payload":"`, `"payload":"AAAA`, 1),
		"no signatures":                   string(good[:bytes.Index(good, []byte(`,"signatures"`))]) + `,"signatures":[]}`,
		"the same signature twice":        double(string(good)),
		"a read, which nobody files":      string(read),
		"deep nesting":                    strings.Repeat("[", 10_000),
	}
	for name, body := range wrong {
		t.Run(name, func(t *testing.T) {
			status, said := s.raw(http.MethodPost, "/v1/statements", nil, strings.NewReader(body))
			if status != http.StatusBadRequest || !strings.Contains(said, `"kind":"invalid"`) {
				t.Errorf("%d %s", status, said)
			}
		})
	}
	if s.index() != before {
		t.Errorf("%d events came of it", s.index()-before)
	}
	if counted := s.server.Rubbish() - rubbish; counted != uint64(len(wrong)) {
		t.Errorf("%d of %d were counted", counted, len(wrong))
	}
	if status, said := s.raw(http.MethodPost, "/v1/statements", nil, bytes.NewReader(good)); status != http.StatusOK {
		t.Errorf("the unspoilt statement: %d %s", status, said)
	}
}

func double(body string) string {
	at := strings.Index(body, `"signatures":[`) + len(`"signatures":[`)
	one := strings.TrimSuffix(body[at:], "]}")
	return body[:at] + one + "," + one + "]}"
}

func short(head statement.Head) statement.Head {
	head.NotAfter = head.Created + api.ReadLife
	return head
}

// TestEveryRouteHasOneSpelling asks for the same things in other words.
func TestEveryRouteHasOneSpelling(t *testing.T) {
	s := newStage(t, nil, nil)
	for name, ask := range map[string]struct {
		method, target string
		status         int
	}{
		"as listed":                 {"GET", "/v1/policy?after=0", 200},
		"without its query":         {"GET", "/v1/policy", 200},
		"HEAD for GET":              {"HEAD", "/v1/policy", 404},
		"POST for GET":              {"POST", "/v1/policy", 404},
		"GET for POST":              {"GET", "/v1/statements", 404},
		"a trailing slash":          {"GET", "/v1/policy/", 404},
		"a doubled slash":           {"GET", "/v1//policy", 404},
		"a dot segment":             {"GET", "/v1/./policy", 404},
		"a climbing segment":        {"GET", "/v1/x/../policy", 404},
		"an escaped letter":         {"GET", "/v1/%70olicy", 404},
		"an escaped slash":          {"GET", "/v1%2fpolicy", 404},
		"other case":                {"GET", "/v1/Policy", 404},
		"another version":           {"GET", "/v2/policy", 404},
		"nothing":                   {"GET", "/", 404},
		"an unlisted route":         {"GET", "/v1/enrol", 404},
		"debugging":                 {"GET", "/debug/pprof/", 404},
		"an unknown query":          {"GET", "/v1/policy?revision=1", 400},
		"the same query twice":      {"GET", "/v1/policy?after=0&after=1", 400},
		"an escaped query":          {"GET", "/v1/policy?after=%30", 400},
		"a query that is no number": {"GET", "/v1/policy?after=x", 400},
		"a padded number":           {"GET", "/v1/policy?after=00", 400},
		"a negative number":         {"GET", "/v1/policy?after=-1", 400},
		"a semicolon":               {"GET", "/v1/policy?after=0;x=1", 400},
	} {
		t.Run(name, func(t *testing.T) {
			if status, said := s.raw(ask.method, ask.target, nil, nil); status != ask.status {
				t.Errorf("%d %s, want %d", status, said, ask.status)
			}
		})
	}
	if status, _ := s.raw(http.MethodGet, "/v1/policy", nil, strings.NewReader("body")); status != http.StatusBadRequest {
		t.Errorf("a body on a read: %d", status)
	}
}

// TestAStatementCountsOnce files the same bytes often, and with another, equally valid envelope.
func TestAStatementCountsOnce(t *testing.T) {
	s := newStage(t, nil, nil)
	ask := s.world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil)
	first := s.submit(ask)
	after := s.index()
	answers := make(chan string, 16)
	for range cap(answers) {
		go func() {
			answer, err := s.as("").Submit(t.Context(), ask)
			answers <- fmt.Sprintf("%d %s %s %v", answer.Index, answer.Request, *answer.Grant, err)
		}()
	}
	want := fmt.Sprintf("%d %s %s <nil>", first.Index, first.Request, *first.Grant)
	for range cap(answers) {
		if got := <-answers; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if s.index() != after {
		t.Errorf("%d more events", s.index()-after)
	}
}
