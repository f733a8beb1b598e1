package clustertest

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// fault is one thing that breaks, and how long that takes. It leaves nothing broken behind but a broker that is down.
type fault struct {
	name string
	odds int
	do   func(*Run, context.Context)
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
	{"disk fails", 5, (*Run).diskFails},
	{"disk full", 4, (*Run).diskFull},
	{"clock", 3, (*Run).clockJump},
	{"hand over", 4, (*Run).handOver},
}

// storm breaks one thing after the other, often several at once.
func (r *Run) storm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Storm)
	defer cancel()
	restarts := make(chan struct{})
	go func() { defer close(restarts); r.restart(ctx) }()
	lanes := 1 + r.random.IntN(3)
	done := make(chan struct{})
	for lane := range lanes {
		go func() {
			defer func() { done <- struct{}{} }()
			for pause(ctx, time.Duration(lane)*700*time.Millisecond+r.upTo(3*time.Second)) == nil {
				r.strike(ctx)
			}
		}()
	}
	for range lanes {
		<-done
	}
	<-restarts
}

// strike does one fault.
func (r *Run) strike(ctx context.Context) {
	total := 0
	for _, f := range faults {
		total += f.odds
	}
	draw := r.intN(total)
	for _, f := range faults {
		if draw -= f.odds; draw < 0 {
			r.mu.Lock()
			r.faults[f.name]++
			r.mu.Unlock()
			f.do(r, ctx)
			return
		}
	}
}

func (r *Run) intN(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.random.IntN(n)
}

func (r *Run) upTo(d time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(r.random.Int64N(int64(d)))
}

// one draws a broker; every other time it is the one that leads.
func (r *Run) one() *Broker {
	name := r.cluster.Leader()
	if name == "" || r.intN(2) == 0 {
		name = r.cluster.Names[r.intN(len(r.cluster.Names))]
	}
	return r.cluster.brokers[name]
}

// two draws two brokers.
func (r *Run) two() (statement.BrokerName, statement.BrokerName) {
	a := r.one().Name
	for {
		if b := r.cluster.Names[r.intN(len(r.cluster.Names))]; b != a || len(r.cluster.Names) == 1 {
			return a, b
		}
	}
}

func (r *Run) note(format string, args ...any) { r.cluster.log.note("FAULT "+format, args...) }

// restart starts again what is down, after a while.
func (r *Run) restart(ctx context.Context) {
	for pause(ctx, 100*time.Millisecond+r.upTo(2*time.Second)) == nil {
		b := r.cluster.brokers[r.cluster.Names[r.intN(len(r.cluster.Names))]]
		r.start(b)
	}
}

// start starts a broker that is down. A disk that does not open is as bad as one that lost something.
func (r *Run) start(b *Broker) {
	if b.Up() {
		return
	}
	r.note("%s starts", b.Name)
	if err := b.Start(); err != nil {
		r.cluster.wrong("%s does not start on the disk it left: %v", b.Name, err)
	}
}

func (r *Run) kill(context.Context) {
	b := r.one()
	silent := r.intN(3) == 0
	r.note("kill %s, silent %t", b.Name, silent)
	b.Kill(silent)
}

func (r *Run) killAll(context.Context) {
	r.note("kill all")
	for _, name := range r.cluster.Names {
		r.cluster.brokers[name].Kill(false)
	}
}

// dieAtPoint has a broker die in the middle of its next write of a kind.
func (r *Run) dieAtPoint(ctx context.Context) {
	b := r.one()
	points := []cluster.Point{cluster.PointLog, cluster.PointLog, cluster.PointVote, cluster.PointEvents, cluster.PointEvents, cluster.PointSnapshot}
	p := plan{at: points[r.intN(len(points))], when: []when{before, within, after}[r.intN(3)], skip: r.intN(6), silent: r.intN(3) == 0}
	if p.at == cluster.PointVote || p.at == cluster.PointSnapshot {
		p.skip = 0
	}
	r.note("%s is to die %s %q, %d later", b.Name, p.when, p.at, p.skip)
	b.dieAt(p)
	if p.at == cluster.PointVote { // somebody has to vote
		if leader := r.cluster.Leader(); leader != "" && leader != b.Name {
			_ = pause(ctx, r.upTo(500*time.Millisecond))
			r.cluster.brokers[leader].Kill(false)
		}
	}
}

func (r *Run) freeze(ctx context.Context) {
	b := r.one()
	d := time.Second + r.upTo(4*time.Second)
	if r.intN(6) == 0 {
		d = 5*time.Second + r.upTo(55*time.Second)
	}
	r.note("freeze %s for %s", b.Name, d)
	r.cluster.Wires.freeze(b.Name, true)
	_ = pause(ctx, d)
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

func (r *Run) alone(ctx context.Context) {
	out, in := r.around(r.one().Name)
	r.cuts(ctx, 500*time.Millisecond+r.upTo(8*time.Second), append(out, in...)...)
}

func (r *Run) pairCut(ctx context.Context) {
	a, b := r.two()
	r.cuts(ctx, 500*time.Millisecond+r.upTo(8*time.Second), way{a, b}, way{b, a})
}

func (r *Run) oneWay(ctx context.Context) {
	a, b := r.two()
	ways := []way{{a, b}}
	out, in := r.around(a)
	switch r.intN(3) {
	case 0:
		ways = out
	case 1:
		ways = in
	}
	r.cuts(ctx, 500*time.Millisecond+r.upTo(8*time.Second), ways...)
}

func (r *Run) flap(ctx context.Context) {
	a, b := r.two()
	ways := []way{{a, b}, {b, a}}
	if r.intN(2) == 0 {
		out, in := r.around(a)
		ways = append(out, in...)
	}
	for range 4 + r.intN(12) {
		r.cuts(ctx, 50*time.Millisecond+r.upTo(900*time.Millisecond), ways...)
		_ = pause(ctx, r.upTo(900*time.Millisecond))
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

func (r *Run) slowWires(ctx context.Context) {
	r.weatherFor(ctx, time.Second+r.upTo(8*time.Second), weather{delay: 5*time.Millisecond + r.upTo(600*time.Millisecond)}, r.everyWay()...)
}

func (r *Run) lossy(ctx context.Context) {
	r.weatherFor(ctx, time.Second+r.upTo(8*time.Second), weather{loss: 0.02 + float64(r.intN(40))/100}, r.everyWay()...)
}

// answersLost keeps brokers' answers from people: what they asked for may have happened.
func (r *Run) answersLost(ctx context.Context) {
	var ways []way
	for _, name := range r.cluster.Names {
		ways = append(ways, way{name, ""})
	}
	r.weatherFor(ctx, time.Second+r.upTo(5*time.Second), weather{loss: 0.3}, ways...)
}

func (r *Run) diskSlow(ctx context.Context) {
	b := r.one()
	d, slow := time.Second+r.upTo(8*time.Second), 5*time.Millisecond+r.upTo(2*time.Second)
	r.note("%s writes up to %s slower for %s", b.Name, slow, d)
	b.trouble(trouble{slow: slow})
	_ = pause(ctx, d)
	b.trouble(trouble{})
}

func (r *Run) diskFails(ctx context.Context) { r.diskError(ctx, syscall.EIO, 300*time.Millisecond) }
func (r *Run) diskFull(ctx context.Context)  { r.diskError(ctx, syscall.ENOSPC, 3*time.Second) }

func (r *Run) diskError(ctx context.Context, is syscall.Errno, most time.Duration) {
	b := r.one()
	d := 10*time.Millisecond + r.upTo(most)
	r.note("%s: %v for %s", b.Name, is, d)
	b.trouble(trouble{fails: is})
	_ = pause(ctx, d)
	b.trouble(trouble{})
}

// clockJump sets one broker's clock wrong for a while. If it led meanwhile, the log's time is wrong for good, and the right
// clock is set after it: an operator would do that, or begin an epoch.
func (r *Run) clockJump(ctx context.Context) {
	b := r.one()
	by := []statement.Seconds{-3600, -3600, -30, 3, 4, 30, 3600}[r.intN(7)]
	d := time.Second + r.upTo(6*time.Second)
	r.note("%s: clock wrong by %d s for %s", b.Name, by, d)
	r.setClock(b, by)
	_ = pause(ctx, d)
	r.setClock(b, 0)
	r.catchUp()
}

// setClock sets a broker's clock.
func (r *Run) setClock(b *Broker, ahead statement.Seconds) {
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
	c := r.cluster
	if lead := latest.Sub(c.Now()); lead > 0 {
		r.note("every clock is set %d s ahead: the log is there already", lead)
		c.mu.Lock()
		c.shift += lead
		c.mu.Unlock()
	}
}

func (r *Run) handOver(context.Context) {
	if l := r.cluster.brokers[r.one().Name].current(); l != nil {
		r.note("%s hands over", l.broker.Name)
		if err := l.node.HandOver(); err != nil {
			r.note("%s: %v", l.broker.Name, err)
		}
	}
}

// heal ends every fault.
func (r *Run) heal() {
	r.note("all is healed")
	r.weather(weather{}, r.everyWay()...)
	for _, name := range r.cluster.Names {
		b := r.cluster.brokers[name]
		r.weather(weather{}, way{name, ""})
		r.cluster.Wires.freeze(name, false)
		b.trouble(trouble{})
		b.mu.Lock()
		b.plan = nil
		b.mu.Unlock()
		r.setClock(b, 0)
		r.start(b)
	}
	time.Sleep(5 * time.Second) // what was committed before reaches everybody
	r.catchUp()
}

// Counts says how often each fault struck.
func (r *Run) Counts() map[string]int { return r.faults }

// String names the seed.
func (r *Run) String() string { return fmt.Sprintf("seed %d", r.Seed) }
