package clustertest

import (
	"context"
	randv2 "math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// fault is one thing that breaks, and how long that takes. It leaves nothing broken behind but a broker that is down.
type fault struct {
	name string
	odds int
	do   func(*Run, context.Context, *dice)
}

// faults are what a storm is made of.
var faults = []fault{
	{"kill", 12, (*Run).kill},
	{"die at a point", 22, (*Run).dieAtPoint},
	{"kill all", 3, (*Run).killAll},
	{"freeze", 8, (*Run).freeze},
	{"alone", 10, (*Run).alone},
	{"pair cut", 6, (*Run).pairCut},
	{"one way", 8, (*Run).oneWay},
	{"flap", 4, (*Run).flap},
	{"slow wires", 6, (*Run).slowWires},
	{"loss", 6, (*Run).lossy},
	{"answers lost", 6, (*Run).answersLost},
	{"disk slow", 8, (*Run).diskSlow},
	{"stalled and alone", 6, (*Run).stalled},
	{"disk fails", 5, (*Run).diskFails},
	{"disk full", 4, (*Run).diskFull},
	{"clock", 3, (*Run).clockJump},
	{"hand over", 4, (*Run).handOver},
	{"member comes or goes", 4, (*Run).comeOrGo},
	{"disk replaced", 3, (*Run).replaced},
}

// dice are what one step of a run is drawn from: the same for the same seed, whatever happened before.
type dice struct{ *randv2.Rand }

// Streams of dice, beside one for each lane of faults.
const (
	streamRestart = 1000
	streamOnlook  = 1100
	streamPeople  = 1200
	streamHosts   = 1300
	streamEnd     = 1400
)

func roll(seed, stream, step uint64) *dice {
	return &dice{randv2.New(randv2.NewPCG(seed, stream<<32|step))}
}

// upTo draws a time.
func (d *dice) upTo(most time.Duration) time.Duration { return time.Duration(d.Int64N(int64(most))) }

// storm breaks one thing after the other, often several at once.
func (r *Run) storm(ctx context.Context, long time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	var lanes sync.WaitGroup
	lanes.Go(func() { r.restart(ctx) })
	for lane := range 1 + roll(r.Seed, 0, 0).Uint64N(3) {
		lanes.Go(func() { r.lane(ctx, lane) })
	}
	lanes.Wait()
}

// lane does one fault after the other.
func (r *Run) lane(ctx context.Context, lane uint64) {
	for step := r.number<<20 + 1; ; step++ {
		d := roll(r.Seed, lane, step)
		if pause(ctx, d.upTo(4*time.Second)) != nil {
			return
		}
		r.strike(ctx, d)
	}
}

// strike does one fault.
func (r *Run) strike(ctx context.Context, d *dice) {
	var may []fault
	total := 0
	for _, f := range faults {
		if r.options.Faults == nil || slices.Contains(r.options.Faults, f.name) {
			may, total = append(may, f), total+f.odds
		}
	}
	draw := d.IntN(total)
	for _, f := range may {
		if draw -= f.odds; draw < 0 {
			r.mu.Lock()
			r.faults[f.name]++
			r.mu.Unlock()
			f.do(r, ctx, d)
			return
		}
	}
}

// one draws a broker; every other time it is the one that leads.
func (r *Run) one(d *dice) *Broker {
	members := r.cluster.Members()
	name, leads := members[d.IntN(60)%len(members)], d.IntN(2) == 0
	if leader := r.cluster.Leader(); leads && leader != "" {
		name = leader
	}
	return r.cluster.brokers[name]
}

// two draws two brokers.
func (r *Run) two(d *dice) (statement.BrokerName, statement.BrokerName) {
	a, skip, members := r.one(d).Name, d.IntN(60), r.cluster.Members()
	return a, members[(slices.Index(members, a)+1+skip%(len(members)-1))%len(members)]
}

func (r *Run) note(format string, args ...any) { r.cluster.log.note("FAULT "+format, args...) }

// restart starts again what is down, after a while.
func (r *Run) restart(ctx context.Context) {
	for step := r.number << 20; ; step++ {
		d := roll(r.Seed, streamRestart, step)
		if pause(ctx, 100*time.Millisecond+d.upTo(2*time.Second)) != nil {
			return
		}
		r.start(r.cluster.brokers[r.cluster.Names[d.IntN(len(r.cluster.Names))]])
	}
}

// start starts a broker that is down. A disk that does not open is as bad as one that lost something.
func (r *Run) start(b *Broker) {
	b.mu.Lock()
	stays := b.out || b.mends || b.life != nil
	b.mu.Unlock()
	if stays {
		return
	}
	r.note("%s starts", b.Name)
	if err := b.Start(); err != nil {
		r.cluster.wrong("%s does not start on the disk it left: %v", b.Name, err)
	}
}

func (r *Run) kill(_ context.Context, d *dice) {
	b := r.one(d)
	silent := d.IntN(3) == 0
	r.note("kill %s, silent %t", b.Name, silent)
	b.Kill(silent)
}

func (r *Run) killAll(_ context.Context, d *dice) {
	r.note("kill all")
	for _, name := range r.cluster.Names {
		r.cluster.brokers[name].Kill(false)
	}
}

// dieAtPoint has a broker die in the middle of its next write of a kind.
func (r *Run) dieAtPoint(ctx context.Context, d *dice) {
	b := r.one(d)
	points := []cluster.Point{cluster.PointLog, cluster.PointLog, cluster.PointVote, cluster.PointEvents, cluster.PointEvents, cluster.PointSnapshot}
	p := plan{at: points[d.IntN(len(points))], when: []when{before, within, after}[d.IntN(3)], skip: d.IntN(6), silent: d.IntN(3) == 0}
	if p.at == cluster.PointVote || p.at == cluster.PointSnapshot {
		p.skip = 0
	}
	r.note("%s is to die %s %q, %d later", b.Name, p.when, p.at, p.skip)
	b.dieAt(p)
	if p.at == cluster.PointVote { // somebody has to vote
		if leader := r.cluster.Leader(); leader != "" && leader != b.Name {
			_ = pause(ctx, d.upTo(500*time.Millisecond))
			r.cluster.brokers[leader].Kill(false)
		}
	}
}

func (r *Run) freeze(ctx context.Context, d *dice) {
	b := r.one(d)
	long := time.Second + d.upTo(4*time.Second)
	if d.IntN(6) == 0 {
		long = 5*time.Second + d.upTo(55*time.Second)
	}
	r.note("freeze %s for %s", b.Name, long)
	r.cluster.Wires.freeze(b.Name, true)
	_ = pause(ctx, long)
	r.note("%s goes on", b.Name)
	r.cluster.Wires.freeze(b.Name, false)
}

// cuts breaks ways for a while.
func (r *Run) cuts(ctx context.Context, d time.Duration, ways ...way) {
	r.note("cut %v for %s", ways, d)
	r.weather(weather{cut: true}, ways...)
	_ = pause(ctx, d)
	r.note("heal %v", ways)
	r.weather(weather{}, ways...)
}

func (r *Run) weather(is weather, ways ...way) {
	for _, w := range ways {
		r.cluster.Wires.set(w.from, w.to, is)
	}
}

// around are the ways from and to one broker.
func (r *Run) around(name statement.BrokerName) (out, in []way) {
	for _, other := range r.cluster.Names {
		if other != name {
			out, in = append(out, way{name, other}), append(in, way{other, name})
		}
	}
	return out, in
}

func (r *Run) alone(ctx context.Context, d *dice) {
	out, in := r.around(r.one(d).Name)
	r.cuts(ctx, 500*time.Millisecond+d.upTo(8*time.Second), append(out, in...)...)
}

func (r *Run) pairCut(ctx context.Context, d *dice) {
	a, b := r.two(d)
	r.cuts(ctx, 500*time.Millisecond+d.upTo(8*time.Second), way{a, b}, way{b, a})
}

func (r *Run) oneWay(ctx context.Context, d *dice) {
	a, b := r.two(d)
	ways := []way{{a, b}}
	out, in := r.around(a)
	switch d.IntN(3) {
	case 0:
		ways = out
	case 1:
		ways = in
	}
	r.cuts(ctx, 500*time.Millisecond+d.upTo(8*time.Second), ways...)
}

func (r *Run) flap(ctx context.Context, d *dice) {
	a, b := r.two(d)
	ways := []way{{a, b}, {b, a}}
	if d.IntN(2) == 0 {
		out, in := r.around(a)
		ways = append(out, in...)
	}
	for range 4 + d.IntN(12) {
		r.cuts(ctx, 50*time.Millisecond+d.upTo(900*time.Millisecond), ways...)
		_ = pause(ctx, d.upTo(900*time.Millisecond))
	}
}

// weatherFor gives ways their weather for a while.
func (r *Run) weatherFor(ctx context.Context, d time.Duration, is weather, ways ...way) {
	r.note("weather %+v on %v for %s", is, ways, d)
	r.weather(is, ways...)
	_ = pause(ctx, d)
	r.weather(weather{}, ways...)
}

func (r *Run) everyWay() []way {
	var all []way
	for _, name := range r.cluster.Names {
		out, _ := r.around(name)
		all = append(all, out...)
	}
	return all
}

func (r *Run) slowWires(ctx context.Context, d *dice) {
	r.weatherFor(ctx, time.Second+d.upTo(8*time.Second), weather{delay: 5*time.Millisecond + d.upTo(600*time.Millisecond)}, r.everyWay()...)
}

func (r *Run) lossy(ctx context.Context, d *dice) {
	r.weatherFor(ctx, time.Second+d.upTo(8*time.Second), weather{loss: 0.02 + float64(d.IntN(40))/100}, r.everyWay()...)
}

// answersLost keeps brokers' answers from people: what they asked for may have happened.
func (r *Run) answersLost(ctx context.Context, d *dice) {
	var ways []way
	for _, name := range r.cluster.Names {
		ways = append(ways, way{name, ""})
	}
	r.weatherFor(ctx, time.Second+d.upTo(5*time.Second), weather{loss: 0.3}, ways...)
}

func (r *Run) diskSlow(ctx context.Context, d *dice) {
	b := r.one(d)
	long, slow := time.Second+d.upTo(8*time.Second), 5*time.Millisecond+d.upTo(2*time.Second)
	r.note("%s writes up to %s slower for %s", b.Name, slow, long)
	b.trouble(trouble{slow: slow})
	_ = pause(ctx, long)
	b.trouble(trouble{})
}

// stalled takes a broker's network while its disk hangs: raft waits for the write and does not notice that it leads nobody.
func (r *Run) stalled(ctx context.Context, d *dice) {
	b := r.one(d)
	long := 1500*time.Millisecond + d.upTo(4*time.Second)
	r.note("%s stalls for %s", b.Name, long)
	b.trouble(trouble{stall: long})
	out, in := r.around(b.Name)
	r.cuts(ctx, long, append(out, in...)...)
	b.trouble(trouble{})
}

func (r *Run) diskFull(ctx context.Context, d *dice) {
	b := r.one(d)
	long := 10*time.Millisecond + d.upTo(3*time.Second)
	r.note("%s: disk full for %s", b.Name, long)
	b.trouble(trouble{fails: syscall.ENOSPC})
	_ = pause(ctx, long)
	b.trouble(trouble{})
}

// clockJump sets one broker's clock wrong for a while. If it led meanwhile, the log's time is wrong for good, and the right
// clock is set after it: an operator would do that, or begin an epoch.
func (r *Run) clockJump(ctx context.Context, d *dice) {
	b := r.one(d)
	by := []statement.Seconds{-3600, -3600, -30, 3, 4, 30, 3600}[d.IntN(7)]
	long := time.Second + d.upTo(6*time.Second)
	r.note("%s: clock wrong by %d s for %s", b.Name, by, long)
	r.setClock(b, by)
	_ = pause(ctx, long)
	r.setClock(b, 0)
	r.catchUp()
}

// setClock sets a broker's clock.
func (r *Run) setClock(b *Broker, ahead statement.Seconds) {
	r.cluster.shown(b.now())
	b.mu.Lock()
	b.ahead = ahead
	b.mu.Unlock()
	behind, most := statement.Seconds(0), statement.Seconds(0)
	for _, other := range r.cluster.brokers {
		other.mu.Lock()
		behind, most = min(behind, other.ahead), max(most, other.ahead)
		other.mu.Unlock()
	}
	r.history.clock(behind, most)
}

// catchUp sets everybody's right time to the log's, when that is ahead.
func (r *Run) catchUp() {
	var latest statement.Time
	for _, name := range r.cluster.Names {
		if l := r.cluster.brokers[name].current(); l != nil {
			latest = max(latest, l.latest())
		}
	}
	r.setClocks(latest, "the log is there already")
}

// setClocks sets everybody's right time ahead, if it is behind.
func (r *Run) setClocks(to statement.Time, why string) {
	c := r.cluster
	if lead := to.Sub(c.Now()); lead > 0 {
		r.note("every clock is set %d s ahead: %s", lead, why)
		c.mu.Lock()
		c.shift += lead
		c.mu.Unlock()
	}
}

// mindClocks sets clocks after what the log says until operators have done what they had begun, and to the latest time that any
// clock has shown when nobody answers for long: what was stamped by that clock and has not been committed may stand in the one log
// that can still lead, and the others do not take it before its time has come. Operators would do that, or wait.
func (r *Run) mindClocks() {
	done := make(chan struct{})
	go func() {
		r.procedures.Wait()
		close(done)
	}()
	silent := time.Duration(0)
	for over := false; !over; {
		time.Sleep(patience / 5)
		r.catchUp()
		leader := r.cluster.Leader()
		if leader == "" || r.cluster.index(r.cluster.brokers[leader]) == 0 {
			silent += patience / 5
		} else {
			silent = 0
		}
		if silent >= patience {
			r.setClocks(r.cluster.latestShown(), "nobody answers, and one clock has shown that")
		}
		select {
		case <-done:
			over = silent == 0 || silent >= patience
		default:
		}
	}
}

func (r *Run) handOver(_ context.Context, d *dice) {
	if l := r.cluster.brokers[r.one(d).Name].current(); l != nil {
		r.note("%s hands over", l.broker.Name)
		if err := l.node.HandOver(); err != nil {
			r.note("%s: %v", l.broker.Name, err)
		}
	}
}

// patience is how long operators look at a cluster that does not answer.
const patience = 15 * time.Second

// heal ends every fault.
func (r *Run) heal() {
	r.note("all is healed")
	for _, name := range r.cluster.Names {
		b := r.cluster.brokers[name]
		b.trouble(trouble{})
		b.mu.Lock()
		b.plan = nil
		b.mu.Unlock()
		r.setClock(b, 0)
	}
	r.weather(weather{}, r.everyWay()...)
	for _, name := range r.cluster.Names {
		r.weather(weather{}, way{name, ""})
		r.cluster.Wires.freeze(name, false)
	}
	r.startAll()
	time.Sleep(2 * time.Second) // what was committed before reaches everybody
	r.mindClocks()
	r.startAll()
	time.Sleep(5 * time.Second)
	r.catchUp()
}

func (r *Run) startAll() {
	for _, name := range r.cluster.Names {
		r.start(r.cluster.brokers[name])
	}
}
