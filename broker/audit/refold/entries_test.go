package refold

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// backup is what a backup of the leaves would hold, signed by b1.
func (o *owner) backup() Entries {
	o.t.Helper()
	r := o.record()
	return Entries{All: listed(o.leaves), Checkpoint: r.Signed.Text, Pinned: r.Pinned, Now: later}
}

func listed(leaves [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, leaf := range leaves {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

func TestASoundBackupGivesHeadAndState(t *testing.T) {
	o := &owner{t, recorded(t)}
	whole, err := VerifyEntries(o.backup())
	if err != nil {
		t.Fatal(err)
	}
	online, err := Verify(o.record(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if whole.Folded != online.Folded || whole.Signed.Size != uint64(len(o.leaves)) || whole.State.Digest() != o.folded().Digest() || whole.Last != whole.State.Now() {
		t.Errorf("%+v of %+v", whole.Folded, online.Folded)
	}
	if head, ok := whole.Tree.Head(whole.Signed.Size); !ok || head != whole.Signed.LogHead {
		t.Errorf("the tree's head is %v", head)
	}
}

// TestABackupThatIsNotWhatWasSignedIsRefused: whoever stores a backup can encrypt another one to the same key.
func TestABackupThatIsNotWhatWasSignedIsRefused(t *testing.T) {
	whole := func() *owner { return &owner{t, recorded(t)} }
	grant := whole().first("GrantOpened")
	for does, try := range map[string]struct {
		bend func() Entries
		says string
	}{
		"its last event is gone": {func() Entries {
			b := whole().backup()
			b.All = listed(recorded(t)[:len(recorded(t))-1])
			return b
		}, "does not sign these entries"},
		"it was cut and signed again by nobody": {func() Entries {
			o := whole()
			cut := &owner{t, o.leaves[:grant]}
			b := cut.backup()
			b.Checkpoint = []byte(strings.Replace(string(b.Checkpoint), "— ", "— x", 1))
			return b
		}, "not signed by the log key of a broker"},
		"one event was altered": {func() Entries {
			o := whole()
			b := o.backup()
			o.edit(grant, `"person":"`, `"person":"x`)
			b.All = listed(o.leaves)
			return b
		}, "forged"},
		"it is another deployment's": {func() Entries {
			b := whole().backup()
			b.Pinned = foreignChain(t)
			return b
		}, "another deployment"},
		"it holds nothing": {func() Entries {
			b := whole().backup()
			b.All = listed(nil)
			return b
		}, "another deployment, or of none"},
		"it contradicts what was seen before": {func() Entries {
			o := whole()
			b := o.backup()
			b.Before = []Seen{{Signed: o.sign(statement.LogHead{Size: 5, Root: statement.HashOf([]byte("another"))}, statement.Hash{})}}
			return b
		}, "forked or rewritten"},
	} {
		found, err := VerifyEntries(try.bend())
		var wrong *audit.Wrong
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %d events and %v, want %q", does, found.Events, err, try.says)
		}
	}
}

// TestAnOlderBackupIsSoundByItself: that more was seen is for the restore to say, not for the backup.
func TestAnOlderBackupIsSoundByItself(t *testing.T) {
	o := &owner{t, recorded(t)}
	newest := o.record().Signed
	older := &owner{t, slices.Clone(o.leaves[:o.first("GrantOpened")-2])}
	b := older.backup()
	b.Before, b.Pinned = []Seen{{Signed: newest}}, o.folded().Chain()
	if whole, err := VerifyEntries(b); err != nil || whole.Signed.Size >= newest.Size {
		t.Errorf("%d events, %v", whole.Signed.Size, err)
	}
}

func foreignChain(t *testing.T) policy.Chain {
	t.Helper()
	o := &owner{t, recorded(t)}
	first, ok := o.folded().Chain().At(1)
	if !ok {
		t.Fatal("no policy")
	}
	doc := *first
	doc.Expires++
	payload, err := policy.Draft(doc)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := statement.SignPayload(statement.KindPolicy, payload, signtest.Ed25519("dave"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := policy.Genesis(proof)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}
