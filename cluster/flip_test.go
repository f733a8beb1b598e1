package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// flipSeed picks the bytes that are altered, one after the other.
const flipSeed = 4

// flips is how many.
func flips() int {
	if testing.Short() {
		return 200
	}
	return 1000
}

// lived returns the directory of a broker that did some work: elections, a snapshot, entries that were cut off the log.
func lived(t *testing.T) *lone {
	t.Helper()
	l := newLone(t)
	l.close()
	dir := memory(t) // a thousand times over, and synced: not onto the disk
	if err := os.CopyFS(dir, os.DirFS(l.dir)); err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	l.open()
	short := l.node.raft.ReloadableConfig()
	short.TrailingLogs = 30
	if err := l.node.raft.ReloadConfig(short); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for range 60 {
			l.propose(l.refusal())
		}
		if err := l.node.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		l.restart()
	}
	for range 10 {
		l.propose(l.refusal())
	}
	l.close()
	return l
}

// eachFlip alters one byte after the other of a file, as far as the database reaches, and puts it back.
func eachFlip(t *testing.T, path string, try func(at int64, what string)) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := openPages(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	draw := rand.New(rand.NewPCG(flipSeed, uint64(len(whole))))
	for range flips() {
		at, with := draw.Int64N(int64(p.high*p.size)), byte(1+draw.IntN(255))
		harmed := bytes.Clone(whole)
		harmed[at] ^= with
		if err := os.WriteFile(path, harmed, 0o600); err != nil {
			t.Fatal(err)
		}
		try(at, fmt.Sprintf("seed %d, byte %d of %s (page %d + %d) altered by %#x", flipSeed, at, filepath.Base(path), at/int64(p.size), at%int64(p.size), with))
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
}

// raftContent is all that raft would ever read of raft.db.
func raftContent(t *testing.T, path string) string {
	t.Helper()
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var text bytes.Buffer
	for _, name := range append(raftValues, string(markKey), string(foundingKey)) {
		value, err := sealedValues{store}.Get([]byte(name))
		fmt.Fprintf(&text, "%s %q %v\n", name, value, err)
	}
	first, _ := store.FirstIndex()
	last, _ := store.LastIndex()
	for index := first; index <= last; index++ {
		var entry raft.Log
		err := chainedStore{store}.GetLog(index, &entry)
		fmt.Fprintf(&text, "%d %d %s %q %v\n", entry.Index, entry.Term, entry.Type, entry.Data, err)
	}
	return text.String()
}

// TestEachAlteredByteOfRaftDBIsNoticedOrHarmless alters a thousand bytes. What Preflight does not refuse must have no
// effect: raft reads the same, and goes on writing.
func TestEachAlteredByteOfRaftDBIsNoticedOrHarmless(t *testing.T) {
	l := lived(t)
	digest, _ := l.reopened()
	path, noticed := l.file(raftFile), 0
	want := raftContent(t, path)
	eachFlip(t, path, func(_ int64, what string) {
		err := Preflight(l.dir)
		if errors.Is(err, ErrDisk) {
			noticed++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if raftContent(t, path) != want {
			t.Fatalf("%s: unnoticed, and raft reads something else", what)
		}
		if err := asBoltSeesIt(path); err != nil {
			t.Fatalf("%s: unnoticed, and bbolt says %v", what, err)
		}
		if err := goesOn(path); err != nil {
			t.Fatalf("%s: unnoticed, and after a write: %v", what, err)
		}
	})
	if again, _ := l.reopened(); again != digest {
		t.Error("another state")
	}
	t.Logf("%d altered bytes of raft.db, seed %d: %d noticed, the others without effect", flips(), flipSeed, noticed)
}

// asBoltSeesIt is bbolt's own check, so that we do not agree only with ourselves.
func asBoltSeesIt(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		var all error
		for err := range tx.Check() {
			all = errors.Join(all, err)
		}
		return all
	})
}

// goesOn writes to raft.db as raft does, and looks at all of it again.
func goesOn(path string) error {
	store, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		return err
	}
	first, _ := store.FirstIndex()
	last, _ := store.LastIndex()
	err = errors.Join(sealedValues{store}.SetUint64([]byte("CurrentTerm"), 99), store.DeleteRange(first, first+3))
	for i := range uint64(3) {
		err = errors.Join(err, chainedStore{store}.StoreLog(&raft.Log{Index: last + 1 + i, Term: 99, Data: bytes.Repeat([]byte("x"), 3000)}))
	}
	return errors.Join(err, chainedStore{store}.check(), store.Close(), withPages(path, func(p pages, m meta) error {
		_, err := wholeRaft(p, m)
		return err
	}))
}

// TestEachAlteredByteOfEventsDBIsNoticedOrHarmless does the same to the event log, most of which is read long after the
// start: every event that is handed out is the one that was written.
func TestEachAlteredByteOfEventsDBIsNoticedOrHarmless(t *testing.T) {
	l := lived(t)
	want := l.allEvents()
	path, noticed, later := l.file(eventsFile), 0, 0
	mark, err := readMark(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	eachFlip(t, path, func(_ int64, what string) {
		if _, err := preflightEvents(l.dir, mark); errors.Is(err, ErrDisk) { // the part of Preflight that reads this file
			noticed++
			return
		} else if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := readsOrRefuses(l.dir, want); errors.Is(err, ErrDisk) {
			later++
			if err := os.Remove(l.file(damagedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
	t.Logf("%d altered bytes of events.db, seed %d: %d noticed at the start, %d when the event was read, the others without effect", flips(), flipSeed, noticed, later)
}

// readsOrRefuses appends to the log and reads every event. ErrDisk says that a read was refused.
func readsOrRefuses(dir string, want [][]byte) error {
	log, err := openEvents(dir)
	if err != nil {
		return err
	}
	defer log.close()
	all := append(want, bytes.Repeat([]byte("y"), 5000))
	if err := log.append(uint64(len(want)), all[len(want):]); err != nil {
		return err
	}
	var refused error
	for i := 0; i < len(all); {
		read, err := log.Read(uint64(i), 16)
		if errors.Is(err, ErrDisk) { // one of them, then: whichever it is, the others are read
			read, err = log.Read(uint64(i), 1)
		}
		if errors.Is(err, ErrDisk) {
			refused, read, err = err, all[i:i+1], nil
		}
		if err != nil || len(read) == 0 || !slices.EqualFunc(read, all[i:i+len(read)], bytes.Equal) {
			return fmt.Errorf("event %d of %d reads as %.80q, %v", i, len(all), read, err)
		}
		i += len(read)
	}
	return refused
}

// TestEachAlteredByteBesideTheDatabasesIsNoticed alters every byte of what raft wrote about its snapshots and of the disk's
// id, and a thousand of the newest state.
func TestEachAlteredByteBesideTheDatabasesIsNoticed(t *testing.T) {
	l := lived(t)
	names, err := snapshotNames(l.file(snapshots))
	if err != nil || len(names) != keptSnapshots {
		t.Fatalf("%v, %v", names, err)
	}
	all := []string{l.file(markFile), filepath.Join(l.file(snapshots), names[1], snapshotState)}
	for _, name := range names {
		all = append(all, filepath.Join(l.file(snapshots), name, snapshotMeta), filepath.Join(l.file(snapshots), name, snapshotSum))
	}
	draw := rand.New(rand.NewPCG(flipSeed, 0))
	for _, path := range all {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range min(len(whole), flips()) {
			at, harmed := draw.IntN(len(whole)), bytes.Clone(whole)
			harmed[at] ^= byte(1 + draw.IntN(255))
			if err := os.WriteFile(path, harmed, 0o600); err != nil {
				t.Fatal(err)
			}
			err := preflightSnapshots(l.file(snapshots), 1<<40)
			if path == l.file(markFile) {
				err = Preflight(l.dir)
			}
			if !errors.Is(err, ErrDisk) {
				t.Fatalf("seed %d, byte %d of %s: %v", flipSeed, at, path, err)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.reopened()
}

// TestWhatAnEarlierBuildWroteIsTaken takes away what it did not write (sums and seals), and has the next start make them up.
func TestWhatAnEarlierBuildWroteIsTaken(t *testing.T) {
	l := lived(t)
	want, digest := l.allEvents(), fmt.Stringer(nil)
	if digest, _ = l.reopened(); digest == nil {
		t.Fatal("no digest")
	}
	db, err := bbolt.Open(l.file(eventsFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketSums) }), db.Close())
	store, errStore := raftboltdb.NewBoltStore(l.file(raftFile))
	if err = errors.Join(err, errStore); err != nil {
		t.Fatal(err)
	}
	for _, name := range raftValues {
		value, errGet := sealedValues{store}.Get([]byte(name))
		err = errors.Join(err, errGet, store.Set([]byte(name), value))
	}
	metas, _ := filepath.Glob(filepath.Join(l.file(snapshots), "*", snapshotSum))
	for _, path := range metas {
		err = errors.Join(err, os.Remove(path))
	}
	if err = errors.Join(err, store.Close()); err != nil || len(metas) != keptSnapshots {
		t.Fatal(err, metas)
	}
	if again, _ := l.reopened(); again != digest {
		t.Error("another state")
	}
	if !slices.EqualFunc(l.allEvents(), want, bytes.Equal) {
		t.Error("other events")
	}
	metas, _ = filepath.Glob(filepath.Join(l.file(snapshots), "*", snapshotSum))
	if len(metas) != keptSnapshots {
		t.Errorf("%d sums of snapshots", len(metas))
	}
}

// TestADiskFoundDamagedWhileItRunsIsNotUsedAgain alters an event of long ago under a broker that runs: whoever asks for it
// gets nothing, the broker stops, and no start takes the disk.
func TestADiskFoundDamagedWhileItRunsIsNotUsedAgain(t *testing.T) {
	l := lived(t)
	first := l.allEvents()[3]
	l.open()
	poke(t, l.file(eventsFile), first)
	if events, _, err := l.node.Events(0, 100); err == nil {
		t.Fatalf("%d events", len(events))
	}
	<-l.node.Failed()
	if !errors.Is(l.node.Err(), ErrDisk) {
		t.Errorf("it stopped for %v", l.node.Err())
	}
	l.close()
	if _, err := Open(l.config()); !errors.Is(err, ErrDisk) || !strings.Contains(err.Error(), "event 3 was altered") {
		t.Errorf("a start says %v", err)
	}
}

// poke alters a byte in the middle of every place where a text stands in a file, under whoever has it open.
func poke(t *testing.T, path string, text []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for from := 0; ; {
		at := bytes.Index(data[from:], text)
		if at < 0 {
			return
		}
		from += at + len(text)
		middle := int64(from - len(text)/2)
		if _, err := file.WriteAt([]byte{data[middle] ^ 1}, middle); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEachTruncationIsNoticed cuts each database short at each of its pages.
func TestEachTruncationIsNoticed(t *testing.T) {
	l := lived(t)
	for _, name := range []string{raftFile, eventsFile} {
		path := l.file(name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := openPages(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			t.Fatal(err)
		}
		for length := int64(0); length < int64(len(whole)); length += int64(p.size) {
			truncate(t, path, length)
			if err := Preflight(l.dir); errors.Is(err, ErrDisk) != (length < int64(p.high*p.size)) {
				t.Errorf("%s cut at page %d of %d: %v", name, length/int64(p.size), p.high, err)
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: cut at each of %d pages", name, p.high)
	}
}

// reopened starts the broker once more and returns its state's digest.
func (l *lone) reopened() (digest fmt.Stringer, index uint64) {
	l.t.Helper()
	l.open()
	defer l.close()
	return l.digest()
}

// allEvents reads the log of a broker that does not run.
func (l *lone) allEvents() [][]byte {
	l.t.Helper()
	log, err := openEvents(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.close()
	all, err := log.Read(0, int(log.Len()))
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}
