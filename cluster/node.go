package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// How raft is run. Timing is raft's own default, which elects a new leader within three seconds.
const (
	keptSnapshots    = 2
	snapshotAfter    = 2048 // commands
	trailingCommands = 1024
	snapshotCheck    = 30 * time.Second
	wirePool         = 3
	wireTimeout      = 5 * time.Second
	enqueueTimeout   = 5 * time.Second
	aloneTimeout     = 50 * time.Millisecond
	readyEvery       = 10 * time.Millisecond
)

// Config is what a node needs from outside.
type Config struct {
	Name    statement.BrokerName
	Address string // what other brokers dial, host:port
	Dir     string // 0700, owned by this process alone
	Wire    Wire
	Now     func() statement.Time
	Log     io.Writer // raft's own warnings, one line each
}

// Node is one member of the cluster. It is safe for concurrent use.
type Node struct {
	machine *machine
	raft    *raft.Raft
	now     func() statement.Time
	closers []func() error // in the order to close

	mu     sync.Mutex
	stamp  statement.Time // the latest time this node stamped
	caught uint64         // the term in which this node has applied everything before its own leadership; 0: none
}

// Open starts a node on a disk that Bootstrap made. ErrEmpty, ErrDisk and a lock held by another process refuse.
func Open(config Config) (*Node, error) {
	mark, err := readMark(config.Dir)
	if err != nil {
		return nil, err
	}
	store, err := openRaftStore(config.Dir)
	if err != nil {
		return nil, err
	}
	log, err := openEvents(config.Dir)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	node := &Node{machine: newMachine(log), now: config.Now, closers: []func() error{store.Close, log.close}}
	if err := node.start(config, mark, store); err != nil {
		return nil, errors.Join(err, node.closeStores())
	}
	return node, nil
}

func (n *Node) start(config Config, mark string, store *raftboltdb.BoltStore) error {
	if err := checkMark(mark, store, n.machine.log); err != nil {
		return err
	}
	chained := chainedStore{store}
	if err := chained.check(); err != nil {
		return err
	}
	kept, err := openSnapshots(config.Dir, config.Log)
	if err != nil {
		return err
	}
	transport := raft.NewNetworkTransport(layer{config.Wire.Listener, config.Wire.Dial}, wirePool, wireTimeout, config.Log)
	timing := raftConfig(config)
	hasten(timing)
	n.raft, err = raft.NewRaft(timing, n.machine, chained, store, kept, transport)
	if err != nil {
		return errors.Join(fmt.Errorf("raft: %w", err), transport.Close())
	}
	n.closers = append([]func() error{func() error { return n.raft.Shutdown().Error() }, transport.Close}, n.closers...)
	return n.settle()
}

// openSnapshots opens raft's snapshots after reading the newest one whole: raft would fall back to an older one without
// a word, find the log shortened, and panic (FACTS R3).
func openSnapshots(dir string, log io.Writer) (*raft.FileSnapshotStore, error) {
	kept, err := raft.NewFileSnapshotStore(dir, keptSnapshots, log)
	if err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	newest, err := newestSnapshot(filepath.Join(dir, snapshots))
	if err != nil || newest == "" {
		return kept, err
	}
	_, stored, err := kept.Open(newest)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w: %w", newest, ErrDisk, err)
	}
	return kept, stored.Close()
}

// newestSnapshot returns the name (term-index-milliseconds) that raft would restore, or "" when there is none.
func newestSnapshot(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	newest, newestAt := "", [3]uint64{}
	for _, entry := range entries {
		var at [3]uint64
		if _, err := fmt.Sscanf(entry.Name(), "%d-%d-%d", &at[0], &at[1], &at[2]); err != nil || filepath.Ext(entry.Name()) == ".tmp" {
			continue
		}
		if newest == "" || slices.Compare(at[:], newestAt[:]) > 0 {
			newest, newestAt = entry.Name(), at
		}
	}
	return newest, nil
}

func raftConfig(config Config) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(config.Name)
	c.LogOutput = config.Log
	c.LogLevel = "WARN"
	c.SnapshotThreshold = snapshotAfter
	c.SnapshotInterval = snapshotCheck
	c.TrailingLogs = trailingCommands
	c.NoLegacyTelemetry = true
	return c
}

// hasten makes a node start leading at once when it is the only voter: nobody else's heartbeat could be late.
func hasten(c *raft.Config) {
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = aloneTimeout, aloneTimeout, aloneTimeout
}

// settle goes back to raft's own timing unless this node is the only voter. Until then pre-vote keeps it from disturbing
// anybody.
func (n *Node) settle() error {
	members := n.raft.GetConfiguration()
	if err := members.Error(); err != nil {
		return err
	}
	if len(members.Configuration().Servers) == 1 {
		return nil
	}
	usual, timing := raft.DefaultConfig(), n.raft.ReloadableConfig()
	timing.HeartbeatTimeout, timing.ElectionTimeout = usual.HeartbeatTimeout, usual.ElectionTimeout
	return n.raft.ReloadConfig(timing)
}

// Ready waits until this node can answer for the cluster.
func (n *Node) Ready(ctx context.Context) error {
	retry := time.NewTicker(readyEvery)
	defer retry.Stop()
	for {
		err := n.lead(ctx)
		if err == nil || n.Err() != nil {
			return n.Err()
		}
		select {
		case <-ctx.Done():
			return unavailable(err)
		case <-retry.C:
		}
	}
}

// Propose has the cluster decide a command and returns the answer. The node stamps the time itself; what the caller
// stamped is dropped. Refusals are *broker.Error. Unavailable means that the outcome is unknown: propose the same again,
// which is harmless.
//
// A command that would change nothing (a repeated statement, a stranger's) is answered from committed state and never
// becomes a raft entry: nobody without a say in the deployment can fill the log.
func (n *Node) Propose(ctx context.Context, command broker.Command) (broker.Outcome, error) {
	command.At = n.time()
	changes := false
	var idle applied
	err := n.View(ctx, func(state *broker.State) {
		decided, err := broker.Decide(state, command)
		changes = len(decided.Events) > 0 || command.Kind == broker.Tick
		idle = applied{decided.Outcome, err}
	})
	if err != nil {
		return broker.Outcome{}, err
	}
	if !changes {
		return idle.outcome, idle.err
	}
	data, err := broker.EncodeCommand(command)
	if err != nil {
		return broker.Outcome{}, err
	}
	future := n.raft.Apply(data, enqueueTimeout)
	if err := await(ctx, future); err != nil {
		return broker.Outcome{}, unknown(err)
	}
	answer, isAnswer := future.Response().(applied)
	if !isAnswer {
		return broker.Outcome{}, unknown(fmt.Errorf("raft answered %v", future.Response()))
	}
	var refused *broker.Error
	if answer.err != nil && !errors.As(answer.err, &refused) {
		return broker.Outcome{}, unknown(answer.err)
	}
	return answer.outcome, answer.err
}

// time stamps a command: the clock, but never before an earlier stamp.
func (n *Node) time() statement.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stamp = max(n.stamp, n.now())
	return n.stamp
}

// View lets fn look at a state that holds everything acknowledged before View was called: it fails with Unavailable
// unless this node leads at this moment. fn must neither keep the state nor take long.
func (n *Node) View(ctx context.Context, fn func(*broker.State)) error {
	if err := n.lead(ctx); err != nil {
		return unavailable(err)
	}
	if err := n.machine.read(fn); err != nil {
		return unavailable(err)
	}
	return nil
}

// Local lets fn look at what this node has applied so far, whoever leads: enough to know the other brokers' keys, and
// for nothing that answers a person or a host.
func (n *Node) Local(fn func(*broker.State)) error { return n.machine.read(fn) }

// lead returns nil when this node leads and has applied what was committed before it did. Leader leases alone would not
// do (FACTS R5).
func (n *Node) lead(ctx context.Context) error {
	term := n.raft.CurrentTerm()
	n.mu.Lock()
	caughtUp := n.caught == term
	n.mu.Unlock()
	if caughtUp {
		if err := await(ctx, n.raft.VerifyLeader()); err != nil {
			return err
		}
		if n.raft.CurrentTerm() == term {
			return nil
		}
	}
	if err := await(ctx, n.raft.Barrier(enqueueTimeout)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.caught = term
	return nil
}

// await waits for raft or for the caller's patience, whichever ends first. The future settles by itself when raft does.
func await(ctx context.Context, future raft.Future) error {
	settled := make(chan error, 1)
	go func() { settled <- future.Error() }()
	select {
	case err := <-settled:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Events returns at most limit committed events from index on, and a channel that is closed once the log has grown
// beyond what was there. Events are as public as the caller makes them: this authorises nothing.
func (n *Node) Events(index uint64, limit int) ([][]byte, <-chan struct{}, error) {
	grown := n.machine.next()
	events, err := n.machine.log.Read(index, limit)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	return events, grown, nil
}

// Failed is closed when the node has met something after which it may not go on; Err then says what.
func (n *Node) Failed() <-chan struct{} { return n.machine.failed }

// Err returns why the node failed, or nil.
func (n *Node) Err() error {
	n.machine.mu.RLock()
	defer n.machine.mu.RUnlock()
	return n.machine.cause
}

// Close stops the node and closes its disk.
func (n *Node) Close() error { return n.closeStores() }

func (n *Node) closeStores() error {
	var all []error
	for _, closeOne := range n.closers {
		all = append(all, closeOne())
	}
	return errors.Join(all...)
}

func unavailable(err error) error {
	return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("this broker cannot answer now: %v", err), Hint: "try again in a moment", Err: err}
}

func unknown(err error) error {
	return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("whether it was filed is not known: %v", err),
		Hint: "send the same statement again: it counts once", Err: err}
}
