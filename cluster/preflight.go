package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"pim-ssh/broker"
)

// What stands in a snapshot's directory. Raft writes the first two, of which only the second carries a checksum.
const (
	snapshotMeta  = "meta.json"
	snapshotState = "state.bin"
	snapshotSum   = "meta.sha256" // ours; a broker of before left none
)

// Preflight reads what a broker is about to rely on, and changes nothing: all of raft.db, the newest snapshot, and of
// events.db what stands where it will be written to and how far it reaches. How long that takes does not depend on how
// much ever happened: old events are held to their sums when they are read. Damage is ErrDisk.
//
// It maps no file that it has not read page by page before. Whoever can, calls it in a process of its own all the same,
// and takes every way in which that ends but nil for damage.
func Preflight(dir string) error {
	mark, err := readMark(dir)
	if err != nil {
		return err
	}
	if err := preflightRaft(dir, mark); err != nil {
		return err
	}
	have, err := preflightEvents(dir, mark)
	if err != nil {
		return err
	}
	return preflightSnapshots(filepath.Join(dir, snapshots), have)
}

// withPages opens a database's file for reading while no other process writes to it: one that does is waited for, but not
// long.
func withPages(path string, look func(pages, meta) error) error {
	held, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: openTimeout}) // looks at no page but the headers
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s is held by another process: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrDisk, err)
	}
	defer held.Close()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	p, m, err := openPages(file, info.Size())
	if err == nil {
		err = look(p, m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// preflightRaft reads every page, value and entry of raft.db.
func preflightRaft(dir, mark string) error {
	path := filepath.Join(dir, raftFile)
	return withPages(path, func(p pages, m meta) error {
		values, err := wholeRaft(p, m)
		if err == nil {
			err = checkValues(values)
		}
		if err == nil && string(values[string(markKey)]) != mark {
			err = fmt.Errorf("it belongs to another disk: %w", ErrDisk)
		}
		if err != nil {
			return err
		}
		store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: openTimeout}})
		if err != nil {
			return err
		}
		if _, err = readFounding(store); err == nil {
			err = chainedStore{store}.check()
		}
		return errors.Join(err, store.Close())
	})
}

// wholeRaft reads every page of raft.db, and returns raft's values and our own.
func wholeRaft(p pages, m meta) (map[string][]byte, error) {
	in, err := p.trees(m, []string{"conf", "logs"}, nil)
	if err != nil {
		return nil, err
	}
	u, err := p.use(m)
	if err != nil {
		return nil, err
	}
	values := map[string][]byte{}
	_, span, err := p.read(m.root)
	if err == nil {
		err = u.take(m.root, span)
	}
	if err == nil {
		err = u.walk(in["logs"], func(_, _ []byte) error { return nil })
	}
	if err == nil {
		err = u.walk(in["conf"], func(k, v []byte) error { values[string(k)] = v; return nil })
	}
	if err == nil {
		err = u.complete()
	}
	return values, err
}

// preflightEvents reads what events.db will be written to by, and returns how many events there are. Its old pages are
// not read.
func preflightEvents(dir, mark string) (have uint64, err error) {
	err = withPages(filepath.Join(dir, eventsFile), func(p pages, m meta) error {
		last, err := p.edges(m, []string{string(bucketDisk), string(bucketEvents)}, []string{string(bucketSums)})
		if err != nil {
			return err
		}
		if string(last[string(bucketDisk)].value) != mark {
			return fmt.Errorf("it belongs to another disk: %w", ErrDisk)
		}
		have = after(last[string(bucketEvents)].key)
		if sums := after(last[string(bucketSums)].key); sums > have {
			return fmt.Errorf("%d events and %d sums: %w", have, sums, ErrDisk)
		}
		return nil
	})
	return have, err
}

// after is the index after a key, 0 after none.
func after(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key) + 1
}

// edges reads the pages that every write to a database reads: the free list and, in each bucket, those that lead to its
// last item, which it returns.
func (p pages) edges(m meta, must, may []string) (map[string]item, error) {
	in, err := p.trees(m, must, may)
	if err != nil {
		return nil, err
	}
	last, taken := map[string]item{}, []uint64{m.root}
	for name, t := range in {
		items, path, err := t.leaf(nil)
		if err != nil {
			return nil, err
		}
		taken = append(taken, path...)
		if len(items) > 0 {
			last[name] = items[len(items)-1]
		}
	}
	free, own, err := p.free(m)
	for i := range own {
		taken = append(taken, m.freelist+i)
	}
	for _, id := range taken {
		if _, listed := slices.BinarySearch(free, id); listed {
			return nil, damaged(id, "it is used, and listed as free")
		}
	}
	return last, err
}

// kept is what raft wrote of one snapshot beside its state.
type kept struct {
	raft.SnapshotMeta
	CRC []byte
}

// preflightSnapshots reads what raft knows of each snapshot, and all of the newest, which must not reach further than the
// events do. A newest one that raft could not read would have it fall back to the older one without a word (FACTS R3).
func preflightSnapshots(dir string, events uint64) error {
	names, err := snapshotNames(dir)
	if err != nil || len(names) == 0 {
		return err
	}
	var newest kept
	for _, name := range names {
		if newest, err = readKept(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("snapshot %s: %w: %w", name, ErrDisk, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, newest.ID, snapshotState))
	sum := crc64.Checksum(data, crc64.MakeTable(crc64.ECMA))
	if err == nil && (int64(len(data)) != newest.Size || !bytes.Equal(newest.CRC, binary.BigEndian.AppendUint64(nil, sum))) {
		err = errors.New("the state was altered")
	}
	var state *broker.State
	if err == nil {
		state, err = broker.DecodeState(data)
	}
	if err == nil && state.Index() > events {
		err = fmt.Errorf("it reaches event %d, %s only %d", state.Index(), eventsFile, events)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w: %w", newest.ID, ErrDisk, err)
	}
	return nil
}

// snapshotNames returns the names (term-index-milliseconds) of the snapshots there are, the newest last.
func snapshotNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if place(entry.Name()) != nil && filepath.Ext(entry.Name()) != ".tmp" {
			names = append(names, entry.Name())
		}
	}
	slices.SortFunc(names, bySnapshot)
	return names, nil
}

// place is what a snapshot's name says: term, index and milliseconds; nil: it is no snapshot's.
func place(name string) []uint64 {
	at := make([]uint64, 3)
	if _, err := fmt.Sscanf(name, "%d-%d-%d", &at[0], &at[1], &at[2]); err != nil {
		return nil
	}
	return at
}

// bySnapshot orders snapshots by name, the newest last.
func bySnapshot(a, b string) int { return slices.Compare(place(a), place(b)) }

// readKept reads what raft wrote of a snapshot, and holds it to its sum and to its name.
func readKept(dir string) (kept, error) {
	data, err := os.ReadFile(filepath.Join(dir, snapshotMeta))
	if err != nil {
		return kept{}, err
	}
	sum, err := os.ReadFile(filepath.Join(dir, snapshotSum))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kept{}, err
	}
	if err == nil && string(sum) != sumText(data) {
		return kept{}, fmt.Errorf("%s was altered", snapshotMeta)
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return kept{}, err
	}
	if !strings.HasPrefix(k.ID, fmt.Sprintf("%d-%d-", k.Term, k.Index)) || k.ID != filepath.Base(dir) {
		return kept{}, fmt.Errorf("%s is another snapshot's", snapshotMeta)
	}
	return k, nil
}

func sumText(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]) + "\n"
}

// summedSnapshots are raft's snapshots with a sum of what raft wrote of each beside it.
type summedSnapshots struct {
	*raft.FileSnapshotStore
	dir  string
	disk *failstop
}

// openSnapshots opens raft's snapshots in a broker's directory.
func openSnapshots(dir string, disk *failstop, log io.Writer) (summedSnapshots, error) {
	files, err := raft.NewFileSnapshotStore(dir, keptSnapshots, log)
	s := summedSnapshots{files, filepath.Join(dir, snapshots), disk}
	if err != nil {
		return s, fmt.Errorf("snapshots: %w", err)
	}
	names, err := snapshotNames(s.dir)
	for _, name := range names { // a broker of before wrote no sums, and a crash may have left one out
		err = errors.Join(err, s.sum(name))
	}
	return s, err
}

// sum writes a snapshot's sum, if it has none.
func (s summedSnapshots) sum(id string) error {
	path := filepath.Join(s.dir, id, snapshotSum)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(s.dir, id, snapshotMeta))
	if err != nil {
		return err
	}
	return writeFile(path, []byte(sumText(data)))
}

// Create begins a snapshot.
func (s summedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, members, membersIndex, transport)
	if err != nil {
		return nil, err
	}
	return summedSink{sink, s}, nil
}

// summedSink is a snapshot being written.
type summedSink struct {
	raft.SnapshotSink
	store summedSnapshots
}

// Write writes some of the state.
func (s summedSink) Write(data []byte) (n int, err error) {
	err = s.store.disk.do(snapshots, func() error {
		n, err = s.SnapshotSink.Write(data)
		return err
	})
	return n, err
}

// Close completes the snapshot.
func (s summedSink) Close() error {
	return s.store.disk.do(snapshots, func() error {
		if err := s.SnapshotSink.Close(); err != nil {
			return err
		}
		err := s.store.sum(s.ID())
		if errors.Is(err, fs.ErrNotExist) && s.store.overtaken(s.ID()) {
			return nil
		}
		return err
	})
}

// overtaken reports whether so many newer snapshots were completed while this one was written that raft has taken it away.
func (s summedSnapshots) overtaken(id string) bool {
	names, err := snapshotNames(s.dir)
	return err == nil && len(names) >= keptSnapshots && slices.IndexFunc(names, func(name string) bool { return bySnapshot(name, id) <= 0 }) < 0
}
