package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"go.etcd.io/bbolt"
)

var (
	bucketEvents = []byte("events") // 8-byte big-endian index → the event's bytes
	bucketDisk   = []byte("disk")   // "mark" → the disk's id
	keyMark      = []byte("mark")
)

// EventLog is every committed event since the first, by index, as the bytes that will be audit leaves. It only grows,
// and Append is durable when it returns. Reads are safe beside one appender.
type EventLog struct {
	db *bbolt.DB
}

func openEvents(dir string) (*EventLog, error) {
	path := filepath.Join(dir, eventsFile)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: openTimeout})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, errEvents := tx.CreateBucketIfNotExists(bucketEvents)
		_, errDisk := tx.CreateBucketIfNotExists(bucketDisk)
		return errors.Join(errEvents, errDisk)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return &EventLog{db: db}, nil
}

func (l *EventLog) close() error { return l.db.Close() }

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
func (l *EventLog) Len() (uint64, error) {
	var n uint64
	err := l.db.View(func(tx *bbolt.Tx) error {
		n = length(tx.Bucket(bucketEvents))
		return nil
	})
	return n, err
}

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
	have, err := l.Len()
	if err != nil {
		return err
	}
	if index > have {
		return fmt.Errorf("event %d after %d events: %w", index, have, ErrDisk)
	}
	known := min(have-index, uint64(len(events)))
	if err := l.same(index, events[:known]); err != nil {
		return err
	}
	if known == uint64(len(events)) {
		return nil
	}
	return l.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEvents)
		b.FillPercent = 1 // keys only ever grow
		for i := known; i < uint64(len(events)); i++ {
			if err := b.Put(key(index+i), events[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *EventLog) same(index uint64, events [][]byte) error {
	if len(events) == 0 {
		return nil
	}
	return l.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEvents)
		for i, event := range events {
			if !bytes.Equal(b.Get(key(index+uint64(i))), event) {
				return fmt.Errorf("event %d is not what the log held before: %w", index+uint64(i), ErrDisk)
			}
		}
		return nil
	})
}

// Read returns at most limit events from index on, in order; none when there are none yet. The bytes are copies.
func (l *EventLog) Read(index uint64, limit int) ([][]byte, error) {
	var events [][]byte
	err := l.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketEvents).Cursor()
		for k, v := c.Seek(key(index)); k != nil && len(events) < limit; k, v = c.Next() {
			if binary.BigEndian.Uint64(k) != index+uint64(len(events)) {
				return fmt.Errorf("event %d is missing: %w", index+uint64(len(events)), ErrDisk)
			}
			events = append(events, bytes.Clone(v))
		}
		return nil
	})
	return events, err
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }
