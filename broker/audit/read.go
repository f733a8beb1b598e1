package audit

import (
	"bytes"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"pim-ssh/broker/statement"
)

// NoIndex stands in a Wrong that is about no one entry.
const NoIndex = ^uint64(0)

// Wrong is one thing wrong with a record: where it was seen, at or from which entry, and what it means.
type Wrong struct {
	Where string // a path in the record; "" when every file is as it was signed
	Index uint64 // 0-based; NoIndex when it is about no one entry
	Why   string
	Err   error // the cause, or nil
}

// Error says all of it in one line.
func (w *Wrong) Error() string {
	text := w.Why
	if w.Index != NoIndex {
		text = fmt.Sprintf("event %d: %s", w.Index, text)
	}
	if w.Where != "" {
		text = w.Where + ": " + text
	}
	return text
}

// Unwrap returns the cause.
func (w *Wrong) Unwrap() error { return w.Err }

// Read reads every entry under a head, hands each to take in order, and then holds entries, tiles and head to each other.
// What does not fit is a *Wrong, the first one; take has seen the entries before anything is known of them.
func Read(source Source, head statement.LogHead, take func(index uint64, entry []byte)) (*Tree, error) {
	tree := &Tree{}
	for first := uint64(0); first < head.Size; first += Width {
		entries, err := readBundle(source, first/Width, min(head.Size-first, Width))
		for _, entry := range entries {
			take(tree.size, entry)
			tree.Add(entry)
		}
		if err != nil {
			return tree, err
		}
	}
	stored, err := readTiles(source, head.Size, 0)
	if err != nil {
		return tree, err
	}
	if own, _ := tree.Head(head.Size); own != head {
		return tree, blame(tree, stored, head)
	}
	return tree, checkTiles(source, tree)
}

func readBundle(source Source, n, width uint64) ([][]byte, error) {
	name := path(bundle(n, width))
	data, err := source(name)
	if err != nil {
		return nil, &Wrong{name, n * Width, "cannot be read: " + err.Error(), err}
	}
	entries, err := readEntries(data, width)
	if err != nil {
		return entries, &Wrong{name, n*Width + uint64(len(entries)), "the bundle is damaged: " + err.Error(), nil}
	}
	return entries, nil
}

// levelTiles are the tiles of one level in a tree.
func levelTiles(size uint64, level int) []tlog.Tile {
	hashes := size >> (height * level)
	var all []tlog.Tile
	for n := uint64(0); n*Width < hashes; n++ {
		all = append(all, tlog.Tile{H: height, L: level, N: int64(n), W: int(min(hashes-n*Width, Width))})
	}
	return all
}

// readTiles reads the hashes of one level as the tiles say them.
func readTiles(source Source, size uint64, level int) ([]tlog.Hash, error) {
	var all []tlog.Hash
	for _, tile := range levelTiles(size, level) {
		data, err := source(path(tile))
		covers := uint64(tile.N) * Width << (height * level)
		if err != nil {
			return nil, &Wrong{path(tile), covers, "cannot be read: " + err.Error(), err}
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, &Wrong{path(tile), covers, fmt.Sprintf("%d bytes, want %d", len(data), tile.W*tlog.HashSize), nil}
		}
		for ; len(data) > 0; data = data[tlog.HashSize:] {
			all = append(all, tlog.Hash(data[:tlog.HashSize]))
		}
	}
	return all, nil
}

// blame says what is wrong when the entries do not have the signed root: an entry, when the tiles do have it.
func blame(tree *Tree, stored []tlog.Hash, head statement.LogHead) error {
	said := &Tree{}
	for _, leaf := range stored {
		said.addHash(leaf)
	}
	signed, _ := said.Head(head.Size)
	for i, leaf := range stored {
		if tree.leaf(uint64(i)) == leaf {
			continue
		}
		index := uint64(i)
		if signed == head {
			return &Wrong{path(bundle(index/Width, min(head.Size-First(index), Width))), index, "it was changed after it was signed", nil}
		}
		return &Wrong{path(levelTiles(head.Size, 0)[index/Width]), index, "neither the entry nor its tile is what was signed", nil}
	}
	own, _ := tree.Head(head.Size)
	return &Wrong{PathCheckpoint, NoIndex, fmt.Sprintf("it signs root %s over %d entries, whose root is %s", head.Root, head.Size, own.Root), nil}
}

// checkTiles holds every tile to entries that have the signed root.
func checkTiles(source Source, tree *Tree) error {
	for level := 0; tree.size>>(height*level) > 0; level++ {
		for _, tile := range levelTiles(tree.size, level) {
			want, err := tlog.ReadTileData(tile, tree)
			if err != nil {
				return err
			}
			have, err := source(path(tile))
			if err != nil {
				return &Wrong{path(tile), uint64(tile.N) * Width << (height * level), "cannot be read: " + err.Error(), err}
			}
			if !bytes.Equal(have, want) {
				return &Wrong{path(tile), covered(tile, have, want), "the tile was changed: it no longer leads to the signed root", nil}
			}
		}
	}
	return nil
}

// covered is the first entry under the first hash in which two contents of a tile differ.
func covered(tile tlog.Tile, have, want []byte) uint64 {
	at := 0
	for at < len(have) && at < len(want) && have[at] == want[at] {
		at++
	}
	return (uint64(tile.N)*Width + uint64(at/tlog.HashSize)) << (height * tile.L)
}
