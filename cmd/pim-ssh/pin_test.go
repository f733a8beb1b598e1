package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// TestKeptChainNeverGoesBack: two programs of one person walk at once, and the one that saw less writes last.
func TestKeptChainNeverGoesBack(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	chains := []policy.Chain{s.chain}
	for range 4 {
		newest := chains[len(chains)-1]
		next, err := newest.Advance(s.revise(newest, func(doc *policy.Document) { doc.Expires++ }))
		s.must(err)
		chains = append(chains, next)
	}
	seat := s.seat("alice")
	var writers sync.WaitGroup
	for i := range chains {
		writers.Go(func() {
			if err := seat.desk().keepChain(chains[len(chains)-1-i]); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	s.must(seat.desk().keepChain(chains[0]))
	p, err := seat.desk().pinned()
	s.must(err)
	if got := p.chain.Ref(); got != chains[len(chains)-1].Ref() {
		t.Errorf("revision %d is kept, want %d", got.Revision, len(chains))
	}
}

// TestRevisionBegunByAStrangerIsNotCosigned: a steward is asked to add a signature to what mallory began.
func TestRevisionBegunByAStrangerIsNotCosigned(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	dave := s.seat("dave")
	partial, err := formatChainFile(append(s.chain.Proofs(), s.unsigned()))
	s.must(err)
	path := filepath.Join(dave.dir, "chain.partial")
	s.must(os.WriteFile(path, partial, 0o600))
	_, talk, code := dave.run("policy", "sign", path, "--yes")
	if code != 3 || !strings.Contains(talk, "no steward's") {
		t.Errorf("exit %d\n%s", code, talk)
	}
	if _, err := os.Stat(filepath.Join(dave.dir, "chain")); err == nil {
		if data, _ := os.ReadFile(filepath.Join(dave.dir, "chain")); strings.Count(string(data), "\n") > 1 {
			t.Error("it was signed")
		}
	}
}

// TestForeignRevisionIsNotCosigned: the file follows another deployment than the one that was joined.
func TestForeignRevisionIsNotCosigned(t *testing.T) {
	s, other := newScene(t, "127.0.0.1:1"), newScene(t, "127.0.0.1:1")
	other.keys["dave"] = s.keys["dave"]
	dave := s.seat("dave")
	proof, err := statement.SignPayload(statement.KindPolicy, other.nextPayload(other.chain), s.signer(s.keys["dave"]))
	s.must(err)
	partial, err := formatChainFile(append(other.chain.Proofs(), proof))
	s.must(err)
	path := filepath.Join(dave.dir, "chain.partial")
	s.must(os.WriteFile(path, partial, 0o600))
	if _, talk, code := dave.run("policy", "sign", path, "--yes"); code != 3 {
		t.Errorf("exit %d\n%s", code, talk)
	}
}
