package cluster

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
)

// arriving holds a snapshot that another broker sends back until the events that it stands for are on this disk. Raft
// completes a snapshot before the state machine is asked to take it: a crash in between would leave one that reaches
// further than events.db, and attempts that fail would take the places of those that this broker can start from.
type arriving struct {
	summedSnapshots
	machine *machine
	applied func() uint64 // raft's newest entry that the machine was given
}

// Create begins a snapshot.
func (a arriving) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := a.summedSnapshots.Create(version, index, term, members, membersIndex, transport)
	if err != nil {
		return nil, err
	}
	return &arrivingSink{SnapshotSink: sink, machine: a.machine, index: index, applied: a.applied}, nil
}

// arrivingSink is a snapshot being written.
type arrivingSink struct {
	raft.SnapshotSink
	machine *machine
	index   uint64 // raft's newest entry in it
	applied func() uint64
	own     bool // of this broker's own state: its events are here
	state   bytes.Buffer
}

// Write writes some of the state.
func (s *arrivingSink) Write(data []byte) (int, error) {
	n, err := s.SnapshotSink.Write(data)
	if !s.own {
		s.state.Write(data[:n])
	}
	return n, err
}

// Close gets the events, and then completes the snapshot.
func (s *arrivingSink) Close() error {
	if s.own {
		return s.SnapshotSink.Close()
	}
	if applied := s.applied(); s.index < applied { // raft would go back to it, and ask for entries that it has thrown away since
		return errors.Join(fmt.Errorf("a snapshot that was sent comes late: it ends at entry %d, and %d is applied", s.index, applied), s.Cancel())
	}
	state, err := broker.DecodeState(s.state.Bytes())
	if err == nil {
		err = s.machine.catchUp(state)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("a snapshot that was sent: %w", err), s.Cancel())
	}
	return s.SnapshotSink.Close()
}
