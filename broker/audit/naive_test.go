package audit

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"pim-ssh/broker/statement"
)

// naive is RFC 6962 §2.1 word by word, and shares no line with what it checks.
func naive(entries [][]byte) statement.Hash {
	switch n := len(entries); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, entries[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		left, right := naive(entries[:k]), naive(entries[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

// TestEveryHeadIsWhatTheNaiveVerifierComputes grows records in steps of every kind and compares with the oracle.
func TestEveryHeadIsWhatTheNaiveVerifierComputes(t *testing.T) {
	entries := some(700)
	tree := &Tree{}
	for i, entry := range entries {
		tree.Add(entry)
		if i%37 == 0 || i == len(entries)-1 {
			if head, ok := tree.Head(uint64(i + 1)); !ok || head.Root != naive(entries[:i+1]) {
				t.Fatalf("tree of %d: %v", i+1, head)
			}
		}
	}
	for _, step := range []int{1, 3, 100, 256, 257, 700} {
		if step < 100 {
			entries = entries[:300]
		} else {
			entries = some(700)
		}
		r := newRecord(t)
		for len(entries) > int(r.head.Size) {
			r.grow(entries[:min(len(entries), int(r.head.Size)+step)])
			if want := naive(entries[:r.head.Size]); r.head.Root != want {
				t.Fatalf("in steps of %d: head of %d is %s, want %s", step, r.head.Size, r.head.Root, want)
			}
		}
		read, err := Read(r.source(), r.head, func(index uint64, entry []byte) {
			if string(entry) != string(entries[index]) {
				t.Errorf("entry %d was read as something else", index)
			}
		})
		if err != nil || read.Size() != uint64(len(entries)) {
			t.Errorf("in steps of %d: read %d: %v", step, read.Size(), err)
		}
	}
}

// TestTheEmptyTreeHasItsOwnRoot and says nothing of older ones.
func TestTheEmptyTreeHasItsOwnRoot(t *testing.T) {
	head, ok := (&Tree{}).Head(0)
	if !ok || head.Root != naive(nil) {
		t.Errorf("%v %v", head, ok)
	}
	if _, ok := (&Tree{}).Head(1); ok {
		t.Error("a head beyond the end")
	}
}

// some returns n different entries, a few of them long.
func some(n int) [][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	entries := make([][]byte, n)
	for i := range entries {
		length := 1 + random.IntN(60)
		if i%97 == 5 {
			length = 70_000 // longer than C2SP's two bytes could say
		}
		entries[i] = make([]byte, length)
		for at := range entries[i] {
			entries[i][at] = byte(random.Uint32())
		}
	}
	return entries
}
