package refold

import (
	"iter"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Entries is a record of which only the entries are at hand, as in a backup, with the checkpoint that was signed over them.
type Entries struct {
	All        iter.Seq2[[]byte, error] // in order; an error ends them
	Checkpoint []byte                   // a signed note
	Before     []Seen                   // as in Record, but those that the entries do not reach are passed over
	Pinned     policy.Chain             // as in Record
	Now        statement.Time           // as in Record
}

// Whole is a record that is sound: its head, as signed, and the state that it folds to, which is the caller's from then on.
type Whole struct {
	Verified
	Signed audit.Signed
	Tree   *audit.Tree
	State  *broker.State
}

// VerifyEntries is Verify without tiles: the tree is made from the entries. The checkpoint may be by the log key of any
// broker that any revision of the record's own chain lists, or of the pinned one where that is longer: both must be the same
// chain. An error of the entries themselves is returned as it is, everything else that is wrong is an *audit.Wrong.
func VerifyEntries(e Entries) (Whole, error) {
	run := &reading{replay: NewReplay(e.Now), result: Verified{Failed: audit.NoIndex}}
	tree := &audit.Tree{}
	for entry, err := range e.All {
		if err != nil {
			return Whole{}, err
		}
		run.take(tree.Size(), entry)
		if run.failed != nil {
			return Whole{}, run.failed
		}
		tree.Add(entry)
	}
	run.end()
	state := run.replay.State()
	signed, wrong := openCheckpoint(e, state.Chain())
	for _, check := range []func() *audit.Wrong{
		func() *audit.Wrong { return checkHead(tree, signed) },
		func() *audit.Wrong { return run.checkEnd(Record{Signed: signed, Pinned: e.Pinned}) },
		func() *audit.Wrong { return run.checkBefore(tree, reached(e.Before, tree.Size())) },
		func() *audit.Wrong { return run.checkClaims(tree) },
	} {
		if wrong != nil {
			break
		}
		wrong = check()
	}
	if wrong != nil {
		return Whole{}, wrong
	}
	return Whole{run.result, signed, tree, state}, nil
}

// openCheckpoint opens the checkpoint by the keys of every revision, the newest first.
func openCheckpoint(e Entries, own policy.Chain) (audit.Signed, *audit.Wrong) {
	longer := own
	if e.Pinned.Ref().Revision > own.Ref().Revision {
		longer = e.Pinned
	}
	if own.Ref().Revision == 0 || longer.Place(own.Ref()) == policy.Foreign || longer.Deployment() != e.Pinned.Deployment() {
		return audit.Signed{}, &audit.Wrong{Index: audit.NoIndex, Why: "it is of another deployment, or of none"}
	}
	var first error
	for revision := longer.Ref().Revision; revision > 0; revision-- {
		doc, _ := longer.At(revision)
		signed, err := audit.Open(e.Checkpoint, own.Deployment(), doc.LogKeys())
		if err == nil {
			return signed, nil
		}
		if first == nil {
			first = err
		}
	}
	return audit.Signed{}, &audit.Wrong{Where: audit.PathCheckpoint, Index: audit.NoIndex, Why: first.Error(), Err: first}
}

// checkHead holds the entries to the signed head.
func checkHead(tree *audit.Tree, signed audit.Signed) *audit.Wrong {
	own, _ := tree.Head(tree.Size())
	if own == signed.LogHead {
		return nil
	}
	return &audit.Wrong{Where: audit.PathCheckpoint, Index: audit.NoIndex, Err: audit.ErrForged,
		Why: "it does not sign these entries: some were removed, added or altered"}
}

// reached are the heads that a record of this size can be held to.
func reached(before []Seen, size uint64) []Seen {
	var within []Seen
	for _, other := range before {
		if other.Size <= size {
			within = append(within, other)
		}
	}
	return within
}

// Lacks returns what was seen before and is not in this record, unless a restore in it says why: heads that reach further, and
// heads that contradict it.
func (w Whole) Lacks(before []Seen) []Seen {
	run := &reading{result: w.Verified}
	var lacking []Seen
	for _, seen := range before {
		if run.checkBefore(w.Tree, []Seen{seen}) != nil {
			lacking = append(lacking, seen)
		}
	}
	return lacking
}
