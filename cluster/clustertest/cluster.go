package clustertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	randv2 "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/edge"
	"pim-ssh/broker/effect"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
	"pim-ssh/packaging/lab/forger"
)

const (
	sweepEvery = 2 * time.Second  // as pim-brokerd does
	afterlife  = 10 * time.Second // longer than anything in a node waits for its cluster
	closes     = 60 * time.Second // and longer than anything in it waits when it closes
)

// Shape is how a cluster is run.
type Shape struct {
	Snapshots uint64   // commands after which raft makes a snapshot; 0: as in production
	Trailing  uint64   // commands it keeps after one
	Broken    Breakage // what is broken on purpose
}

// Cluster is some brokers of one deployment, inside one bubble of virtual time.
type Cluster struct {
	World   *forger.World
	Names   []statement.BrokerName
	Wires   *Wires
	shape   Shape
	root    string
	brokers map[statement.BrokerName]*Broker
	burials sync.WaitGroup
	log     *journal

	mu    sync.Mutex
	shift statement.Seconds // how far everybody's right time is ahead of the bubble's
	clock statement.Time    // the latest that any broker's has shown
	dirs  int
	found []string // what went wrong by itself
}

// Broker is one member: a disk, a clock, and the process that uses them while there is one.
type Broker struct {
	cluster *Cluster
	Name    statement.BrokerName
	seed    uint64

	mu     sync.Mutex
	dir    string
	life   *life          // nil: no process
	out    bool           // it has no disk, or one that no cluster hears
	mends  bool           // its disk failed: nobody starts it on that
	starts bool           // somebody is starting it
	joined statement.Disk // the disk an operator added it by; "": it founded the cluster
	ahead  statement.Seconds
	ills   trouble
	plan   *plan
	killed int
}

// New founds a cluster of brokers b1, b2 … and starts them. The last, one more than that, has no disk yet.
func New(t testing.TB, count int, seed uint64, shape Shape) *Cluster {
	t.Helper()
	root, err := os.MkdirTemp(fastest(), "pim-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Wires: newWires(seed), shape: shape, root: root, brokers: map[statement.BrokerName]*Broker{}, log: newJournal()}
	for n := range count + 1 {
		c.Names = append(c.Names, statement.BrokerName(fmt.Sprintf("b%d", n+1)))
	}
	c.World = forger.New(t, func(doc *policy.Document) {
		for _, name := range c.Names[1:count] {
			doc.Brokers[name] = policy.Broker{Address: string(name) + ":7443", Identity: freshKey(t), CA: freshKey(t), Log: freshKey(t)}
		}
	})
	for n, name := range c.Names {
		b := &Broker{cluster: c, Name: name, seed: seed<<8 + uint64(n)}
		c.brokers[name] = b
		if b.out = n == count; b.out {
			continue
		}
		b.dir = c.fresh(name)
		config := cluster.Config{Name: name, Dir: b.dir, Now: b.now, Log: io.Discard}
		if err := cluster.Bootstrap(config, c.World.Chain.Proofs()); err != nil {
			t.Fatal(err)
		}
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// fastest is where files cost least: what must be durable is decided by images, not by the machine's disk.
func fastest() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func freshKey(t testing.TB) statement.Key {
	key, err := statement.KeyOf(forger.Key(t).PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fresh makes an empty directory for a broker.
func (c *Cluster) fresh(name statement.BrokerName) string {
	c.mu.Lock()
	c.dirs++
	dir := filepath.Join(c.root, fmt.Sprintf("%s-%d", name, c.dirs))
	c.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	return dir
}

// Members are the brokers that have a disk, whether they run or not.
func (c *Cluster) Members() []statement.BrokerName {
	return slices.DeleteFunc(slices.Clone(c.Names), func(name statement.BrokerName) bool { return c.brokers[name].idle() })
}

// List has the stewards list the broker that is not one yet, and returns their word.
func (c *Cluster) list(t testing.TB) statement.Proof {
	doc := c.World.Next(func(doc *policy.Document) {
		doc.Brokers = maps.Clone(doc.Brokers)
		name := c.Names[len(c.Names)-1]
		doc.Brokers[name] = policy.Broker{Address: string(name) + ":7443", Identity: freshKey(t), CA: freshKey(t), Log: freshKey(t)}
	})
	return c.World.SignPolicy(doc, operator)
}

// Now is the right time, as people and hosts have it.
func (c *Cluster) Now() statement.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return statement.TimeOf(time.Now()).Add(c.shift)
}

// shown notes what a broker's clock has shown.
func (c *Cluster) shown(at statement.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock = max(c.clock, at)
}

func (c *Cluster) latestShown() statement.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock
}

// Close stops every broker, waits for the dead ones' goroutines, and removes the disks.
func (c *Cluster) Close() error {
	var all []error
	for _, name := range c.Names {
		if l := c.brokers[name].current(); l != nil {
			l.depart()
			all = append(all, l.bury())
		}
	}
	c.burials.Wait()
	c.Wires.closeAll()
	return errors.Join(append(all, os.RemoveAll(c.root))...)
}

// wrong notes something that must not happen.
func (c *Cluster) wrong(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// now is the broker's own clock.
func (b *Broker) now() statement.Time {
	b.mu.Lock()
	ahead := b.ahead
	b.mu.Unlock()
	return b.cluster.Now().Add(ahead)
}

func (b *Broker) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out
}

func (b *Broker) current() *life {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.life
}

// life is one process of a broker, from its start until it dies. When it is gone its goroutines go on as a ghost: nothing
// that a ghost says is heard, and what it writes goes to a disk that nobody will read.
type life struct {
	broker *Broker
	dir    string
	door   *door
	node   *cluster.Node
	edge   *edge.Server
	ctx    context.Context // ends when it is gone
	leave  context.CancelFunc
	gone   atomic.Bool
	lag    [][]byte // raft.db before its latest writes, when it is not synced
	random *randv2.Rand
	locked sync.Mutex // of random and lag
}

// Start starts the broker's process on the disk it has, unless somebody else does.
func (b *Broker) Start() error {
	b.mu.Lock()
	if b.starts || b.life != nil {
		b.mu.Unlock()
		return nil
	}
	b.starts = true
	b.mu.Unlock()
	err := b.begin()
	b.mu.Lock()
	b.starts = false
	b.mu.Unlock()
	return err
}

func (b *Broker) begin() error {
	l := &life{broker: b, dir: b.dir, door: b.cluster.Wires.listen(b.Name), random: randv2.New(randv2.NewPCG(b.seed, uint64(b.killed)))}
	l.ctx, l.leave = context.WithCancel(context.Background())
	node, err := cluster.Open(cluster.Config{Name: b.Name, Dir: l.dir, Log: b.cluster.log.of(b.Name), Now: b.now, Seams: l.seams(),
		Wire: cluster.Wire{Listener: l.door, Dial: l.dial, Who: who, Peers: l}})
	if err != nil {
		l.leave()
		return err
	}
	l.node = node
	l.edge = edge.New(edge.Config{Cluster: node, CA: b.cluster.World.CA, Record: none, Now: b.now, Random: rand.Reader,
		Log: slog.New(slog.NewTextHandler(b.cluster.log.of(b.Name), &slog.HandlerOptions{Level: slog.LevelError}))})
	b.mu.Lock()
	b.life = l
	b.mu.Unlock()
	sweep := &effect.Sweep{Cluster: leading{node}, Now: b.now, Every: sweepEvery, Log: slog.New(slog.DiscardHandler)}
	go sweep.Run(l.ctx)
	go l.watchdog()
	return nil
}

func none(string) ([]byte, error) { return nil, fs.ErrNotExist }

// leading is a node for what only the leader does, as in cmd/pim-brokerd.
type leading struct{ *cluster.Node }

// View is Lead.
func (l leading) View(ctx context.Context, fn func(*broker.State)) error { return l.Lead(ctx, fn) }

// watchdog ends the process when the node says that it may not go on, as pim-brokerd does.
func (l *life) watchdog() {
	select {
	case <-l.node.Failed():
		if !l.gone.Load() {
			l.broker.cluster.log.note("%s stops: %v", l.broker.Name, l.node.Err())
			l.broker.stopped(l.node.Err())
			l.die(false, nil)
		}
	case <-l.ctx.Done():
	}
}

// stopped holds what a broker stopped for to what was done to it.
func (b *Broker) stopped(why error) {
	b.mu.Lock()
	injected := b.ills.struck
	b.ills.struck = false
	b.mu.Unlock()
	if !injected {
		b.cluster.wrong("%s stopped by itself: %v", b.Name, why)
	}
}

func (l *life) seams() cluster.Seams {
	s := cluster.Seams{Write: l.write, Pass: l.pass, Tune: func(c *raft.Config) {
		if l.broker.cluster.shape.Snapshots > 0 {
			c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = l.broker.cluster.shape.Snapshots, 2*time.Second, l.broker.cluster.shape.Trailing
		}
	}}
	l.broker.cluster.shape.Broken.into(&s)
	return s
}

// die ends the process at this moment: from now on nobody hears it. The image is what its disk holds, or what image makes
// of that. A silent death tells nobody.
func (l *life) die(silent bool, image func(dir string)) {
	b := l.broker
	if l.gone.Swap(true) {
		return
	}
	b.cluster.Wires.part(b.Name, silent)
	l.depart()
	next := b.cluster.fresh(b.Name)
	copyDisk(l.dir, next)
	l.forget(next)
	if image != nil {
		image(next)
	}
	b.mu.Lock()
	b.dir, b.life, b.plan = next, nil, nil
	b.killed++
	b.mu.Unlock()
	b.cluster.burials.Go(func() {
		if err := l.bury(); err != nil {
			b.cluster.log.note("burying %s: %v", b.Name, err)
		}
	})
}

// depart closes the doors.
func (l *life) depart() {
	l.gone.Store(true)
	l.leave()
	l.door.Close()
}

// bury ends the ghost's goroutines, once nothing waits for them.
func (l *life) bury() error {
	time.Sleep(afterlife)
	closed := make(chan error, 1)
	go func() { closed <- l.node.Close() }()
	var err error
	select {
	case err = <-closed:
	case <-time.After(closes):
		l.broker.cluster.wrong("%s does not close within %s", l.broker.Name, closes)
	}
	if l.broker.current() != l {
		err = errors.Join(err, os.RemoveAll(l.dir))
	}
	return err
}

// Kill is kill -9, or the machine's power when silent.
func (b *Broker) Kill(silent bool) {
	if l := b.current(); l != nil {
		l.die(silent, nil)
	}
}

// latest is the time of this broker's log.
func (l *life) latest() (now statement.Time) {
	_ = l.node.Local(func(s *broker.State) { now = s.Now() }) // a node that failed has none
	return now
}

// Up reports whether there is a process.
func (b *Broker) Up() bool { return b.current() != nil }

// index is how many events a broker shows, or 0 when it shows nothing.
func (c *Cluster) index(b *Broker) (index uint64) {
	if l := b.current(); l != nil {
		_ = l.node.View(context.Background(), func(s *broker.State) { index = s.Index() }) // 0
	}
	return index
}

// Leader returns the broker that leads as far as most say, or "".
func (c *Cluster) Leader() statement.BrokerName {
	votes := map[statement.BrokerName]int{}
	for _, name := range c.Names {
		if l := c.brokers[name].current(); l != nil {
			votes[l.node.Leader()]++
		}
	}
	for name, n := range votes {
		if name != "" && 2*n > len(c.Members()) {
			return name
		}
	}
	return ""
}
