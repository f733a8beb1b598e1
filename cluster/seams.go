package cluster

import (
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"pim-ssh/broker"
)

// Seams are where test support reaches into a node. The zero value is production: no program names this type, and the
// layout test holds them to that. Any field may be nil.
type Seams struct {
	// Write does one durable write and returns its error, or fails in its place.
	Write func(at Point, do func() error) error
	// Pass is called where nothing is held and nothing is written: it may take its time.
	Pass func(at Point)
	// Tune changes how raft is run.
	Tune func(*raft.Config)
	// Store changes how raft.db is opened.
	Store func(*bbolt.Options)
	// Verify stands in for asking a majority whether this node still leads.
	Verify func(*raft.Raft) raft.Future
	// Evolve stands in for the fold.
	Evolve func(*broker.State, broker.Event)
}

// Point names a place in the write path.
type Point string

// The closed set of points. All but PointApply are writes.
const (
	PointLog      Point = "raft log"      // entries on their way into raft.db
	PointVote     Point = "term and vote" // one of raft's own values on its way into raft.db
	PointApply    Point = "apply"         // a committed entry, before it is decided
	PointEvents   Point = "events"        // its events on their way into events.db; after it, the state does not show them yet
	PointSnapshot Point = "snapshot"      // a frozen state on its way into a snapshot
)

func (s Seams) write(at Point, do func() error) error {
	if s.Write == nil {
		return do()
	}
	return s.Write(at, do)
}

func (s Seams) pass(at Point) {
	if s.Pass != nil {
		s.Pass(at)
	}
}

func (s Seams) tune(config *raft.Config) *raft.Config {
	if s.Tune != nil {
		s.Tune(config)
	}
	return config
}

func (s Seams) store(options *bbolt.Options) *bbolt.Options {
	if s.Store != nil {
		s.Store(options)
	}
	return options
}

func (s Seams) verify(r *raft.Raft) raft.Future {
	if s.Verify != nil {
		return s.Verify(r)
	}
	return r.VerifyLeader()
}

func (s Seams) evolve(state *broker.State, event broker.Event) {
	if s.Evolve != nil {
		s.Evolve(state, event)
		return
	}
	broker.Evolve(state, event)
}

// seamedLog is raft's log store with a point before and after each write.
type seamedLog struct {
	raft.LogStore
	seams Seams
}

// StoreLog stores one entry.
func (s seamedLog) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries.
func (s seamedLog) StoreLogs(entries []*raft.Log) error {
	return s.seams.write(PointLog, func() error { return s.LogStore.StoreLogs(entries) })
}

// DeleteRange forgets entries.
func (s seamedLog) DeleteRange(first, last uint64) error {
	return s.seams.write(PointLog, func() error { return s.LogStore.DeleteRange(first, last) })
}

// seamedVotes is raft's store of term and vote with a point before and after each write.
type seamedVotes struct {
	raft.StableStore
	seams Seams
}

// Set stores a value.
func (s seamedVotes) Set(key, value []byte) error {
	return s.seams.write(PointVote, func() error { return s.StableStore.Set(key, value) })
}

// SetUint64 stores a number.
func (s seamedVotes) SetUint64(key []byte, value uint64) error {
	return s.seams.write(PointVote, func() error { return s.StableStore.SetUint64(key, value) })
}
