package audit

import (
	"bytes"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"pim-ssh/broker/statement"
)

// Hold holds one file of a record, a tile or a bundle of entries, to a head: it costs the few tiles between the file and
// the root, however large the record is. What does not belong there is a *Wrong or ErrForged, and what the head does not
// reach an error too.
func Hold(source Source, head statement.LogHead, name string, data []byte) error {
	if err := Within(head.Size, name); err != nil {
		return err
	}
	tile, err := parsePath(name)
	if err != nil {
		return err
	}
	first := uint64(tile.N) * Width
	indexes := make([]int64, tile.W)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(height*max(tile.L, 0), int64(first)+int64(i))
	}
	hashes, err := authenticated(head, source).ReadHashes(indexes)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if tile.L < 0 {
		return holdEntries(name, data, first, hashes)
	}
	var want []byte
	for _, hash := range hashes {
		want = append(want, hash[:]...)
	}
	if !bytes.Equal(data, want) {
		return &Wrong{name, covered(tile, data, want), "the tile was changed: it no longer leads to the signed root", nil}
	}
	return nil
}

// Within returns nil for the path of a tile or bundle that a record of so many entries has.
func Within(size uint64, name string) error {
	tile, err := parsePath(name)
	if err != nil {
		return err
	}
	if n := uint64(tile.N); n > maxSize || n*Width+uint64(tile.W) > size>>(height*max(tile.L, 0)) {
		return fmt.Errorf("%s: the record ends at %d", name, size)
	}
	return nil
}

func holdEntries(name string, data []byte, first uint64, leaves []tlog.Hash) error {
	entries, err := readEntries(data, uint64(len(leaves)))
	for i, entry := range entries {
		if tlog.RecordHash(entry) != leaves[i] {
			return &Wrong{name, first + uint64(i), "it was changed after it was signed", nil}
		}
	}
	if err != nil {
		return &Wrong{name, first + uint64(len(entries)), "the bundle is damaged: " + err.Error(), nil}
	}
	return nil
}

// HoldEdge holds to a head those files of a record that it goes on from: the last bundle, and the tiles above it.
func HoldEdge(source Source, head statement.LogHead) error {
	if head.Size == 0 {
		return nil
	}
	last := (head.Size - 1) / Width
	names := []string{path(bundle(last, head.Size-last*Width))}
	for level := 0; head.Size>>(height*level) > 0; level++ {
		hashes := head.Size >> (height * level)
		n := (hashes - 1) / Width
		names = append(names, path(tlog.Tile{H: height, L: level, N: int64(n), W: int(hashes - n*Width)}))
	}
	for _, name := range names {
		data, err := source(name)
		if err == nil {
			err = Hold(source, head, name, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
