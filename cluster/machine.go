package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
)

// machine is the state machine under raft: it owns the state, folds committed commands into it, and appends their
// events to the log before anybody can see them. Raft calls Apply, Snapshot and Restore from one goroutine.
//
// Once something happens that would make this broker differ from its peers, it stops for ever: it applies, answers and
// snapshots nothing more, and failed is closed.
type machine struct {
	log *EventLog

	mu      sync.RWMutex
	state   *broker.State
	changed chan struct{} // closed and replaced when the log grows
	cause   error         // why it stopped
	failed  chan struct{}
}

func newMachine(log *EventLog) *machine {
	return &machine{log: log, state: broker.NewState(), changed: make(chan struct{}), failed: make(chan struct{})}
}

// applied is what Apply returns: the answer to one command.
type applied struct {
	outcome broker.Outcome
	err     error
}

// Apply decides one committed command and folds its events.
func (m *machine) Apply(entry *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cause != nil {
		return applied{err: m.cause}
	}
	outcome, err := m.apply(entry.Data)
	var refused *broker.Error
	if err != nil && (broker.MustStop(err) || !errors.As(err, &refused)) {
		m.stop(fmt.Errorf("raft entry %d: %w", entry.Index, err))
		return applied{err: m.cause}
	}
	return applied{outcome, err}
}

func (m *machine) apply(data []byte) (broker.Outcome, error) {
	command, err := broker.DecodeCommand(data)
	if err != nil {
		return broker.Outcome{}, err
	}
	decided, refusal := broker.Decide(m.state, command)
	if refusal != nil && broker.MustStop(refusal) {
		return broker.Outcome{}, refusal
	}
	if len(decided.Events) == 0 {
		return decided.Outcome, refusal
	}
	leaves := make([][]byte, len(decided.Events))
	for i, event := range decided.Events {
		if event.Head().Index != m.state.Index()+uint64(i) {
			return broker.Outcome{}, fmt.Errorf("event %d where %d is next: %w", event.Head().Index, m.state.Index()+uint64(i), broker.ErrDiverged)
		}
		if leaves[i], err = broker.EncodeEvent(event); err != nil {
			return broker.Outcome{}, err
		}
	}
	if err := m.log.append(m.state.Index(), leaves); err != nil {
		return broker.Outcome{}, err
	}
	for _, event := range decided.Events {
		broker.Evolve(m.state, event)
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return decided.Outcome, refusal
}

// stop makes the machine stand still. The caller holds mu.
func (m *machine) stop(cause error) {
	if m.cause == nil {
		m.cause = cause
		close(m.failed)
	}
}

// read lets fn look at the state; fn must neither keep it nor take long.
func (m *machine) read(fn func(*broker.State)) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cause != nil {
		return m.cause
	}
	fn(m.state)
	return nil
}

// next returns the channel that is closed when the log grows.
func (m *machine) next() <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changed
}

// Snapshot freezes the state for raft to store.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cause != nil {
		return nil, m.cause
	}
	data, err := broker.EncodeState(m.state)
	return frozen(data), err
}

// Restore takes a stored state in place of the one there is. The event log must reach as far.
func (m *machine) Restore(stored io.ReadCloser) error {
	defer stored.Close()
	data, err := io.ReadAll(stored)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	state, err := broker.DecodeState(data)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	have, err := m.log.Len()
	if err != nil {
		return err
	}
	if have < state.Index() {
		return fmt.Errorf("the snapshot reaches event %d, %s only %d: %w", state.Index(), eventsFile, have, ErrDisk)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	return nil
}

// frozen is an encoded state on its way into a snapshot.
type frozen []byte

// Persist writes the state.
func (f frozen) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(f); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to release.
func (f frozen) Release() {}
