package edge

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// hire adds people to a policy: each needs about 120 bytes.
func hire(s *stage, n int) func(*policy.Document) {
	return func(doc *policy.Document) {
		for i := range n {
			seed := make([]byte, ed25519.SeedSize)
			copy(seed, fmt.Sprint("hired ", i))
			signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
			s.must(err)
			name := statement.Person(fmt.Sprintf("p%04d", i))
			doc.People[name] = policy.PersonEntry{Account: statement.Account(name), Keys: []statement.Key{signtest.Public(signer)}}
		}
	}
}

// TestALargePolicyIsAdopted files one that Draft lets through and that is larger than any other statement may be.
func TestALargePolicyIsAdopted(t *testing.T) {
	s := newStage(t, nil, nil)
	s.revise(hire(s, 2000))
	if size := len(s.world.Chain.Proofs()[1].Payload); size <= statement.MaxPayload*2 {
		t.Fatalf("the policy has only %d bytes", size)
	}
	policies, err := s.as("").Policies(t.Context(), 1)
	s.must(err)
	if len(policies) != 1 || policies[0].Hash() != s.world.Chain.Ref().Hash {
		t.Errorf("%d revisions after the first", len(policies))
	}
	if _, err := s.as("alice").Whoami(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestThreatAStrangersLargePolicyCostsLittle signs one as nobody: it is refused before the cluster is asked, and one with
// more signatures than there are stewards before any of them is looked at. Other statements go on meanwhile.
func TestThreatAStrangersLargePolicyCostsLittle(t *testing.T) {
	s := newStage(t, nil, nil)
	current := s.world.Chain.Current()
	doc := s.world.Chain.Next(*current, current.Expires)
	hire(s, 2000)(&doc)
	payload, err := policy.Draft(doc)
	s.must(err)
	foreign, err := statement.SignPayload(statement.KindPolicy, payload, s.world.People["mallory"])
	s.must(err)
	before := s.index()
	if _, err := s.as("").Submit(t.Context(), foreign); broker.KindOf(err) != broker.Denied {
		t.Errorf("signed by mallory: %v", err)
	}
	garbage := make([][]byte, 0, statement.MaxSignatures)
	for i := range cap(garbage) {
		garbage = append(garbage, []byte(strings.Repeat("x", i+1)))
	}
	if _, err := s.as("").Submit(t.Context(), statement.Proof{Payload: payload, Signatures: garbage}); broker.KindOf(err) != broker.Denied {
		t.Errorf("with %d signatures: %v", len(garbage), err)
	}
	if s.index() != before {
		t.Error("it was filed")
	}
}

// TestThreatLargeBodiesTakeTurns has every place for a large body taken by somebody slow.
func TestThreatLargeBodiesTakeTurns(t *testing.T) {
	s := newStage(t, nil, func(server *Server, _ *Front) { server.slotWait = 50 * time.Millisecond })
	for range cap(s.server.large) {
		s.server.large <- struct{}{}
	}
	if status, said := s.raw("POST", "/v1/statements", nil, strings.NewReader(strings.Repeat("x", api.MaxStatementBody+1))); status != 503 {
		t.Errorf("one more: %d %s", status, said)
	}
	ask := s.world.Ask("alice", "web-deploy", "web1", 60, s.world.People["alice"], nil)
	s.submit(ask)
}

// widest is an answer of which only the largest piece is known.
type widest struct {
	header http.Header
	piece  int
}

func (w *widest) Header() http.Header { return w.header }
func (w *widest) WriteHeader(int)     {}
func (w *widest) Write(b []byte) (int, error) {
	w.piece = max(w.piece, len(b))
	return len(b), nil
}

// TestThreatNoStrangerHasTheChainCopied asks for the chain as anybody may, as slow readers by the thousand would: what is
// held for each is one revision, not all there ever were.
func TestThreatNoStrangerHasTheChainCopied(t *testing.T) {
	s := newStage(t, nil, nil)
	largest := 0
	for range 10 {
		s.revise(hire(s, 100))
		largest = max(largest, len(s.world.Chain.Proofs()[s.world.Chain.Ref().Revision-1].Payload))
	}
	w := &widest{header: http.Header{}}
	request := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/policy", nil)
	s.server.ServeHTTP(w, request)
	if w.piece > 2*largest {
		t.Errorf("the answer holds %d bytes at once; the largest revision has %d", w.piece, largest)
	}
	policies, err := s.as("").Policies(t.Context(), 0)
	s.must(err)
	if len(policies) != 11 {
		t.Errorf("%d revisions", len(policies))
	}
}
