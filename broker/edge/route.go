package edge

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
)

var errNoRoute = broker.Refuse(broker.Missing, "see pim-ssh --help", "no such route")

// guarded is one route with what holds for all of them: method, query and size are checked before its handler runs.
type guarded struct {
	server *Server
	route  api.Route
	handle handler
}

// ServeHTTP answers one request.
func (g guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := g.check(r); err != nil {
		answerError(w, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, g.route.MaxBody)
	answer, err := g.handle(w, r)
	switch {
	case err != nil:
		g.server.note(r, err)
		answerError(w, err)
	case answer != nil:
		g.server.note(r, answerWith(w, http.StatusOK, answer))
	}
}

func (g guarded) check(r *http.Request) error {
	if g.handle == nil || g.route.Who == api.Nobody || r.Method != g.route.Method {
		return errNoRoute
	}
	if r.ContentLength > g.route.MaxBody || g.route.MaxBody == 0 && r.ContentLength != 0 {
		return broker.Refuse(broker.Invalid, "", "the body of %s %s is larger than %d bytes", g.route.Method, g.route.Path, g.route.MaxBody)
	}
	return g.checkQuery(r.URL.RawQuery)
}

// checkQuery takes only parameters the route names, each once, in their one spelling.
func (g guarded) checkQuery(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil || strings.ContainsAny(raw, "%+") {
		return broker.Refuse(broker.Invalid, "", "the query is not plain")
	}
	for name, given := range values {
		if !slices.Contains(g.route.Query, name) || len(given) != 1 {
			return broker.Refuse(broker.Invalid, "", "%s takes no such query", g.route.Path)
		}
	}
	return nil
}

// note logs what the caller is not told.
func (s *Server) note(r *http.Request, err error) {
	if err != nil && (broker.KindOf(err) == "" || broker.KindOf(err) == broker.Unavailable) {
		s.log.Warn("request not answered", "method", r.Method, "path", r.URL.Path, "error", err)
	}
}

func answerError(w http.ResponseWriter, err error) {
	status, problem := api.ProblemOf(err)
	_ = answerWith(w, status, problem) // the connection is gone: nobody is left to tell
}

func answerWith(w http.ResponseWriter, status int, body any) error {
	var encoded bytes.Buffer
	if err := json.MarshalWrite(&encoded, body, json.Deterministic(true)); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return fmt.Errorf("answer: %w", err)
	}
	encoded.WriteByte('\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := w.Write(encoded.Bytes())
	return err
}
