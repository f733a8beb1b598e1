package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Width is how many hashes a full tile has, and how many entries a full bundle.
const Width = 1 << height

const height = 8

// PathCheckpoint is the newest signed checkpoint's path in a record; the others begin with tile/.
const PathCheckpoint = "checkpoint"

// Source reads a record: it returns the bytes at a path, "checkpoint" or a tile's. What is not there is fs.ErrNotExist.
// A partial tile may be cut from a wider one: tiles only grow.
type Source func(path string) ([]byte, error)

// path is a tile's name in the record: tile/0/x001/067, tile/1/000.p/3, tile/entries/000.p/7.
func path(t tlog.Tile) string {
	rest := strings.TrimPrefix(t.Path(), "tile/"+strconv.Itoa(height)+"/")
	if t.L < 0 {
		rest = "entries/" + strings.TrimPrefix(rest, "data/")
	}
	return "tile/" + rest
}

// parsePath is path's inverse; a path has one spelling.
func parsePath(text string) (tlog.Tile, error) {
	rest, _ := strings.CutPrefix(text, "tile/")
	if entries, are := strings.CutPrefix(rest, "entries/"); are {
		rest = "data/" + entries
	}
	t, err := tlog.ParseTilePath("tile/" + strconv.Itoa(height) + "/" + rest)
	if err != nil || path(t) != text {
		return tlog.Tile{}, fmt.Errorf("%.80q is no tile's path", text)
	}
	return t, nil
}

// CheckPath reports whether a tile's path is well spelled, and whether it names a bundle of entries.
func CheckPath(text string) (entries bool, err error) {
	t, err := parsePath(text)
	return t.L < 0, err
}

func bundle(n, width uint64) tlog.Tile {
	return tlog.Tile{H: height, L: -1, N: int64(n), W: int(width)}
}

// FromFS is the Source of a record's directory: a broker's own, or a copy of it.
func FromFS(files fs.FS) Source {
	return func(name string) ([]byte, error) {
		data, err := fs.ReadFile(files, name)
		if name == PathCheckpoint || !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
		t, err := parsePath(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return cutFromWider(files, t)
	}
}

// cutFromWider reads a partial tile that the record has outgrown.
func cutFromWider(files fs.FS, t tlog.Tile) ([]byte, error) {
	asked := t.W
	full := t
	full.W = Width
	if data, err := fs.ReadFile(files, path(full)); err == nil {
		return cut(t, data)
	}
	listed, err := fs.ReadDir(files, path(full)+".p")
	if err != nil {
		return nil, err
	}
	for _, entry := range listed {
		if width, err := strconv.Atoi(entry.Name()); err == nil && width > asked && width < Width {
			t.W = width
			data, err := fs.ReadFile(files, path(t))
			if err != nil {
				return nil, err
			}
			t.W = asked
			return cut(t, data)
		}
	}
	return nil, fmt.Errorf("%s: %w", path(t), fs.ErrNotExist)
}

// cut returns the first t.W hashes or entries of a wider tile.
func cut(t tlog.Tile, data []byte) ([]byte, error) {
	if t.L >= 0 {
		return data[:min(len(data), t.W*tlog.HashSize)], nil
	}
	rest := data
	for range t.W {
		var err error
		if _, rest, err = nextEntry(rest); err != nil {
			return nil, fmt.Errorf("%s: %w", path(t), err)
		}
	}
	return data[:len(data)-len(rest)], nil
}

const lengthBytes = 4

// appendEntry frames one entry.
func appendEntry(to, entry []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(entry))), entry...)
}

func nextEntry(data []byte) (entry, rest []byte, err error) {
	if len(data) < lengthBytes {
		return nil, nil, errors.New("the length of an entry is cut off")
	}
	length := uint64(binary.BigEndian.Uint32(data))
	if data = data[lengthBytes:]; length > uint64(len(data)) {
		return nil, nil, fmt.Errorf("an entry of %d bytes is cut off after %d", length, len(data))
	}
	return data[:length], data[length:], nil
}

// readEntries returns the entries of one bundle. On an error the entries before the bad one come with it.
func readEntries(data []byte, width uint64) ([][]byte, error) {
	var entries [][]byte
	for uint64(len(entries)) < width {
		entry, rest, err := nextEntry(data)
		if err != nil {
			return entries, err
		}
		entries, data = append(entries, entry), rest
	}
	if len(data) > 0 {
		return entries[:width-1], fmt.Errorf("%d bytes follow the last entry", len(data))
	}
	return entries, nil
}

// tiles lets tlog read hash tiles from a source, and remembers why it could not.
type tiles struct {
	source Source
	failed error
}

// Height is fixed.
func (t *tiles) Height() int { return height }

// ReadTiles reads each tile.
func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(wanted))
	for i, tile := range wanted {
		data, err := t.source(path(tile))
		if err != nil {
			t.failed = fmt.Errorf("%s: %w", path(tile), err)
			return nil, t.failed
		}
		all[i] = data
	}
	return all, nil
}

// SaveTiles keeps nothing: sources are read anew.
func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// Partials returns the paths of the partial tiles and bundle in a record of this size: all others are full.
func Partials(size uint64) []string {
	var all []string
	if width := size % Width; width > 0 {
		all = append(all, path(bundle(size/Width, width)))
	}
	for level := 0; size>>(height*level) > 0; level++ {
		hashes := size >> (height * level)
		if width := hashes % Width; width > 0 {
			all = append(all, path(tlog.Tile{H: height, L: level, N: int64(hashes / Width), W: int(width)}))
		}
	}
	return all
}
