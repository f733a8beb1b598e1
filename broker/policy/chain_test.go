package policy

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/statement"
)

// council is the lab under three stewards, any two of whom sign; dave has a second key.
func council() Document {
	doc := lab()
	dave := doc.People["dave"]
	dave.Keys = append(dave.Keys, key("dave-spare"))
	doc.People["dave"] = dave
	doc.Stewards = Stewards{Threshold: 2, People: []statement.Person{"carol", "dave", "frank"}}
	return doc
}

func TestChainWalksForward(t *testing.T) {
	first := genesis(t, council(), "carol", "dave")
	doc := first.Next(council(), 1_900_000_000)
	second, err := first.Advance(signed(t, doc, "frank", "carol"))
	if err != nil {
		t.Fatal(err)
	}
	if first.Ref().Revision != 1 || len(first.Proofs()) != 1 {
		t.Error("advancing changed the chain it started from")
	}
	if second.Deployment() != first.Deployment() || second.Ref().Revision != 2 || second.Current().Expires != 1_900_000_000 {
		t.Errorf("second stands at %+v", second.Ref())
	}
	one, found := second.At(1)
	if !found || one.Previous != "" {
		t.Error("the first revision is gone")
	}
	again, err := Genesis(second.Proofs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if again, err = again.Advance(second.Proofs()[1]); err != nil || again.Ref() != second.Ref() {
		t.Errorf("rebuilt from proofs: %v, %+v", err, again.Ref())
	}
}

func TestTwoBranchesOfOneChainNeverShareMemory(t *testing.T) {
	c := genesis(t, council(), "carol", "dave")
	left, err := c.Advance(signed(t, c.Next(council(), 1_900_000_000), "carol", "dave"))
	if err != nil {
		t.Fatal(err)
	}
	right, err := c.Advance(signed(t, c.Next(council(), 1_900_000_001), "carol", "dave"))
	if err != nil {
		t.Fatal(err)
	}
	if left.Current().Expires == right.Current().Expires {
		t.Error("the second branch overwrote the first")
	}
}

// TestThreatPolicyChain tries, against a chain at revision 3, what an owner of the brokers or too few stewards could show.
func TestThreatPolicyChain(t *testing.T) {
	one := genesis(t, council(), "carol", "dave")
	two := advance(t, one, council(), "carol", "dave")
	three := advance(t, two, council(), "carol", "frank")
	next := three.Next(council(), 1_950_000_000)
	stranger := genesis(t, lab(), "dave")
	mutiny := three.Next(council(), 1_950_000_000)
	mutiny.Stewards = Stewards{Threshold: 1, People: []statement.Person{"mallory"}}
	relinked := one.Next(council(), 1_950_000_000)
	relinked.Revision = 4

	for what, test := range map[string]struct {
		proof statement.Proof
		want  error
	}{
		"rollback: an older revision shown again":             {two.Proofs()[1], ErrKnown},
		"rollback: the current revision shown again":          {three.Proofs()[2], ErrKnown},
		"rollback: the first revision shown again":            {one.Proofs()[0], ErrKnown},
		"rollback: an old revision's successor renumbered":    {signed(t, relinked, "carol", "dave"), ErrForeign},
		"fork: a second revision 3 by the same stewards":      {signed(t, two.Next(council(), 1_950_000_000), "carol", "dave"), ErrFork},
		"fork: a second revision 2, long passed":              {signed(t, one.Next(council(), 1_950_000_000), "dave", "frank"), ErrFork},
		"fork: a second revision 3 nobody rightly signed":     {signed(t, two.Next(council(), 1_950_000_000), "dave"), ErrUnsigned},
		"another deployment's first revision":                 {stranger.Proofs()[0], ErrForeign},
		"another deployment's second revision":                {signed(t, stranger.Next(council(), 1_950_000_000), "carol", "dave"), ErrForeign},
		"a revision skipped":                                  {signed(t, advance(t, three, council(), "carol", "dave").Next(council(), 1), "carol", "dave"), ErrGap},
		"missing signatures: one steward of two":              {signed(t, next, "carol"), ErrUnsigned},
		"duplicate signers: two keys of one steward":          {signed(t, next, "dave", "dave-spare"), ErrUnsigned},
		"signers who are people but no stewards":              {signed(t, next, "alice", "bob"), ErrUnsigned},
		"one steward and somebody who is none":                {signed(t, next, "carol", "mallory"), ErrUnsigned},
		"enough stewards and a stranger's signature on top":   {signed(t, next, "carol", "dave", "mallory"), ErrUnsigned},
		"signed by the stewards it names, not by the current": {signed(t, mutiny, "mallory"), ErrUnsigned},
		"signed by a broker's keys":                           {signed(t, next, "b1", "b1-ca"), ErrUnsigned},
	} {
		t.Run(what, func(t *testing.T) {
			after, err := three.Advance(test.proof)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if after.Ref().Revision != 0 {
				t.Error("a refused revision left a chain")
			}
		})
	}
}

func TestForkCarriesBothProofs(t *testing.T) {
	one := genesis(t, council(), "carol", "dave")
	mine, theirs := signed(t, one.Next(council(), 1_900_000_000), "carol", "dave"), signed(t, one.Next(council(), 1_950_000_000), "carol", "dave")
	two, err := one.Advance(mine)
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Advance(theirs)
	var fork *Fork
	if !errors.As(err, &fork) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(Fork{Revision: 2, Known: mine, Other: theirs}, *fork); diff != "" {
		t.Error(diff)
	}
}

func TestGenesisRefuses(t *testing.T) {
	second := genesis(t, council(), "carol", "dave").Next(council(), 1_900_000_000)
	for what, test := range map[string]struct {
		proof statement.Proof
		want  error
	}{
		"too few of its own stewards":         {signed(t, council(), "dave"), ErrUnsigned},
		"two keys of one of its own stewards": {signed(t, council(), "dave", "dave-spare"), ErrUnsigned},
		"people who are not its stewards":     {signed(t, council(), "alice", "erin"), ErrUnsigned},
		"a revision that is not the first":    {signed(t, second, "carol", "dave"), ErrGap},
	} {
		t.Run(what, func(t *testing.T) {
			if c, err := Genesis(test.proof); !errors.Is(err, test.want) || c.Ref().Revision != 0 {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestPolicySignedForAnotherPurposeIsRefused(t *testing.T) {
	payload, err := Draft(lab())
	if err != nil {
		t.Fatal(err)
	}
	p, err := statement.SignPayload(statement.KindDecision, payload, signer("dave"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Genesis(p); err == nil {
		t.Error("a decision's signature made a policy")
	}
}

// TestPolicyHasOneSpelling signs payloads that mean the lab's policy but are not its canonical bytes.
func TestPolicyHasOneSpelling(t *testing.T) {
	payload, err := Draft(lab())
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) []byte {
		out := bytes.Replace(payload, []byte(old), []byte(new), 1)
		if bytes.Equal(out, payload) {
			t.Fatalf("%s is not in the payload", old)
		}
		return out
	}
	for what, bad := range map[string][]byte{
		"a space":                 edit(`"v":1`, `"v": 1`),
		"a newline at the end":    append(bytes.Clone(payload), '\n'),
		"trailing data":           append(bytes.Clone(payload), payload...),
		"another order of fields": edit(`"v":1,"kind":"policy"`, `"kind":"policy","v":1`),
		"another order of people": edit(`"approvers":["bob","carol","gwen"]`, `"approvers":["carol","bob","gwen"]`),
		"a person twice":          edit(`["bob","carol","gwen"]`, `["bob","bob","carol","gwen"]`),
		"an unknown field":        edit(`"v":1`, `"v":1,"x":1`),
		"a duplicate field":       edit(`"v":1`, `"v":1,"v":1`),
		"a field in capitals":     edit(`"auditors"`, `"Auditors"`),
		"a missing field":         edit(`"permit":[]`, ``),
		"a null list":             edit(`"permit":[]`, `"permit":null`),
		"an escaped letter":       edit(`"alice"`, `"\u0061lice"`),
		"a number with a point":   edit(`"v":1`, `"v":1.0`),
		"a time with an offset":   edit(`Z"`, `+00:00"`),
		"invalid UTF-8":           edit(`b1:7443`, "b1:7443\xff"),
		"version 2":               edit(`"v":1`, `"v":2`),
		"another kind":            edit(`"kind":"policy"`, `"kind":"request"`),
		"nothing":                 {},
		"a list":                  []byte(`[]`),
		"null":                    []byte(`null`),
		"an empty object":         []byte(`{}`),
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := Parse(bad); err == nil {
				t.Error("parsed")
			}
			if len(bad) == 0 {
				return
			}
			if c, err := Genesis(seal(t, bad, "dave")); err == nil || c.Ref().Revision != 0 {
				t.Error("started a chain")
			}
		})
	}
}

func TestPlace(t *testing.T) {
	one := genesis(t, council(), "carol", "dave")
	two := advance(t, one, council(), "carol", "dave")
	other := genesis(t, lab(), "dave")
	for what, test := range map[string]struct {
		chain Chain
		ref   statement.PolicyRef
		want  Placement
	}{
		"its newest":                       {two, two.Ref(), Known},
		"an older one of its own":          {two, one.Ref(), Known},
		"the next number":                  {one, two.Ref(), Ahead},
		"a far number":                     {one, statement.PolicyRef{Revision: 1 << 63, Hash: two.Ref().Hash}, Ahead},
		"same number, other hash":          {one, other.Ref(), Foreign},
		"lower number, other hash":         {two, other.Ref(), Foreign},
		"its newest hash, a lower number":  {two, statement.PolicyRef{Revision: 1, Hash: two.Ref().Hash}, Foreign},
		"nothing":                          {two, statement.PolicyRef{}, Foreign},
		"anything, against the zero chain": {Chain{}, one.Ref(), Foreign},
		"nothing, against the zero chain":  {Chain{}, Chain{}.Ref(), Foreign},
	} {
		t.Run(what, func(t *testing.T) {
			if got := test.chain.Place(test.ref); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestZeroChainDeniesEverything(t *testing.T) {
	var c Chain
	d := c.Current()
	if d.Eligible("alice", "root") || len(d.Approvers("root")) > 0 || len(d.CAKeys()) > 0 || d.Steward("dave") || d.Operator("dave") || d.Auditor("frank") {
		t.Error("the zero chain allows something")
	}
	if _, held := d.KeyOwner(key("alice")); held {
		t.Error("the zero chain knows a key")
	}
	if _, found := c.At(0); found || !c.Deployment().IsZero() || len(c.Proofs()) > 0 {
		t.Error("the zero chain holds something")
	}
	if _, err := c.Advance(signed(t, lab(), "dave")); !errors.Is(err, ErrGap) {
		t.Errorf("the zero chain advanced: %v", err)
	}
	ownerless := Chain{links: []link{{doc: &Document{}}}}
	if _, err := ownerless.Advance(signed(t, ownerless.Next(lab(), 5), "dave")); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a document without stewards was followed: %v", err)
	}
}

// advance signs doc as the next revision.
func advance(t testing.TB, c Chain, doc Document, names ...string) Chain {
	t.Helper()
	next, err := c.Advance(signed(t, c.Next(doc, 1_900_000_000), names...))
	if err != nil {
		t.Fatal(err)
	}
	return next
}
