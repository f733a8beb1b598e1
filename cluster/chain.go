package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// chainedStore puts a hash chain under raft's log, because raft-boltdb has no checksum and an altered byte would be
// applied as another command (FACTS R2). Each stored entry carries, in Extensions, the sum of the entry before and its
// own: sha256(before | index | term | type | data). Raft never sees them.
type chainedStore struct {
	raft.LogStore
}

const sumLength = sha256.Size

// StoreLog stores one entry.
func (s chainedStore) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries, each chained to the one before it. Where the one before is in a snapshot that was sent, what
// the store still holds is older than that: it goes first, so that the log never has a gap.
func (s chainedStore) StoreLogs(entries []*raft.Log) error {
	if err := s.close(entries[0].Index); err != nil {
		return err
	}
	chained := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		before, err := s.before(entry, chained[:i])
		if err != nil {
			return err
		}
		linked := *entry
		linked.Extensions = append(before, sumOf(before, entry)...)
		chained[i] = &linked
	}
	return s.LogStore.StoreLogs(chained)
}

// close empties a log that ends before the entry in front of the next.
func (s chainedStore) close(next uint64) error {
	last, err := s.LastIndex()
	if err != nil || last == 0 || last+1 >= next {
		return err
	}
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	return s.DeleteRange(first, last)
}

// before returns the sum of the entry that precedes this one: zeros when the log starts here.
func (s chainedStore) before(entry *raft.Log, batch []*raft.Log) ([]byte, error) {
	if len(batch) > 0 && batch[len(batch)-1].Index == entry.Index-1 {
		return bytes.Clone(batch[len(batch)-1].Extensions[sumLength:]), nil
	}
	var previous raft.Log
	err := s.LogStore.GetLog(entry.Index-1, &previous)
	if errors.Is(err, raft.ErrLogNotFound) {
		return make([]byte, sumLength), nil
	}
	if err != nil {
		return nil, err
	}
	if err := intact(&previous); err != nil {
		return nil, err
	}
	return bytes.Clone(previous.Extensions[sumLength:]), nil
}

// GetLog reads one entry and refuses one that was altered.
func (s chainedStore) GetLog(index uint64, entry *raft.Log) error {
	if err := s.LogStore.GetLog(index, entry); err != nil {
		return err
	}
	if err := intact(entry); err != nil {
		return err
	}
	entry.Extensions = nil
	return nil
}

// check walks the whole log: every entry intact, and chained to the one before it.
func (s chainedStore) check() error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil || first == 0 {
		return err
	}
	var before []byte
	for index := first; index <= last; index++ {
		var entry raft.Log
		if err := s.LogStore.GetLog(index, &entry); err != nil {
			return fmt.Errorf("raft entry %d: %w: %w", index, ErrDisk, err)
		}
		if err := intact(&entry); err != nil {
			return err
		}
		if entry.Index != index {
			return fmt.Errorf("raft entry %d stands in the place of %d: %w", entry.Index, index, ErrDisk)
		}
		if before != nil && !bytes.Equal(before, entry.Extensions[:sumLength]) {
			return fmt.Errorf("raft entry %d does not follow the one before it: %w", index, ErrDisk)
		}
		before = bytes.Clone(entry.Extensions[sumLength:])
	}
	return nil
}

func intact(entry *raft.Log) error {
	if len(entry.Extensions) != 2*sumLength || !bytes.Equal(sumOf(entry.Extensions[:sumLength], entry), entry.Extensions[sumLength:]) {
		return fmt.Errorf("raft entry %d was altered: %w", entry.Index, ErrDisk)
	}
	return nil
}

func sumOf(before []byte, entry *raft.Log) []byte {
	h := sha256.New()
	h.Write(before)
	h.Write(binary.BigEndian.AppendUint64(nil, entry.Index))
	h.Write(binary.BigEndian.AppendUint64(nil, entry.Term))
	h.Write([]byte{byte(entry.Type)})
	h.Write(entry.Data)
	return h.Sum(nil)
}
