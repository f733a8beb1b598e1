package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// machine is the state machine under raft: it owns the state, folds committed commands into it, and appends their
// events to the log before anybody can see them. Raft calls Apply, Snapshot and Restore from one goroutine.
//
// Once something happens that would make this broker differ from its peers, it stops for ever: it applies, answers and
// snapshots nothing more, and failed is closed.
type machine struct {
	log   *EventLog
	disk  *failstop
	now   func() statement.Time
	said  *slog.Logger
	seams Seams

	appending sync.Mutex // events.db has one writer at a time

	mu      sync.RWMutex
	state   *broker.State
	changed chan struct{} // closed and replaced when the log grows
	done    uint64        // the latest raft entry that was applied; 0 until one is
	moved   chan struct{} // closed and replaced when done is set
	cause   error         // why it stopped
	failed  chan struct{}
	fetch   fetch          // nil while the disk is being opened
	alarmed statement.Time // when the clock was last complained of
}

func newMachine(log *EventLog, disk *failstop, now func() statement.Time, said *slog.Logger, seams Seams) *machine {
	return &machine{log: log, disk: disk, now: now, said: said, seams: seams, state: broker.NewState(), changed: make(chan struct{}), moved: make(chan struct{}),
		failed: make(chan struct{})}
}

// fetchBy says how to get events that this broker missed, once it can talk to others.
func (m *machine) fetchBy(by fetch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetch = by
}

// applied is what Apply returns: the answer to one command.
type applied struct {
	outcome broker.Outcome
	err     error
}

// Apply decides one committed command and folds its events. Only the fold is done while others may not look: this
// goroutine alone changes the state, and a slow disk holds up no reader.
func (m *machine) Apply(entry *raft.Log) any {
	m.seams.pass(PointApply)
	if err := m.stopped(); err != nil {
		return applied{err: err}
	}
	outcome, err := m.apply(entry.Data)
	var refused *broker.Error
	if err != nil && (broker.MustStop(err) || !errors.As(err, &refused)) {
		m.fail(fmt.Errorf("raft entry %d: %w", entry.Index, err))
		return applied{err: m.stopped()}
	}
	m.passed(entry.Index)
	return applied{outcome, err}
}

// passed tells everybody who waits that one more raft entry was applied.
func (m *machine) passed(entry uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = entry
	close(m.moved)
	m.moved = make(chan struct{})
}

func (m *machine) apply(data []byte) (broker.Outcome, error) {
	command, err := broker.DecodeCommand(data)
	if err != nil {
		return broker.Outcome{}, err
	}
	m.checkClock(command.At)
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
	if err := m.append(m.state.Index(), leaves); err != nil {
		return broker.Outcome{}, err
	}
	m.fold(decided.Events)
	return decided.Outcome, refusal
}

// append puts events on the disk. What a snapshot that is being sent stands for comes in beside what is decided here.
func (m *machine) append(index uint64, leaves [][]byte) error {
	return m.disk.do(eventsFile, func() error {
		return m.seams.write(PointEvents, func() error {
			m.appending.Lock()
			defer m.appending.Unlock()
			return m.log.append(index, leaves)
		})
	})
}

// fold shows events that are on the disk.
func (m *machine) fold(events []broker.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, event := range events {
		m.seams.evolve(m.state, event)
	}
	m.grown()
}

// stopped returns why the machine stands still, or nil.
func (m *machine) stopped() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cause
}

// grown tells everybody who waits that there are more events. The caller holds mu.
func (m *machine) grown() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// checkClock complains, once a minute, of a leader that stamps times well ahead of this broker's clock.
func (m *machine) checkClock(at statement.Time) {
	now := m.now()
	if at <= now.Add(broker.MaxSkew) || now < m.alarmed.Add(60) && now >= m.alarmed {
		return
	}
	m.alarmed = now
	m.said.Error("CLOCK: the leader stamps a time ahead of this broker's clock: one of the two is wrong, or the leader is in wrong hands",
		"stamped", at, "clock", now)
}

// fail makes the machine stand still.
func (m *machine) fail(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop(cause)
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

// pass waits until the raft entry with this index was applied.
func (m *machine) pass(ctx context.Context, entry uint64) error {
	for {
		m.mu.RLock()
		done, moved := m.done, m.moved
		m.mu.RUnlock()
		if done >= entry {
			return nil
		}
		select {
		case <-moved:
		case <-m.failed:
			return m.cause
		case <-ctx.Done():
			return fmt.Errorf("raft entry %d of %d: %w", done, entry, ctx.Err())
		}
	}
}

// reach waits until the state has folded so many events.
func (m *machine) reach(ctx context.Context, events uint64) error {
	for {
		m.mu.RLock()
		have, changed := m.state.Index(), m.changed
		m.mu.RUnlock()
		if have >= events {
			return nil
		}
		select {
		case <-changed:
		case <-m.failed:
			return m.cause
		case <-ctx.Done():
			return fmt.Errorf("event %d of %d: %w", have, events, ctx.Err())
		}
	}
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
	return frozen{data, m.disk, m.seams}, err
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
	if err := m.catchUp(state); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	m.grown()
	return nil
}

// frozen is an encoded state on its way into a snapshot.
type frozen struct {
	data  []byte
	disk  *failstop
	seams Seams
}

// Persist writes the state.
func (f frozen) Persist(sink raft.SnapshotSink) error {
	if into, is := sink.(*arrivingSink); is {
		into.own = true
	}
	return f.disk.do(snapshots, func() error {
		return f.seams.write(PointSnapshot, func() error {
			if _, err := sink.Write(f.data); err != nil {
				return errors.Join(err, sink.Cancel())
			}
			return sink.Close()
		})
	})
}

// Release has nothing to release.
func (f frozen) Release() {}
