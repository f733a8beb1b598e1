package policy

import (
	"errors"
	"fmt"
	"slices"

	"pim-ssh/broker/statement"
)

// What Genesis and Advance refuse with; test with errors.Is.
var (
	ErrFork     = errors.New("two rightly signed policies bear the same revision number")
	ErrKnown    = errors.New("this policy revision is already known")
	ErrGap      = errors.New("a policy revision in between is missing")
	ErrUnsigned = errors.New("not signed by enough stewards")
	ErrForeign  = errors.New("does not follow this policy")
)

// Fork is the evidence that the stewards of one revision signed two different next ones: whoever holds it shows both
// to people and grants nothing more. errors.Is(err, ErrFork) holds.
type Fork struct {
	Revision uint64
	Known    statement.Proof // the one this chain holds
	Other    statement.Proof
}

// Error names the revision and both hashes.
func (f *Fork) Error() string {
	return fmt.Sprintf("policy revision %d: %v: %s and %s; stop and ask the stewards", f.Revision, ErrFork, f.Known.Hash(), f.Other.Hash())
}

// Is makes errors.Is(err, ErrFork) true.
func (f *Fork) Is(target error) bool { return target == ErrFork }

// Placement says how a statement's policy reference stands to a chain.
type Placement int

// The closed set of placements. The zero value denies.
const (
	Foreign Placement = iota // not in this chain, and no later revision can put it there: refuse the statement
	Known                    // a revision of this chain
	Ahead                    // a later number: the judge must catch up before it answers
)

// String returns the placement in lower case.
func (p Placement) String() string {
	switch p {
	case Known:
		return "known"
	case Ahead:
		return "ahead"
	case Foreign:
		return "foreign"
	}
	return fmt.Sprintf("placement %d", int(p))
}

// Chain is every verified revision, from the first to the current one. It is an immutable value: Advance returns another.
// The zero Chain is no policy; it denies everything.
type Chain struct {
	links []link // links[i] is revision i+1; never changed in place
}

type link struct {
	hash  statement.Hash
	doc   *Document
	proof statement.Proof
}

// Genesis starts a chain with the first revision, which its own stewards' threshold signs. Its hash is the deployment:
// callers compare that with the one they were given out of band.
func Genesis(p statement.Proof) (Chain, error) {
	doc, signers, err := open(p)
	if err != nil {
		return Chain{}, err
	}
	if doc.Revision != 1 {
		return Chain{}, fmt.Errorf("policy revision %d: a chain starts at 1: %w", doc.Revision, ErrGap)
	}
	if err := doc.signed(signers); err != nil {
		return Chain{}, fmt.Errorf("policy revision 1: %w", err)
	}
	return Chain{links: []link{{hash: p.Hash(), doc: doc, proof: p}}}, nil
}

// Advance returns the chain with its next revision: number one higher, naming the current hash as previous, signed by the
// threshold of the current stewards. A known revision is ErrKnown, a skipped one ErrGap, another rightly signed revision
// of a known number a *Fork, anything else ErrUnsigned or ErrForeign. The receiver stays as it is.
func (c Chain) Advance(p statement.Proof) (Chain, error) {
	if len(c.links) == 0 {
		return Chain{}, fmt.Errorf("no first policy revision to follow: %w", ErrGap)
	}
	doc, signers, err := open(p)
	if err != nil {
		return Chain{}, err
	}
	if err := c.follows(doc, signers, p); err != nil {
		return Chain{}, fmt.Errorf("policy revision %d: %w", doc.Revision, err)
	}
	next := link{hash: p.Hash(), doc: doc, proof: p}
	return Chain{links: append(slices.Clip(c.links), next)}, nil
}

// follows says whether doc is the next revision, and if not, in what way it is not.
func (c Chain) follows(doc *Document, signers []statement.Signer, p statement.Proof) error {
	newest := uint64(len(c.links))
	switch {
	case doc.Revision > newest+1:
		return fmt.Errorf("revision %d must come first: %w", newest+1, ErrGap)
	case doc.Revision <= newest && c.links[doc.Revision-1].hash == p.Hash():
		return ErrKnown
	case doc.Revision == 1:
		return fmt.Errorf("it is another deployment's first: %w", ErrForeign)
	}
	before := c.links[doc.Revision-2]
	if doc.Previous != before.hash.String() {
		return fmt.Errorf("names another revision %d: %w", doc.Revision-1, ErrForeign)
	}
	if doc.V < before.doc.V {
		return fmt.Errorf("is of version %d after one of version %d, and would be judged by weaker rules: %w", doc.V, before.doc.V, ErrForeign)
	}
	if err := before.doc.signed(signers); err != nil {
		return err
	}
	if doc.Revision <= newest {
		return &Fork{Revision: doc.Revision, Known: c.links[doc.Revision-1].proof, Other: p}
	}
	return nil
}

// signed reports whether the signers are the threshold of this document's stewards: distinct people, and nobody else.
func (d *Document) signed(signers []statement.Signer) error {
	people := map[statement.Person]bool{}
	for _, signer := range signers {
		person, held := d.KeyOwner(signer.Key)
		if !held || !d.Steward(person) {
			return fmt.Errorf("key %s is no steward's: %w", signer.Key.Fingerprint(), ErrUnsigned)
		}
		people[person] = true
	}
	if d.Stewards.Threshold < 1 || len(people) < d.Stewards.Threshold {
		return fmt.Errorf("%d of %d needed stewards signed: %w", len(people), d.Stewards.Threshold, ErrUnsigned)
	}
	return nil
}

// Deployment returns the hash of the first revision; zero for the zero Chain.
func (c Chain) Deployment() statement.Hash {
	if len(c.links) == 0 {
		return statement.Hash{}
	}
	return c.links[0].hash
}

// Current returns the newest revision, which the caller must not change; an empty document, in which nobody may
// anything, for the zero Chain.
func (c Chain) Current() *Document {
	if len(c.links) == 0 {
		return &Document{}
	}
	return c.links[len(c.links)-1].doc
}

// Ref returns number and hash of the newest revision, as statements carry it; zero for the zero Chain.
func (c Chain) Ref() statement.PolicyRef {
	if len(c.links) == 0 {
		return statement.PolicyRef{}
	}
	return statement.PolicyRef{Revision: uint64(len(c.links)), Hash: c.links[len(c.links)-1].hash}
}

// At returns one revision, which the caller must not change.
func (c Chain) At(revision uint64) (*Document, bool) {
	if revision == 0 || revision > uint64(len(c.links)) {
		return nil, false
	}
	return c.links[revision-1].doc, true
}

// Until returns the chain as it was when revision was the newest; all of it when there is no later one, the zero Chain for 0.
func (c Chain) Until(revision uint64) Chain {
	return Chain{c.links[:min(revision, uint64(len(c.links)))]}
}

// Proofs returns the signed bytes of every revision, the first one first: what rebuilds the chain elsewhere.
func (c Chain) Proofs() []statement.Proof {
	proofs := make([]statement.Proof, len(c.links))
	for i, link := range c.links {
		proofs[i] = link.proof
	}
	return proofs
}

// Place says how a statement's policy reference stands to this chain.
func (c Chain) Place(ref statement.PolicyRef) Placement {
	newest := uint64(len(c.links))
	switch {
	case newest == 0 || ref.Revision == 0:
		return Foreign
	case ref.Revision > newest:
		return Ahead
	case c.links[ref.Revision-1].hash == ref.Hash:
		return Known
	}
	return Foreign
}

// Next returns the document as the revision that follows this chain: numbered, naming the current hash, expiring then, and of
// the chain's version unless it says more.
// It is not yet drafted, checked or signed.
func (c Chain) Next(doc Document, expires statement.Time) Document {
	if len(c.links) > 0 {
		doc.V = max(c.Current().V, doc.words())
	}
	doc.V, doc.Kind, doc.Expires, doc.owners = max(doc.V, 1), statement.KindPolicy, expires, nil
	doc.Revision, doc.Previous = uint64(len(c.links))+1, ""
	if len(c.links) > 0 {
		doc.Previous = c.links[len(c.links)-1].hash.String()
	}
	return doc
}
