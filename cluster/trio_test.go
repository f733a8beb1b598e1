package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// trio is a cluster of three in this process, in a bubble of virtual time (elections cost none), on a network that can be cut.
type trio struct {
	t     *testing.T
	world *forger.World
	names []statement.BrokerName
	dirs  map[statement.BrokerName]string

	mu     sync.Mutex
	nodes  map[statement.BrokerName]*Node
	doors  map[statement.BrokerName]*porch
	cut    map[statement.BrokerName]bool
	conns  map[net.Conn][2]statement.BrokerName
	ahead  map[statement.BrokerName]statement.Seconds // how far a broker's clock is ahead of the real one
	said   map[statement.BrokerName]*bytes.Buffer
	asked  map[statement.BrokerName]int  // how often a broker was asked for events
	lies   map[statement.BrokerName]bool // whether it then alters one
	noSums bool                          // all are of a build that makes none
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	return newTrioOf(t, "b1", "b2", "b3")
}

// newTrioOf founds a cluster of other brokers.
func newTrioOf(t *testing.T, names ...statement.BrokerName) *trio {
	t.Helper()
	r := &trio{t: t, names: names, dirs: map[statement.BrokerName]string{}, nodes: map[statement.BrokerName]*Node{},
		doors: map[statement.BrokerName]*porch{}, cut: map[statement.BrokerName]bool{}, conns: map[net.Conn][2]statement.BrokerName{},
		ahead: map[statement.BrokerName]statement.Seconds{}, said: map[statement.BrokerName]*bytes.Buffer{},
		asked: map[statement.BrokerName]int{}, lies: map[statement.BrokerName]bool{}}
	r.world = forger.New(t, func(doc *policy.Document) {
		for _, name := range r.names[1:] {
			doc.Brokers[name] = policy.Broker{Address: string(name) + ":7443", Identity: keyOf(t), CA: keyOf(t), Log: keyOf(t)}
		}
	})
	for _, name := range r.names {
		r.dirs[name] = memory(t)
		if err := Bootstrap(Config{Name: name, Dir: r.dirs[name], Now: forger.Now, Log: io.Discard}, r.world.Chain.Proofs()); err != nil {
			t.Fatal(err)
		}
		r.open(name)
	}
	t.Cleanup(func() {
		for _, name := range r.names {
			r.close(name)
			if t.Failed() {
				r.mu.Lock() // a connection may still end
				t.Logf("%s:\n%s", name, r.said[name])
				r.mu.Unlock()
			}
		}
	})
	r.ready(names...)
	return r
}

func keyOf(t *testing.T) statement.Key {
	key, err := statement.KeyOf(forger.Key(t).PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (r *trio) open(name statement.BrokerName) {
	r.t.Helper()
	listener := newPorch()
	r.mu.Lock()
	r.doors[name] = listener
	r.said[name] = &bytes.Buffer{}
	r.mu.Unlock()
	node, err := Open(Config{Name: name, Dir: r.dirs[name], Log: logger{r, name}, Now: func() statement.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return forger.Now().Add(r.ahead[name])
	}, Wire: Wire{Listener: listener, Dial: r.dialFrom(name), Who: who, Peers: asking{r, name}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.nodes[name] = node
	r.mu.Unlock()
}

func (r *trio) close(name statement.BrokerName) {
	r.mu.Lock()
	node := r.nodes[name]
	delete(r.nodes, name)
	r.mu.Unlock()
	if node == nil {
		return
	}
	if err := node.Close(); err != nil {
		r.t.Error(err)
	}
}

// logger keeps what a broker says.
type logger struct {
	r    *trio
	name statement.BrokerName
}

func (l logger) Write(p []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.said[l.name].Write(p)
}

func (r *trio) heard(name statement.BrokerName, words string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.said[name].Bytes(), []byte(words))
}

func (r *trio) dialFrom(from statement.BrokerName) func(context.Context, statement.BrokerName) (net.Conn, error) {
	return func(ctx context.Context, to statement.BrokerName) (net.Conn, error) {
		r.mu.Lock()
		door, cut := r.doors[to], r.cut[from] || r.cut[to]
		r.mu.Unlock()
		if cut || door == nil {
			return nil, errors.New("cut")
		}
		near, far := newWire(string(from), string(to))
		select {
		case door.come <- far:
		case <-door.closed:
			return nil, errors.New("nobody listens")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.cut[from] || r.cut[to] {
			near.Close()
		}
		r.conns[near] = [2]statement.BrokerName{from, to}
		return near, nil
	}
}

// who is the broker that dialled a connection: what TLS would have proved.
func who(accepted net.Conn) (statement.BrokerName, error) {
	return statement.BrokerName(accepted.RemoteAddr().String()), nil
}

// asking is one broker's Peers.
type asking struct {
	r    *trio
	from statement.BrokerName
}

// node finds another broker as pim-brokerd does: by the policy as this one knows it.
func (a asking) node(to statement.BrokerName) (*Node, error) {
	if own := a.r.node(a.from); own != nil {
		own.Chain()
	}
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	if a.r.cut[a.from] || a.r.cut[to] || a.r.nodes[to] == nil {
		return nil, errors.New("cut")
	}
	return a.r.nodes[to], nil
}

func (a asking) Index(ctx context.Context, leader statement.BrokerName) (index uint64, err error) {
	node, err := a.node(leader)
	if err != nil {
		return 0, err
	}
	err = node.Lead(ctx, func(s *broker.State) { index = s.Index() })
	return index, err
}

func (a asking) Status(_ context.Context, name statement.BrokerName, revision uint64) (Status, error) {
	node, err := a.node(name)
	if err != nil {
		return Status{}, err
	}
	status := node.Status()
	proofs := node.Chain().Proofs()
	status.Policies = proofs[min(revision, uint64(len(proofs))):]
	return status, nil
}

func (a asking) Events(_ context.Context, from statement.BrokerName, index uint64) ([][]byte, error) {
	node, err := a.node(from)
	if err != nil {
		return nil, err
	}
	events, _, err := node.Events(index, 7)
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	a.r.asked[from]++
	if a.r.lies[from] && len(events) > 0 {
		last := events[len(events)-1] // a copy
		last[len(last)/2] ^= 1
	}
	return events, err
}

func (a asking) Sum(ctx context.Context, leader statement.BrokerName, events uint64) (statement.Hash, error) {
	node, err := a.node(leader)
	if err == nil {
		err = node.Lead(ctx, func(*broker.State) {})
	}
	a.r.mu.Lock()
	if a.r.noSums {
		err = ErrNoSums
	}
	a.r.mu.Unlock()
	if err != nil {
		return statement.Hash{}, err
	}
	return node.Sum(events)
}

// sever takes a broker's network away.
func (r *trio) sever(name statement.BrokerName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut[name] = true
	for conn, ends := range r.conns {
		if ends[0] == name || ends[1] == name {
			conn.Close()
			delete(r.conns, conn)
		}
	}
}

func (r *trio) heal(name statement.BrokerName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut[name] = false
}

func (r *trio) node(name statement.BrokerName) *Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[name]
}

func (r *trio) ready(names ...statement.BrokerName) {
	r.t.Helper()
	for _, name := range names {
		ctx, cancel := context.WithTimeout(r.t.Context(), 15*time.Second)
		defer cancel()
		if err := r.node(name).Ready(ctx); err != nil {
			r.t.Fatalf("%s: %v", name, err)
		}
	}
}

// leader waits until one of the brokers that are not cut off leads.
func (r *trio) leader() statement.BrokerName {
	r.t.Helper()
	var found statement.BrokerName
	r.within("a leader", func() bool {
		for _, name := range r.names {
			if node := r.node(name); node != nil && !r.cut[name] && node.raft.State() == raft.Leader {
				found = name
				return true
			}
		}
		return false
	})
	return found
}

func (r *trio) follower() statement.BrokerName {
	r.t.Helper()
	leader := r.leader()
	for _, name := range r.names {
		if name != leader {
			return name
		}
	}
	return ""
}

func (r *trio) within(what string, holds func() bool) {
	r.t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(30 * time.Second); !holds(); <-again.C {
		if time.Now().After(end) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

// propose files a refusal (no host is enrolled), which is one event, at a broker.
func (r *trio) propose(at statement.BrokerName) error {
	r.t.Helper()
	command, err := broker.CommandFor(r.world.Ask("alice", "web-deploy", "web1", 60, r.world.People["alice"], nil), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	_, err = r.node(at).Propose(ctx, command)
	return err
}

// filed files one that must be taken; where the outcome is unknown it files another, as people do.
func (r *trio) filed(at statement.BrokerName) {
	r.t.Helper()
	var err error
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-again.C {
		if err = r.propose(at); broker.KindOf(err) == broker.Missing {
			return
		}
		if broker.KindOf(err) != broker.Unavailable || errors.Is(err, broker.ErrNotLeader) {
			break
		}
	}
	r.t.Fatalf("at %s: %v", at, err)
}

func (r *trio) digest(at statement.BrokerName) (digest statement.Hash, index uint64) {
	r.t.Helper()
	if err := r.node(at).View(r.t.Context(), func(s *broker.State) { digest, index = s.Digest(), s.Index() }); err != nil {
		r.t.Fatalf("%s: %v", at, err)
	}
	return digest, index
}
