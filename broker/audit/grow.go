package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"pim-ssh/broker/statement"
)

// File is one file of a record: its path and its whole content. Files never change once written.
type File struct {
	Path string
	Data []byte
}

// First returns the index from which Grow needs the entries of a record with this many: a bundle is written whole.
func First(size uint64) uint64 { return size - size%Width }

// Grow returns what a record becomes when it goes on to hold these entries, of which the first has index First(old.Size):
// the files to write, all before any checkpoint over them is shown, and the new head. The old record is read through the
// source and held to the old head; entries that differ from what it holds are refused.
func Grow(old statement.LogHead, source Source, entries [][]byte) (statement.LogHead, []File, error) {
	first := First(old.Size)
	size := first + uint64(len(entries))
	if size < old.Size || size > maxSize {
		return old, nil, fmt.Errorf("a record of %d entries cannot become one of %d", old.Size, size)
	}
	g := growth{old: authenticated(old, source), from: tlog.StoredHashCount(int64(old.Size))}
	for i, entry := range entries {
		if err := g.add(first+uint64(i), old.Size, entry); err != nil {
			return old, nil, err
		}
	}
	root, err := tlog.TreeHash(int64(size), g)
	if err != nil {
		return old, nil, err
	}
	files, err := g.files(int64(old.Size), int64(size))
	if err != nil {
		return old, nil, err
	}
	return statement.LogHead{Size: size, Root: statement.Hash(root)}, append(files, bundles(first, entries)...), nil
}

// growth reads hashes of the old tree from its tiles, and keeps those of new entries.
type growth struct {
	old   tlog.HashReader
	from  int64 // the stored index of fresh[0]
	fresh []tlog.Hash
}

// ReadHashes serves both.
func (g growth) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var older []int64
	for _, index := range indexes {
		if index < g.from {
			older = append(older, index)
		}
	}
	var read []tlog.Hash
	if len(older) > 0 {
		var err error
		if read, err = g.old.ReadHashes(older); err != nil {
			return nil, err
		}
	}
	all := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		switch {
		case index < g.from:
			all[i], read = read[0], read[1:]
		case index < g.from+int64(len(g.fresh)):
			all[i] = g.fresh[index-g.from]
		default:
			return nil, fmt.Errorf("hash %d is not in the tree", index)
		}
	}
	return all, nil
}

// add takes one more entry, or holds one that is in the record already to what it holds.
func (g *growth) add(index, known uint64, entry []byte) error {
	if index < known {
		held, err := g.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index))})
		if err != nil {
			return err
		}
		if held[0] != tlog.RecordHash(entry) {
			return fmt.Errorf("entry %d is not what the record holds: %w", index, ErrForked)
		}
		return nil
	}
	hashes, err := tlog.StoredHashes(int64(index), entry, g)
	if err != nil {
		return err
	}
	g.fresh = append(g.fresh, hashes...)
	return nil
}

func (g growth) files(from, to int64) ([]File, error) {
	var files []File
	for _, tile := range tlog.NewTiles(height, from, to) {
		data, err := tlog.ReadTileData(tile, g)
		if err != nil {
			return nil, err
		}
		files = append(files, File{path(tile), data})
	}
	return files, nil
}

// bundles frames entries, of which the first begins a bundle.
func bundles(first uint64, entries [][]byte) []File {
	var files []File
	for n := first / Width; len(entries) > 0; n++ {
		some := entries[:min(len(entries), Width)]
		entries = entries[len(some):]
		var data []byte
		for _, entry := range some {
			data = appendEntry(data, entry)
		}
		files = append(files, File{path(bundle(n, uint64(len(some)))), data})
	}
	return files
}

// authenticated reads hashes that the tiles prove to be in the head's tree.
func authenticated(head statement.LogHead, source Source) tlog.HashReader {
	if head.Size == 0 {
		return tlog.HashReaderFunc(func([]int64) ([]tlog.Hash, error) { return nil, errors.New("the tree is empty") })
	}
	reader := &tiles{source: source}
	inner := tlog.TileHashReader(tlog.Tree{N: int64(head.Size), Hash: tlog.Hash(head.Root)}, reader)
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes, err := inner.ReadHashes(indexes)
		if err != nil && reader.failed == nil {
			return nil, fmt.Errorf("%w: %w", ErrForged, err)
		}
		return hashes, err
	})
}
