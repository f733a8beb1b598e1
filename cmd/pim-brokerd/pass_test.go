package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// TestAFollowersAnswerIsTheLeadersOwn files the same refused statements at a follower and at the leader.
func TestAFollowersAnswerIsTheLeadersOwn(t *testing.T) {
	r := newTrio(t)
	stranger := forger.New(t, nil)
	leader, follower := r.at(r.leader(), ""), r.at(r.follower(), "")
	for name, try := range map[string]struct {
		proof statement.Proof
		kind  broker.Kind
	}{
		"a stranger's request":                   {stranger.Ask("alice", "web-deploy", "web1", 60, stranger.People["alice"], nil), broker.Denied},
		"a request for a host that is not there": {r.world.Ask("alice", "web-deploy", "web9", 60, r.world.People["alice"], nil), broker.Missing},
	} {
		_, first := follower.Submit(t.Context(), try.proof)
		_, second := leader.Submit(t.Context(), try.proof)
		if broker.KindOf(first) != try.kind || broker.KindOf(second) != try.kind || first.Error() != second.Error() {
			t.Errorf("%s: the follower says %v, the leader %v", name, first, second)
		}
	}
}

// TestWhatWasPassedOnIsNotPassedOnAgain sends a follower a request that says it was passed on already.
func TestWhatWasPassedOnIsNotPassedOnAgain(t *testing.T) {
	r := newTrio(t)
	follower := r.follower()
	body, err := json.Marshal(r.ask("alice"))
	r.must(err)
	request := httptest.NewRequest(http.MethodPost, "/v1/statements", bytes.NewReader(body))
	answer, err := r.ownTLS(r.leader()).Pass(t.Context(), r.world.Chain.Current().Brokers[follower], request, body)
	r.must(err)
	if answer.Status() != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503: the sender is to look for the leader again", answer.Status())
	}
}
