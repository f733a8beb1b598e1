package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker/statement"
)

// Config is what a node needs from outside.
type Config struct {
	Name statement.BrokerName
	Dir  string // 0700, owned by this process alone
	Wire Wire
	Now  func() statement.Time
	Log  io.Writer // raft's own warnings and this package's, one line each

	Seams Seams // for test support alone
}

// Node is one member of the cluster. It is safe for concurrent use.
type Node struct {
	name     statement.BrokerName
	id       raft.ServerID // what raft knows it by
	begin    founding
	machine  *machine
	raft     *raft.Raft
	policies *policies
	entries  raft.LogStore
	door     *door
	wire     *transport
	peers    Peers // nil: alone
	now      func() statement.Time
	seams    Seams
	log      *slog.Logger
	rounds   rounds
	reserve  *reserve
	room     room
	shunned  map[statement.BrokerName]bool // who sent events that were not the leader's; raft's one goroutine's
	closing  chan struct{}
	keeping  sync.WaitGroup
	closers  []func() error // in the order to close

	// What keep alone uses, while this node leads.
	founded  uint64       // the term in which the founding was made sure of
	caughtUp map[Seat]int // how often in a row a member has answered that it has caught up

	mu       sync.Mutex
	stamp    statement.Time // the latest time this node stamped
	caught   uint64         // the term in which this node has applied everything before its own leadership; 0: none
	since    uint64         // the raft entry up to which that is so
	yieldNot time.Time      // before this it does not try again to hand leadership over because of its clock
}

// Open starts a node on a disk that Bootstrap made. ErrEmpty, ErrDisk and a lock held by another process refuse.
func Open(config Config) (*Node, error) {
	if err := Preflight(config.Dir); err != nil {
		return nil, err
	}
	mark, err := readMark(config.Dir)
	if err != nil {
		return nil, err
	}
	store, err := openRaftStore(config.Dir, config.Seams)
	if err != nil {
		return nil, err
	}
	log, err := openEvents(config.Dir)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	kept, err := openReserve(config.Dir)
	if err != nil {
		return nil, errors.Join(err, log.close(), store.Close())
	}
	said := slog.New(slog.NewTextHandler(config.Log, nil))
	disk := &failstop{dir: config.Dir}
	node := &Node{name: config.Name, machine: newMachine(log, disk, config.Now, said, config.Seams), peers: config.Wire.Peers, now: config.Now, seams: config.Seams, log: said,
		shunned: map[statement.BrokerName]bool{}, closing: make(chan struct{}), caughtUp: map[Seat]int{}, reserve: kept, closers: []func() error{store.Close, log.close, kept.close}}
	disk.fail = node.machine.fail
	node.rounds.ask = node.readIndex
	if err := node.start(config, mark, store); err != nil {
		return nil, errors.Join(err, node.closeStores())
	}
	return node, nil
}

func (n *Node) start(config Config, mark string, store *raftboltdb.BoltStore) error {
	if err := checkMark(mark, store, n.machine.log); err != nil {
		return err
	}
	var err error
	if n.begin, err = readFounding(store); err != nil {
		return err
	}
	if err := sealOwn(store, markKey, foundingKey, restoreKey, joinedKey); err != nil {
		return err
	}
	n.entries = chainedStore{store}
	kept, err := openSnapshots(config.Dir, n.machine.disk, config.Log)
	if err != nil {
		return err
	}
	if n.id, err = readID(store, config.Name, mark); err != nil {
		return err
	}
	n.door = newDoor(n.id, statement.Disk(mark), n.begin, store, n.machine.read, n.log)
	n.policies = &policies{store: stoppingValues{sealedValues{store}, n.machine.disk}, chain: n.begin.chain}
	n.door.chain, n.door.stop = n.Chain, n.machine.disk
	if err := n.door.readAdded(); err != nil {
		return err
	}
	n.wire = newTransport(config, n.door, newClocks(n.now, n.door.seats, n.ask, n.log))
	disk := n.machine.disk
	tuned := n.seams.tune(raftConfig(n.id, config.Log))
	n.raft, err = raft.NewRaft(tuned, n.machine, newStoppingLog(seamedLog{n.entries, n.seams}, disk),
		stoppingValues{sealedValues{seamedVotes{store, n.seams}}, disk}, arriving{kept, n.machine, func() uint64 { return n.raft.AppliedIndex() }}, n.wire)
	if err != nil {
		return errors.Join(fmt.Errorf("raft: %w", err), n.wire.Close())
	}
	if err := n.openPolicies(); err != nil {
		return errors.Join(err, n.raft.Shutdown().Error(), n.wire.Close())
	}
	n.door.raft.Store(n.raft)
	n.machine.fetchBy(n.fetch)
	n.wire.start()
	if slices.Contains(n.Seats(), Seat{n.name, seatOf(n.id).Disk, true}) && n.alone() {
		n.wire.prompt()
	}
	n.keeping.Go(n.keep)
	n.keeping.Go(n.meet)
	n.keeping.Go(n.watchRoom)
	n.closers = append([]func() error{n.stopKeeping, func() error { return n.raft.Shutdown().Error() }, n.wire.Close}, n.closers...)
	return nil
}

func (n *Node) stopKeeping() error {
	close(n.closing)
	n.keeping.Wait()
	return nil
}

// Events returns at most limit committed events from index on, and a channel that is closed once the log has grown
// beyond what was there. Events are as public as the caller makes them: this authorises nothing.
func (n *Node) Events(index uint64, limit int) ([][]byte, <-chan struct{}, error) {
	grown := n.machine.next()
	events, err := n.machine.log.Read(index, limit)
	if errors.Is(err, ErrDisk) {
		n.machine.fail(err)
	}
	if err != nil {
		return nil, nil, unavailable(err)
	}
	return events, grown, nil
}

// Sum returns the sum of the first so many events, which there must be: equal sums, equal logs.
func (n *Node) Sum(events uint64) (statement.Hash, error) {
	if events > 0 { // a sum that was altered would have its reader doubt everybody else
		if _, _, err := n.Events(events-1, 1); err != nil {
			return statement.Hash{}, err
		}
	}
	return n.machine.log.Sum(events)
}

// Failed is closed when the node has met something after which it may not go on; Err then says what.
func (n *Node) Failed() <-chan struct{} { return n.machine.failed }

// Err returns why the node failed, or nil.
func (n *Node) Err() error {
	return n.machine.stopped()
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
