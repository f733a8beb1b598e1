package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"pim-ssh/broker/statement"
)

// What stands in events.db. Brokers of before wrote no sums; they read and write the rest as we do.
var (
	bucketEvents = []byte("events") // 8-byte big-endian index → the event's bytes
	bucketSums   = []byte("sums")   // the same index → the sum of all events up to and with this one
	bucketDisk   = []byte("disk")   // "mark" → the disk's id
	keyMark      = []byte("mark")
)

// sumBatch is how many sums are made up at once for a log that has none.
const sumBatch = 1024

// EventLog is every committed event since the first, by index, as the bytes that will be audit leaves. It only grows,
// and Append is durable when it returns. Reads are safe beside one appender.
//
// Each event is chained to those before it, and no event is read that its chain does not hold. Reading goes past bbolt's
// map of the file (package pages): a byte that was altered long ago, anywhere in a log that nobody could check whole at
// every start, is an error on the day that somebody asks for what it harmed.
type EventLog struct {
	db   *bbolt.DB
	file *os.File // for reading
	size atomic.Uint64
	sum  statement.Hash // of everything; the appender's

	unsummed bool // opened to read only, and without sums for every event
}

// nothing is the sum of no events.
var nothing statement.Hash

// link is the sum of a log that goes on with an event.
func link(before statement.Hash, event []byte) statement.Hash {
	h := sha256.New()
	h.Write(before[:])
	h.Write(event)
	return statement.Hash(h.Sum(nil))
}

func openEvents(dir string) (*EventLog, error) {
	path := filepath.Join(dir, eventsFile)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: openTimeout})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l := &EventLog{db: db}
	if l.file, err = os.Open(path); err == nil {
		err = l.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), l.close())
	}
	return l, nil
}

func (l *EventLog) close() error {
	if l.file == nil {
		return l.db.Close()
	}
	return errors.Join(l.file.Close(), l.db.Close())
}

// load finds out how long the log is, and makes up the sums that a broker of before did not write.
func (l *EventLog) load() error {
	var events, sums uint64
	err := l.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketEvents, bucketSums, bucketDisk} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		events, sums = length(tx.Bucket(bucketEvents)), length(tx.Bucket(bucketSums))
		return nil
	})
	if err == nil && sums > events {
		err = fmt.Errorf("%d events and %d sums: %w", events, sums, ErrDisk)
	}
	l.size.Store(events)
	for ; err == nil && sums < events; sums = min(sums+sumBatch, events) {
		err = l.sumUp(sums)
	}
	if err == nil {
		l.sum, err = l.Sum(events)
	}
	if err == nil && events > 0 {
		_, err = l.checked(events-1, 1) // what comes next is chained to it
	}
	return err
}

// sumUp makes up sums from one index on.
func (l *EventLog) sumUp(from uint64) error {
	events, err := l.read(bucketEvents, from, sumBatch)
	if err != nil {
		return err
	}
	sum, err := l.Sum(from)
	if err != nil {
		return err
	}
	return l.db.Update(func(tx *bbolt.Tx) error { return putSums(tx, from, events, sum) })
}

func putSums(tx *bbolt.Tx, index uint64, events [][]byte, sum statement.Hash) error {
	to := tx.Bucket(bucketSums)
	to.FillPercent = 1 // keys only ever grow
	for i, event := range events {
		sum = link(sum, event)
		if err := to.Put(key(index+uint64(i)), bytes.Clone(sum[:])); err != nil { // Put keeps what it is given
			return err
		}
	}
	return nil
}

func putEvents(tx *bbolt.Tx, index uint64, events [][]byte) error {
	to := tx.Bucket(bucketEvents)
	to.FillPercent = 1
	for i, event := range events {
		if err := to.Put(key(index+uint64(i)), event); err != nil {
			return err
		}
	}
	return nil
}

func (l *EventLog) mark() (string, error) {
	var mark string
	err := l.db.View(func(tx *bbolt.Tx) error {
		mark = string(tx.Bucket(bucketDisk).Get(keyMark))
		return nil
	})
	return mark, err
}

func (l *EventLog) setMark(mark string) error {
	return l.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketDisk).Put(keyMark, []byte(mark)) })
}

// Len returns how many events there are: the index the next one will have.
func (l *EventLog) Len() uint64 { return l.size.Load() }

func length(b *bbolt.Bucket) uint64 {
	last, _ := b.Cursor().Last()
	if last == nil {
		return 0
	}
	return binary.BigEndian.Uint64(last) + 1
}

// append adds events from index on. What is there already must be the same bytes (raft replays its log after a
// restart); a gap or a difference is ErrDisk and nothing is written.
func (l *EventLog) append(index uint64, events [][]byte) error {
	have := l.Len()
	if index > have {
		return fmt.Errorf("event %d after %d events: %w", index, have, ErrDisk)
	}
	known := min(have-index, uint64(len(events)))
	if err := l.same(index, events[:known]); err != nil {
		return err
	}
	if events = events[known:]; len(events) == 0 {
		return nil
	}
	err := l.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(putEvents(tx, have, events), putSums(tx, have, events, l.sum))
	})
	if err != nil {
		return err
	}
	for _, event := range events {
		l.sum = link(l.sum, event)
	}
	l.size.Store(have + uint64(len(events)))
	return nil
}

func (l *EventLog) same(index uint64, events [][]byte) error {
	if len(events) == 0 {
		return nil
	}
	held, err := l.Read(index, len(events))
	if err != nil {
		return err
	}
	for i, event := range events {
		if !bytes.Equal(held[i], event) {
			return fmt.Errorf("event %d is not what the log held before: %w", index+uint64(i), ErrDisk)
		}
	}
	return nil
}

// Read returns at most limit events from index on, in order; none when there are none yet. The bytes are copies. An event
// that is not what was appended is ErrDisk, and condemns the disk.
func (l *EventLog) Read(index uint64, limit int) ([][]byte, error) {
	events, err := l.checked(index, limit)
	if errors.Is(err, ErrDisk) {
		condemn(filepath.Dir(l.file.Name()), err)
	}
	return events, err
}

func (l *EventLog) checked(index uint64, limit int) ([][]byte, error) {
	events, err := l.read(bucketEvents, index, limit)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	before, err := l.Sum(index)
	if err != nil {
		return nil, err
	}
	sums, err := l.read(bucketSums, index, len(events))
	if err != nil {
		return nil, err
	}
	for i, event := range events {
		before = link(before, event)
		if !bytes.Equal(before[:], sums[i]) {
			return nil, fmt.Errorf("event %d was altered: %w", index+uint64(i), ErrDisk)
		}
	}
	return events, nil
}

// Sum returns the sum of the first so many events: equal sums, equal logs. There must be so many.
func (l *EventLog) Sum(events uint64) (statement.Hash, error) {
	if events == 0 {
		return nothing, nil
	}
	found, err := l.read(bucketSums, events-1, 1)
	if err == nil && (len(found) == 0 || len(found[0]) != len(nothing)) {
		err = fmt.Errorf("the sum of %d events is missing: %w", events, ErrDisk)
	}
	if err != nil {
		return nothing, err
	}
	return statement.Hash(found[0]), nil
}

// read returns at most limit values by index, as the pages of the file have them.
func (l *EventLog) read(bucket []byte, index uint64, limit int) ([][]byte, error) {
	have := l.Len()
	if index >= have {
		return nil, nil
	}
	found := make([][]byte, 0, min(uint64(limit), have-index))
	err := l.db.View(func(tx *bbolt.Tx) error { // which keeps the pages that it sees from being written again
		in := l.tree(tx, bucket)
		for len(found) < cap(found) {
			next := index + uint64(len(found))
			items, _, err := in.leaf(key(next))
			if err != nil {
				return err
			}
			at, there := slices.BinarySearchFunc(items, key(next), func(one item, key []byte) int { return bytes.Compare(one.key, key) })
			if !there {
				return fmt.Errorf("%s %d is missing: %w", bucket, next, ErrDisk)
			}
			for ; at < len(items) && len(found) < cap(found) && bytes.Equal(items[at].key, key(index+uint64(len(found)))); at++ {
				found = append(found, bytes.Clone(items[at].value))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", eventsFile, err)
	}
	return found, nil
}

// tree is a bucket as a transaction sees it.
func (l *EventLog) tree(tx *bbolt.Tx, bucket []byte) tree {
	size := uint64(l.db.Info().PageSize)
	b := tx.Bucket(bucket)
	t := tree{pages: pages{l.file, size, uint64(tx.Size()) / size}, root: uint64(b.Root())}
	if t.root == 0 { // so few that they stand in the root page
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			t.inline.items = append(t.inline.items, item{key: k, value: v})
		}
	}
	return t
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }
