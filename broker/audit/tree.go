package audit

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"pim-ssh/broker/statement"
)

// Tree is the Merkle tree over entries as they were read, in memory: 64 bytes an entry. The zero Tree is empty.
type Tree struct {
	size   uint64
	hashes []tlog.Hash // in tlog's order
}

// Add takes the next entry.
func (t *Tree) Add(entry []byte) { t.addHash(tlog.RecordHash(entry)) }

func (t *Tree) addHash(leaf tlog.Hash) {
	hashes, err := tlog.StoredHashesForRecordHash(int64(t.size), leaf, t)
	if err != nil {
		return // every hash below t.size is there
	}
	t.hashes = append(t.hashes, hashes...)
	t.size++
}

// ReadHashes returns stored hashes by tlog's index.
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index < 0 || index >= int64(len(t.hashes)) {
			return nil, fmt.Errorf("hash %d is not in the tree", index)
		}
		all[i] = t.hashes[index]
	}
	return all, nil
}

// Size returns how many entries there are.
func (t *Tree) Size() uint64 { return t.size }

// Head returns the head of the first size entries, and whether there are so many.
func (t *Tree) Head(size uint64) (statement.LogHead, bool) {
	root, err := tlog.TreeHash(int64(min(size, t.size)), t)
	return statement.LogHead{Size: size, Root: statement.Hash(root)}, err == nil && size <= t.size
}

// leaf returns the hash of one entry.
func (t *Tree) leaf(index uint64) tlog.Hash { return t.hashes[tlog.StoredHashIndex(0, int64(index))] }
