package audit

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// record is one on a disk in memory.
type record struct {
	t     *testing.T
	files fstest.MapFS
	head  statement.LogHead
}

func newRecord(t *testing.T) *record { return &record{t: t, files: fstest.MapFS{}} }

func (r *record) source() Source { return FromFS(r.files) }

// grow makes the record hold all these entries.
func (r *record) grow(all [][]byte) {
	r.t.Helper()
	head, files, err := Grow(r.head, r.source(), all[First(r.head.Size):])
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range files {
		if old, there := r.files[f.Path]; there && string(old.Data) != string(f.Data) {
			r.t.Fatalf("%s changed", f.Path)
		}
		r.files[f.Path] = &fstest.MapFile{Data: f.Data}
	}
	r.head = head
}

func TestPathsAreThoseOfTlogTiles(t *testing.T) {
	r := newRecord(t)
	r.grow(some(600))
	got := slices.Sorted(func(yield func(string) bool) {
		for name := range r.files {
			if !yield(name) {
				return
			}
		}
	})
	want := []string{"tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, entries := range map[string]bool{"tile/0/x001/067": false, "tile/entries/x001/067.p/3": true} {
		if got, err := CheckPath(name); err != nil || got != entries {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	for _, name := range []string{"", "tile", "tile/", "tile/8/0/000", "tile/data/000", "tile/0/0", "tile/0/000.p/256", "tile/0/000.p/0", "tile/0/000.p/01",
		"tile/0/../1/000", "tile/0/1000", "tile/entries/000/", "tile/-1/000", "checkpoint", "/tile/0/000"} {
		if _, err := CheckPath(name); err == nil {
			t.Errorf("%q is taken for a tile's path", name)
		}
	}
}

func TestAnOutgrownPartialTileIsCutFromAWiderOne(t *testing.T) {
	entries := some(300)
	before, now := newRecord(t), newRecord(t)
	before.grow(entries[:40])
	for _, size := range []int{90, 300} {
		now.grow(entries[:size])
		for name := range now.files {
			if strings.Contains(name, ".p/") && !strings.HasSuffix(name, map[int]string{90: ".p/90", 300: ".p/44"}[size]) && !strings.HasPrefix(name, "tile/1/") {
				delete(now.files, name)
			}
		}
		if _, err := Read(now.source(), before.head, func(uint64, []byte) {}); err != nil {
			t.Errorf("the record of 40 among %d: %v", size, err)
		}
	}
	if _, err := now.source()("tile/0/001.p/45"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tile wider than there is: %v", err)
	}
}

func TestANewerHeadExtendsAnOlderOneOrIsRefused(t *testing.T) {
	entries := some(1000)
	forked := slices.Clone(entries)
	forked[77] = []byte("not what happened")
	var honest, owned [1001]statement.LogHead
	h, o := newRecord(t), newRecord(t)
	for _, size := range []int{1, 50, 256, 257, 600, 1000} {
		h.grow(entries[:size])
		o.grow(forked[:size])
		honest[size], owned[size] = h.head, o.head
	}
	sizes := []int{1, 50, 256, 257, 600, 1000}
	for i, older := range sizes {
		for _, newer := range sizes[i:] {
			if err := Extends(h.source(), honest[older], honest[newer]); err != nil {
				t.Errorf("%d → %d: %v", older, newer, err)
			}
			if err := Extends(o.source(), honest[older], owned[newer]); older > 77 && !errors.Is(err, ErrForked) {
				t.Errorf("rewritten after %d, shown at %d: %v", older, newer, err)
			}
		}
	}
	if err := Extends(h.source(), honest[600], honest[50]); !errors.Is(err, ErrShrunk) {
		t.Errorf("shrunk: %v", err)
	}
	if err := Extends(h.source(), honest[50], owned[1000]); !errors.Is(err, ErrForged) {
		t.Errorf("tiles of another tree: %v", err)
	}
	delete(h.files, "tile/0/000")
	if err := Extends(h.source(), honest[50], honest[1000]); err == nil || errors.Is(err, ErrForged) {
		t.Errorf("a tile that is not there: %v", err)
	}
	if err := Extends(h.source(), statement.LogHead{}, honest[50]); err != nil {
		t.Errorf("from nothing: %v", err)
	}
}

func TestARecordDoesNotGrowOverOtherEntries(t *testing.T) {
	entries := some(100)
	r := newRecord(t)
	r.grow(entries[:50])
	changed := slices.Clone(entries)
	changed[7] = []byte("other")
	if _, _, err := Grow(r.head, r.source(), changed); !errors.Is(err, ErrForked) {
		t.Errorf("other entries: %v", err)
	}
	if _, _, err := Grow(r.head, r.source(), entries[:20]); err == nil {
		t.Error("fewer entries")
	}
	r.files["tile/0/000.p/50"].Data[3] ^= 1
	if _, _, err := Grow(r.head, r.source(), entries); !errors.Is(err, ErrForged) {
		t.Errorf("a damaged tile: %v", err)
	}
}

// TestEveryFlippedByteOfEntriesAndTilesIsNamed flips each byte of a small record, and bytes of a large one.
func TestEveryFlippedByteOfEntriesAndTilesIsNamed(t *testing.T) {
	for size, stride := range map[int]int{5: 1, 300: 997} {
		r := newRecord(t)
		r.grow(some(size))
		for name, file := range r.files {
			for at := 0; at < len(file.Data); at += stride {
				file.Data[at] ^= byte(1 + at%255)
				_, err := Read(r.source(), r.head, func(uint64, []byte) {})
				var wrong *Wrong
				if !errors.As(err, &wrong) || wrong.Where != name {
					t.Errorf("%s byte %d flipped: %v", name, at, err)
				}
				file.Data[at] ^= byte(1 + at%255)
			}
		}
	}
}

func TestAMissingOrShortenedFileIsNamed(t *testing.T) {
	r := newRecord(t)
	r.grow(some(600))
	for name, file := range r.files {
		for what, changed := range map[string]*fstest.MapFile{"gone": nil, "empty": {}, "shorter": {Data: file.Data[:len(file.Data)-1]},
			"longer": {Data: append(slices.Clone(file.Data), 0)}} {
			r.files[name] = changed
			if changed == nil {
				delete(r.files, name)
			}
			_, err := Read(r.source(), r.head, func(uint64, []byte) {})
			var wrong *Wrong
			if !errors.As(err, &wrong) || wrong.Where != name {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
		r.files[name] = file
	}
	_, err := Read(r.source(), statement.LogHead{Size: 600, Root: statement.HashOf(nil)}, func(uint64, []byte) {})
	var wrong *Wrong
	if !errors.As(err, &wrong) || wrong.Where != PathCheckpoint || wrong.Index != NoIndex {
		t.Errorf("another root: %v", err)
	}
}

func logKey(name string) statement.Key { return signtest.Public(signtest.Ed25519(name)) }
