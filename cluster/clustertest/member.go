package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// operatorPatience is how long operators wait for the cluster to take their word.
const operatorPatience = 2 * time.Minute

// list has the cluster adopt a policy that lists the broker which is none yet.
func (r *Run) list(ctx context.Context) error {
	proof := r.cluster.list(r.world().T)
	if err := r.take(ctx, proof); err != nil {
		return fmt.Errorf("policy 2: %w", err)
	}
	r.world().Adopt(proof)
	return nil
}

// take has the cluster take a statement. A refusal is the error.
func (r *Run) take(ctx context.Context, proof statement.Proof) error {
	desk := &client{run: r, dice: roll(r.Seed, streamEnd, 2)}
	members := r.cluster.Members()
	for at := 0; ; at++ {
		heard, err := desk.once(ctx, members[at%len(members)], proof)
		if err == nil && heard.kind == "" {
			return nil
		}
		if err == nil {
			return &broker.Error{Kind: heard.kind, Msg: heard.message}
		}
		if pause(ctx, 300*time.Millisecond) != nil {
			return fmt.Errorf("nobody takes it: %w", err)
		}
	}
}

// order gives an operator's word on a broker, and gives it anew when it was too old before it was heard. Edge, which would
// ask around first whether the others could live with it, is not asked: here nothing is spared them.
func (r *Run) order(what statement.Change, b *Broker, disk statement.Disk, watching bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), operatorPatience)
	defer cancel()
	for {
		head := r.world().Head(statement.KindCluster, operator)
		head.Created = r.cluster.Now()
		head.NotAfter = head.Created + 3600
		proof := r.world().Sign(statement.Cluster{Head: head, Action: what, Broker: b.Name, Disk: disk, Watching: watching}, operator)
		err := r.propose(ctx, proof)
		r.note("cluster %s %s %.6s watching=%t: %v", what, b.Name, disk, watching, err)
		if kind := broker.KindOf(err); kind != broker.Expired && kind != broker.Denied || pause(ctx, time.Second) != nil {
			return err // else it was too old, or from the future for a broker whose clock is behind
		}
	}
}

// propose has whoever leads decide a statement.
func (r *Run) propose(ctx context.Context, proof statement.Proof) error {
	command, err := broker.CommandFor(proof, 0)
	if err != nil {
		return err
	}
	for {
		for _, name := range r.cluster.Members() {
			l := r.cluster.brokers[name].current()
			if l == nil || l.node.Leader() != name || r.cluster.Wires.thawed(ctx, name) != nil {
				continue
			}
			limited, cancel := context.WithTimeout(ctx, callPatience)
			_, err = l.node.Propose(limited, command)
			cancel()
			if told := broker.KindOf(err); !l.gone.Load() && (err == nil || told != "" && told != broker.Unavailable) {
				return err
			}
		}
		if pause(ctx, 300*time.Millisecond) != nil {
			return fmt.Errorf("nobody takes it: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// empty gives a broker an empty disk, as quarantine and join do.
func (r *Run) empty(b *Broker) error {
	dir := r.cluster.fresh(b.Name)
	disk, err := cluster.Join(cluster.Config{Name: b.Name, Dir: dir, Now: b.now, Log: io.Discard}, r.world().Chain.Proofs())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dir, b.joined, b.out, b.mends = dir, disk, false, false
	return err
}

// operate has the operators do something, unless they are at it already.
func (r *Run) operate(do func() error) {
	if !r.operating.TryLock() {
		return
	}
	r.procedures.Go(func() {
		defer r.operating.Unlock()
		if err := do(); err != nil {
			r.cluster.wrong("what operators do does not work: %v", err)
		}
	})
}

// comeOrGo has the broker that is none yet become one, or takes it out again.
func (r *Run) comeOrGo(_ context.Context, d *dice) {
	b := r.cluster.brokers[r.cluster.Names[len(r.cluster.Names)-1]]
	watching, promoted := d.IntN(2) == 0, d.IntN(2) == 0
	r.operate(func() error {
		if !b.idle() {
			return r.takeOut(b)
		}
		if err := r.empty(b); err != nil {
			return err
		}
		r.start(b)
		if err := r.order(statement.Add, b, b.joined, watching); err != nil || !watching || !promoted {
			return err
		}
		return r.order(statement.Add, b, b.joined, false)
	})
}

// takeOut takes a broker out of the cluster.
func (r *Run) takeOut(b *Broker) error {
	if err := r.order(statement.Remove, b, b.joined, false); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), operatorPatience)
	defer cancel()
	for !r.released(b) && !r.canLose(b) { // it runs for as long as its vote is needed
		if pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("%s, removed, is still a member after %s", b.Name, operatorPatience)
		}
	}
	b.mu.Lock()
	b.out = true
	b.mu.Unlock()
	b.Kill(false)
	return nil
}

// released reports whether every other broker runs and knows that one is no member any more.
func (r *Run) released(b *Broker) bool {
	for _, name := range r.cluster.Members() {
		l := r.cluster.brokers[name].current()
		if name != b.Name && (l == nil || slices.ContainsFunc(l.node.Seats(), func(s cluster.Seat) bool { return s.Name == b.Name })) {
			return false
		}
	}
	return true
}

// canLose reports whether the others go on without a broker for ever: all of them run, know each other as members, and are a
// majority of all that vote. Losing more than that is lost quorum, for which there is restore.
func (r *Run) canLose(b *Broker) bool {
	var votes []cluster.Seat
	for _, name := range r.cluster.Members() {
		l := r.cluster.brokers[name].current()
		if l == nil && name != b.Name {
			return false
		}
		if l == nil {
			continue
		}
		mine := slices.DeleteFunc(l.node.Seats(), func(s cluster.Seat) bool { return !s.Votes })
		slices.SortFunc(mine, func(x, y cluster.Seat) int { return strings.Compare(string(x.Name), string(y.Name)) })
		if votes != nil && !slices.Equal(mine, votes) {
			return false
		}
		votes = mine
	}
	can := majority(votes, func(s cluster.Seat) bool {
		other := r.cluster.brokers[s.Name]
		return other != b && !other.idle() && s.Disk == other.disk()
	})
	if can {
		r.note("%s may be lost: %v vote", b.Name, votes)
	}
	return can
}

// majority reports whether most of those that vote are still there. One that was taken out, or whose disk is lost already, counts
// among them until raft has let it go.
func majority(votes []cluster.Seat, there func(cluster.Seat) bool) bool {
	n := 0
	for _, s := range votes {
		if there(s) {
			n++
		}
	}
	return 2*n > len(votes)
}

// replaced takes a broker's disk away and brings the broker back with an empty one.
func (r *Run) replaced(_ context.Context, d *dice) {
	b := r.one(d)
	r.operate(func() error {
		if !r.canLose(b) {
			return nil
		}
		r.note("%s loses its disk", b.Name)
		b.mu.Lock()
		b.mends = true
		b.mu.Unlock()
		b.Kill(false)
		return r.newDisk(b)
	})
}

// newDisk brings a broker back whose disk is lost: it joins under its name, and an operator tells the cluster so.
func (r *Run) newDisk(b *Broker) error {
	old := b.joined
	if err := r.empty(b); err != nil {
		return err
	}
	r.start(b)
	if err := r.order(statement.Remove, b, old, false); err != nil {
		return err
	}
	return r.order(statement.Add, b, b.joined, false)
}

// diskFails has writes fail for good: the broker ends, never uses that disk again, and comes back with an empty one.
func (r *Run) diskFails(_ context.Context, d *dice) {
	b := r.one(d)
	long := 10*time.Millisecond + d.upTo(300*time.Millisecond)
	r.operate(func() error {
		if !r.canLose(b) {
			return nil
		}
		r.note("%s: input/output errors for %s", b.Name, long)
		b.mu.Lock()
		b.mends = true
		b.mu.Unlock()
		b.trouble(trouble{fails: syscall.EIO})
		time.Sleep(long)
		b.trouble(trouble{})
		b.mu.Lock()
		b.mends = false
		down := b.life == nil
		b.mu.Unlock()
		if !down {
			return nil // it wrote nothing meanwhile
		}
		err := b.Start()
		if errors.Is(err, cluster.ErrDisk) {
			r.note("%s: %v", b.Name, err)
			return r.newDisk(b)
		}
		return err // nil: it died of something else
	})
}

// disk is the one an operator added the broker by, or none.
func (b *Broker) disk() statement.Disk {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.joined
}
