package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"pim-ssh/broker"
)

// salvageBatch is how many events are read at once.
const salvageBatch = 512

// Salvaged is what the disk of a stopped broker holds: every event, and the state that they fold to.
type Salvaged struct {
	State *broker.State
	Late  int   // of the events, the last so many stand in raft's log alone: a leader that is gone may have acknowledged them
	Doubt error // why raft's log was not looked at; nil when it was

	log  *EventLog
	tail [][]byte // the late ones
}

// Salvage reads the disk of a broker that does not run, and changes nothing on it. Beside the committed events it takes what
// raft's log holds further on, as if that had been committed: when the other brokers are gone for good, nobody can say any more
// that it was not, and what was acknowledged must not be lost. Where raft.db or the snapshots are damaged, events.db alone
// counts, and Doubt says so. The caller closes what it gets.
func Salvage(dir string) (*Salvaged, error) {
	path := filepath.Join(dir, eventsFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEmpty, err)
	}
	log, err := eventsToRead(dir)
	if err != nil {
		return nil, err
	}
	s := &Salvaged{log: log}
	if s.State, err = s.fold(); err != nil {
		return nil, errors.Join(err, log.close())
	}
	if s.Doubt = s.follow(dir); s.Doubt != nil {
		s.tail = nil
		if s.State, err = s.fold(); err != nil {
			return nil, errors.Join(err, log.close())
		}
	}
	s.Late = len(s.tail)
	return s, nil
}

// Close closes the disk.
func (s *Salvaged) Close() error { return s.log.close() }

// Events returns every event's bytes, in order.
func (s *Salvaged) Events() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for leaf, err := range s.log.all() {
			if !yield(leaf, err) || err != nil {
				return
			}
		}
		for _, leaf := range s.tail {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

// eventsToRead opens an event log without changing a byte of it. The sums of one that an earlier build wrote are not there.
func eventsToRead(dir string) (*EventLog, error) {
	path := filepath.Join(dir, eventsFile)
	if err := withPages(path, func(p pages, m meta) error {
		_, err := p.edges(m, []string{string(bucketEvents)}, []string{string(bucketDisk), string(bucketSums)})
		return err
	}); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: openTimeout})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l := &EventLog{db: db}
	if l.file, err = os.Open(path); err == nil {
		err = db.View(func(tx *bbolt.Tx) error {
			l.size.Store(length(tx.Bucket(bucketEvents)))
			sums := tx.Bucket(bucketSums)
			l.unsummed = sums == nil || length(sums) < l.Len()
			return nil
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), l.close())
	}
	return l, nil
}

// all reads every event, in order, and condemns nothing.
func (l *EventLog) all() iter.Seq2[[]byte, error] {
	read := l.checked
	if l.unsummed {
		read = func(index uint64, limit int) ([][]byte, error) { return l.read(bucketEvents, index, limit) }
	}
	return func(yield func([]byte, error) bool) {
		for next := uint64(0); ; {
			leaves, err := read(next, salvageBatch)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, leaf := range leaves {
				if !yield(leaf, nil) {
					return
				}
			}
			if next += uint64(len(leaves)); len(leaves) == 0 {
				return
			}
		}
	}
}

// fold folds events.db into a state.
func (s *Salvaged) fold() (*broker.State, error) {
	state := broker.NewState()
	for leaf, err := range s.log.all() {
		if err != nil {
			return nil, err
		}
		event, err := broker.DecodeEvent(leaf)
		if err == nil && event.Head().Index != state.Index() {
			err = fmt.Errorf("it says that it is event %d", event.Head().Index)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: event %d: %w: %w", eventsFile, state.Index(), ErrDisk, err)
		}
		broker.Evolve(state, event)
	}
	return state, nil
}

// follow decides again what raft's log holds after its newest snapshot. What events.db has of it must be the same; what it has
// not is the tail.
func (s *Salvaged) follow(dir string) error {
	if err := withPages(filepath.Join(dir, raftFile), func(p pages, m meta) error {
		_, err := wholeRaft(p, m)
		return err
	}); err != nil {
		return err
	}
	store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, raftFile), BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: openTimeout}})
	if err != nil {
		return fmt.Errorf("%s: %w: %w", raftFile, ErrDisk, err)
	}
	defer store.Close()
	state, applied, err := snapshotted(filepath.Join(dir, snapshots))
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	for index := applied + 1; index <= last; index++ {
		var entry raft.Log
		if err := (chainedStore{store}).GetLog(index, &entry); err != nil {
			return fmt.Errorf("raft entry %d: %w", index, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		if err := s.decide(state, entry.Data); err != nil {
			return fmt.Errorf("raft entry %d: %w", index, err)
		}
	}
	if have := s.State.Index(); state.Index() < have {
		return fmt.Errorf("%s ends at event %d of %d: %w", raftFile, state.Index(), have, ErrDisk)
	}
	s.State = state
	return nil
}

// decide decides one command of raft's log.
func (s *Salvaged) decide(state *broker.State, data []byte) error {
	command, err := broker.DecodeCommand(data)
	if err != nil {
		return err
	}
	decided, err := broker.Decide(state, command)
	if err != nil && broker.MustStop(err) {
		return err
	}
	for _, event := range decided.Events {
		leaf, err := broker.EncodeEvent(event)
		if err != nil {
			return err
		}
		if state.Index() >= s.State.Index() {
			s.tail = append(s.tail, leaf)
		} else if held, err := s.log.read(bucketEvents, state.Index(), 1); err != nil || !bytes.Equal(held[0], leaf) {
			return errors.Join(err, fmt.Errorf("event %d is another one in %s: %w", state.Index(), eventsFile, ErrDisk))
		}
		broker.Evolve(state, event)
	}
	return nil
}

// snapshotted returns the newest snapshot's state, and the raft index that it stands for; without one, the beginning.
func snapshotted(dir string) (*broker.State, uint64, error) {
	names, err := snapshotNames(dir)
	if err != nil || len(names) == 0 {
		return broker.NewState(), 0, err
	}
	newest := filepath.Join(dir, names[len(names)-1])
	var state *broker.State
	of, err := readKept(newest)
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(filepath.Join(newest, snapshotState)); err == nil {
			state, err = broker.DecodeState(data)
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("snapshot %s: %w: %w", filepath.Base(newest), ErrDisk, err)
	}
	return state, of.Index, nil
}
