package clustertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// Options say what a run is made of.
type Options struct {
	Brokers int           // how many; 0: three
	Storm   time.Duration // of virtual time in which things break; 0: 40 s
	Think   time.Duration // between two things one person does; 0: 1.5 s
	Faults  []string      // by name; nil: all
	Restore time.Duration // how long a storm there is in a second epoch; 0: one seed in five has one of 15 s
	Shape   Shape
}

// Patience with a cluster whose faults are over.
const (
	calm       = 45 * time.Second // until every broker answers again, and says the same
	startsWell = 20 * time.Second
)

// Run is one seed: a cluster, people, hosts, and what befalls them, in one chapter or two: between them the brokers are
// restored. What it was is judged by Verdict, outside the bubble.
type Run struct {
	Seed    uint64
	options Options
	cluster *Cluster
	hosts   []*host
	faults  map[string]int

	operating  sync.Mutex // held while operators change who is a member, or a disk is as good as lost
	procedures sync.WaitGroup

	mu       sync.Mutex
	*chapter // the one that is written; nobody else is at work when the next begins
	chapters []*chapter
	short    string // why it did not come to its end
}

// chapter is what happened between two restores, or before the first.
type chapter struct {
	number  uint64
	history *History
	board   *board
	left    []leftover
	starts  []start
	final   []ending
	newborn []newborn
	kept    [][]byte // the record that it went on from, when it began with a restore
}

// turn begins a chapter.
func (r *Run) turn(kept [][]byte) {
	r.chapter = &chapter{number: uint64(len(r.chapters)), history: &History{cluster: r.cluster}, board: &board{}, kept: kept}
	r.chapters = append(r.chapters, r.chapter)
	r.history.clock(0, 0)
}

// leftover is a statement whose outcome nobody was told.
type leftover struct {
	op    *Op
	proof statement.Proof
}

// ending is what one broker holds in the end.
type ending struct {
	name   statement.BrokerName
	leaves [][]byte
	index  uint64
	now    statement.Time
	digest statement.Hash
}

// newborn is what a host that knows nothing would let start, as one broker told it.
type newborn struct {
	host  statement.HostName
	by    statement.BrokerName
	at    statement.Time
	stems []broker.Stem
}

// Play runs one seed. It must be called inside a bubble of testing/synctest.
func Play(t testing.TB, seed uint64, options Options) *Run {
	t.Helper()
	options = options.whole(seed)
	r := &Run{Seed: seed, options: options, faults: map[string]int{}}
	r.cluster = New(t, options.Brokers, seed, options.Shape)
	r.turn(nil)
	for name, tier := range map[statement.HostName]string{"db1": "db", "db2": "db", "web1": "web"} {
		r.hosts = append(r.hosts, r.machine(name, tier, seed))
	}
	r.short = r.whole()
	if err := r.cluster.Close(); err != nil {
		r.cluster.log.note("closing: %v", err)
	}
	return r
}

// whole fills in what is not said. One seed in three makes snapshots as production does.
func (o Options) whole(seed uint64) Options {
	random := roll(seed, streamEnd, 1)
	if o.Brokers == 0 {
		o.Brokers = 3
	}
	if o.Storm == 0 {
		o.Storm = 40 * time.Second
	}
	if o.Think == 0 {
		o.Think = 1500 * time.Millisecond
	}
	if o.Shape.Snapshots == 0 && random.IntN(3) > 0 {
		o.Shape.Snapshots, o.Shape.Trailing = 4+random.Uint64N(40), random.Uint64N(20)
	}
	if o.Restore == 0 && random.IntN(5) == 0 {
		o.Restore = 15 * time.Second
	}
	return o
}

func (r *Run) world() *forger.World { return r.cluster.World }

// bodyOf returns the request with these bytes, if anybody signed it in this chapter.
func (r *Run) bodyOf(hash statement.Hash) (statement.Request, bool) { return r.board.find(hash) }

// before reports whether somebody signed a request with these bytes in an earlier chapter.
func (r *Run) before(hash statement.Hash) bool {
	for _, c := range r.chapters[:r.number] {
		if _, known := c.board.find(hash); known {
			return true
		}
	}
	return false
}

func (r *Run) started(s start) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts = append(r.starts, s)
}

func (r *Run) leave(op *Op, proof statement.Proof) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, leftover{op, proof})
}

// whole is a run from the first election to the last look. It returns why it did not come to its end.
func (r *Run) whole() string {
	begin, cancel := context.WithTimeout(context.Background(), startsWell)
	defer cancel()
	for _, h := range r.hosts {
		if err := h.enrol(begin); err != nil {
			return err.Error()
		}
	}
	if err := r.list(begin); err != nil {
		return err.Error()
	}
	if short := r.write(r.options.Storm); short != "" || r.options.Restore <= 0 {
		return short
	}
	if err := r.restore(); err != nil {
		return fmt.Sprintf("restore: %v", err)
	}
	return r.write(r.options.Restore)
}

// write is one chapter, from the first thing that people do to the last look.
func (r *Run) write(storm time.Duration) string {
	ctx, stop := context.WithCancel(context.Background())
	var listening, working sync.WaitGroup
	for _, h := range r.hosts {
		listening.Go(func() { h.follow(ctx) })
		listening.Go(func() { h.logins(ctx) })
	}
	for n, name := range r.cluster.Names {
		listening.Go(func() { r.onlook(ctx, name, uint64(n)) })
	}
	work, rest := context.WithCancel(ctx)
	for _, c := range r.staff() {
		working.Go(func() { c.work(work) })
	}
	r.storm(ctx, storm)
	r.heal()
	_ = pause(ctx, 4*time.Second) // people go on for a while in a cluster that is whole
	rest()
	working.Wait()
	short := r.settle(context.Background())
	stop()
	listening.Wait()
	r.history.close()
	return short
}

// onlook looks at a broker's state, as whoever answers people does, and keeps what it saw.
func (r *Run) onlook(ctx context.Context, name statement.BrokerName, n uint64) {
	d := roll(r.Seed, streamOnlook+n, r.number)
	for pause(ctx, d.upTo(600*time.Millisecond)) == nil {
		if l := r.cluster.brokers[name].current(); l != nil {
			r.lookAt(ctx, l)
		}
	}
}

// lookAt looks once.
func (r *Run) lookAt(ctx context.Context, l *life) bool {
	seen := look{at: l.broker.Name}
	seen.call, seen.acknowledged = r.history.before()
	if l.broker.cluster.Wires.thawed(ctx, l.broker.Name) != nil {
		return false
	}
	err := l.node.View(ctx, func(s *broker.State) { seen.index, seen.now, seen.digest = s.Index(), s.Now(), s.Digest() })
	if err != nil || l.gone.Load() || l.broker.cluster.Wires.thawed(ctx, l.broker.Name) != nil {
		return false
	}
	r.history.see(seen)
	return true
}

// settle waits until every broker answers, asks once more for what nobody was told, and looks at everything a last time.
func (r *Run) settle(background context.Context) string {
	ctx, cancel := context.WithTimeout(background, calm)
	defer cancel()
	if err := r.answers(); err != nil {
		return err.Error()
	}
	desk := &client{run: r, dice: roll(r.Seed, streamEnd, 0)}
	for _, l := range r.left {
		if !desk.submit(ctx, l.op, l.proof) {
			return fmt.Sprintf("nobody says what came of a statement, in a cluster that is whole: %s", l.op)
		}
	}
	r.left = nil
	for {
		r.final = nil
		for _, name := range r.cluster.Members() {
			if err := r.last(ctx, name); err != nil {
				return fmt.Sprintf("%s: %v", name, err)
			}
		}
		if r.agreed() {
			break
		}
		if pause(ctx, 300*time.Millisecond) != nil { // a lapse was recorded between two looks
			break
		}
	}
	r.askFresh(ctx)
	return ""
}

// agreed reports whether every broker was looked at with as many events.
func (r *Run) agreed() bool {
	for _, e := range r.final {
		if e.index != r.final[0].index {
			return false
		}
	}
	return true
}

// last takes everything one broker holds.
func (r *Run) last(ctx context.Context, name statement.BrokerName) error {
	l := r.cluster.brokers[name].current()
	if l == nil {
		return errRefused
	}
	e := ending{name: name}
	if err := l.node.View(ctx, func(s *broker.State) { e.index, e.now, e.digest = s.Index(), s.Now(), s.Digest() }); err != nil {
		return err
	}
	leaves, _, err := l.node.Events(0, int(e.index))
	e.leaves = leaves
	r.final = append(r.final, e)
	return err
}

// askFresh has a host that knows nothing listen to each broker, and keeps what it would let start.
func (r *Run) askFresh(ctx context.Context) {
	for _, h := range r.hosts {
		for _, name := range r.cluster.Members() {
			fresh := &host{run: r, machine: h.machine, key: h.key, signer: h.signer, dice: h.dice}
			fresh.wipe()
			heard, cancel := context.WithTimeout(ctx, time.Second) // the opening comes at once, and a beat that ends it
			fresh.listen(heard, name)
			cancel()
			now := r.cluster.Now()
			r.newborn = append(r.newborn, newborn{h.machine.Name, name, now, fresh.grants(now)})
		}
	}
}
