package policy

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"pim-ssh/broker/statement"
)

// holder says whose each signing key is in this model; the strangers' keys are nobody's.
var holder = map[string]statement.Person{"carol": "carol", "dave": "dave", "dave-spare": "dave", "frank": "frank", "alice": "alice", "b1": "", "nobody": ""}

// revision is what the naive model remembers of one: no documents, only who may sign the next.
type revision struct {
	hash      statement.Hash
	threshold int
	stewards  []statement.Person
}

// TestChainAgreesWithNaiveModel throws revisions at a chain: right ones, and ones numbered, linked or signed at random.
func TestChainAgreesWithNaiveModel(t *testing.T) {
	outcomes := map[error]int{}
	rapid.Check(t, func(t *rapid.T) {
		first := drawCouncil(t, 0)
		p, err := propose(first, asNames(first.Stewards.People))
		if err != nil {
			t.Fatal(err)
		}
		known := []revision{{p.Hash(), first.Stewards.Threshold, first.Stewards.People}}
		chain, err := Genesis(p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rapid.IntRange(4, 12).Draw(t, "tries") {
			doc := drawCouncil(t, i+1)
			parent := len(known) - 1
			if rapid.Bool().Draw(t, "astray") {
				parent = rapid.IntRange(0, len(known)-1).Draw(t, "parent")
			}
			doc.Revision, doc.Previous = uint64(parent)+2, known[parent].hash.String()
			if rapid.IntRange(0, 5).Draw(t, "renumber") == 0 {
				doc.Revision = uint64(rapid.IntRange(2, len(known)+3).Draw(t, "revision"))
			}
			names := slices.Sorted(maps.Keys(holder))
			signers := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 4, rapid.ID[string]).Draw(t, "signers")
			if rapid.Bool().Draw(t, "properly") {
				signers = asNames(known[parent].stewards)
			}
			p, err := propose(doc, signers)
			if err != nil {
				t.Fatal(err)
			}
			want := judge(known, doc, signers)
			next, err := chain.Advance(p)
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Fatalf("revision %d by %v after %d: got %v, want %v", doc.Revision, signers, len(known), err, want)
			}
			outcomes[want]++
			if err == nil {
				chain, known = next, append(known, revision{p.Hash(), doc.Stewards.Threshold, doc.Stewards.People})
			}
			agree(t, chain, known)
		}
	})
	t.Logf("%v", outcomes)
	for _, each := range []error{nil, ErrFork, ErrGap, ErrUnsigned, ErrForeign} {
		if outcomes[each] == 0 {
			t.Errorf("%v never came up: %v", each, outcomes)
		}
	}
}

// judge is the rule, said naively: what a chain of known revisions must answer.
func judge(known []revision, doc Document, signers []string) error {
	if int(doc.Revision) > len(known)+1 {
		return ErrGap
	}
	before := known[doc.Revision-2]
	if doc.Previous != before.hash.String() {
		return ErrForeign
	}
	people := map[statement.Person]bool{}
	for _, name := range signers {
		if !slices.Contains(before.stewards, holder[name]) {
			return ErrUnsigned
		}
		people[holder[name]] = true
	}
	switch {
	case len(people) < before.threshold:
		return ErrUnsigned
	case int(doc.Revision) <= len(known):
		return ErrFork
	}
	return nil
}

// agree holds every question a chain answers to the model.
func agree(t *rapid.T, chain Chain, known []revision) {
	if chain.Deployment() != known[0].hash || len(chain.Proofs()) != len(known) {
		t.Fatalf("deployment %s with %d proofs", chain.Deployment(), len(chain.Proofs()))
	}
	for i, r := range known {
		if doc, found := chain.At(uint64(i + 1)); !found || !slices.Equal(doc.Stewards.People, r.stewards) {
			t.Fatalf("revision %d is another", i+1)
		}
		if got := chain.Place(statement.PolicyRef{Revision: uint64(i + 1), Hash: r.hash}); got != Known {
			t.Fatalf("revision %d is %s", i+1, got)
		}
		if got := chain.Place(statement.PolicyRef{Revision: uint64(i + 2), Hash: r.hash}); got == Known {
			t.Fatalf("revision %d's hash stands at %d too", i+1, i+2)
		}
	}
}

// drawCouncil draws who the stewards are; salt makes each document another.
func drawCouncil(t *rapid.T, salt int) Document {
	doc := council()
	doc.Expires += statement.Time(salt)
	people := some(t, []statement.Person{"carol", "dave", "frank"}, 1, "stewards")
	doc.Stewards = Stewards{Threshold: rapid.IntRange(1, len(people)).Draw(t, "threshold"), People: people}
	return doc
}

func propose(doc Document, names []string) (statement.Proof, error) {
	payload, err := Draft(doc)
	if err != nil {
		return statement.Proof{}, err
	}
	var signers []ssh.Signer
	for _, name := range names {
		signers = append(signers, signer(name))
	}
	return statement.SignPayload(statement.KindPolicy, payload, signers...)
}

func asNames(people []statement.Person) []string {
	var names []string
	for _, person := range people {
		names = append(names, string(person))
	}
	return names
}
