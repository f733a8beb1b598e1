package cluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// aged returns a broker's disk with so many events of history, in memory: the live state is that of a broker which saw none
// of them, but for their number. Its raft log was cut after the snapshot, as it is on a broker that runs for long.
func aged(t testing.TB, events uint64) Config {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("/dev/shm", "pim-aged-")
	must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	world := forger.New(t, nil)
	config := Config{Name: "b1", Dir: dir, Wire: Alone(), Log: io.Discard, Now: forger.Now}
	must(Bootstrap(config, world.Chain.Proofs()))
	node := opened(t, config)
	propose := func(p statement.Proof) {
		command, err := broker.CommandFor(p, 0)
		must(err)
		if _, err := node.Propose(t.Context(), command); err != nil && broker.KindOf(err) != broker.Missing {
			t.Fatal(err)
		}
	}
	propose(enrolment(t, world, "web1"))
	for i := range 50 {
		propose(world.Ask("alice", "web-deploy", statement.HostName([]string{"web1", "web9"}[i%2]), 3600, world.People["alice"], nil))
	}
	last := node.raft.LastIndex()
	must(node.Close())

	log, err := openEvents(dir)
	must(err)
	state := broker.NewState()
	leaves, err := log.Read(0, int(log.Len()))
	must(err)
	var filler *broker.StatementRefused
	for _, leaf := range leaves {
		event, err := broker.DecodeEvent(leaf)
		must(err)
		broker.Evolve(state, event)
		if refused, is := event.(*broker.StatementRefused); is {
			filler = refused
		}
	}
	for log.Len() < events {
		var batch [][]byte
		for len(batch) < 2000 && log.Len()+uint64(len(batch)) < events {
			next := *filler
			next.Index, next.At = state.Index(), state.Now()
			broker.Evolve(state, &next)
			leaf, err := broker.EncodeEvent(&next)
			must(err)
			batch = append(batch, leaf)
		}
		must(log.append(log.Len(), batch))
	}
	must(log.close())
	must(snapshotOf(dir, state, last))
	return config
}

// snapshotOf writes a snapshot as raft does, and cuts the log behind it.
func snapshotOf(dir string, state *broker.State, index uint64) error {
	store, err := openRaftStore(dir, Seams{})
	if err != nil {
		return err
	}
	defer store.Close()
	var entry raft.Log
	if err := store.GetLog(index, &entry); err != nil {
		return err
	}
	kept, err := openSnapshots(dir, &failstop{}, io.Discard)
	if err != nil {
		return err
	}
	members := raft.Configuration{Servers: []raft.Server{{ID: "b1", Address: "b1"}}}
	_, transport := raft.NewInmemTransport("b1")
	sink, err := kept.Create(1, index, entry.Term, members, 1, transport)
	if err != nil {
		return err
	}
	data, err := broker.EncodeState(state)
	if err != nil {
		return err
	}
	return frozen{data, &failstop{}, Seams{}}.Persist(sink)
}

func opened(t testing.TB, config Config) *Node {
	t.Helper()
	node, err := Open(config)
	if err == nil {
		err = node.Ready(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// enrolment is the statement by which a host joins.
func enrolment(t testing.TB, world *forger.World, name statement.HostName) statement.Proof {
	t.Helper()
	once, identity := forger.Key(t), forger.Key(t)
	key := func(signer ssh.Signer) statement.Key {
		key, err := statement.KeyOf(signer.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	token := world.Sign(statement.HostToken{Head: world.Head(statement.KindHostToken, "dave"), Name: name, Labels: map[string]string{"tier": "web"},
		Addresses: []string{string(name)}, Key: key(once), Expires: forger.Now() + 3600}, "dave")
	head := world.Head(statement.KindEnrolment, "")
	head.Host = name
	proof, err := statement.Sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte(name)), Identity: key(identity),
		HostKeys: []statement.Key{key(identity)}}, once, identity)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// measured is what a broker's age may have an effect on.
type measured struct {
	preflight, restart, snapshot time.Duration
	state                        int64 // bytes of the snapshot
	disk                         int64 // bytes of events.db
}

// measure restarts a broker so many times and returns the best of each.
func measure(t testing.TB, config Config, times int) measured {
	t.Helper()
	best := measured{preflight: time.Hour, restart: time.Hour, snapshot: time.Hour}
	for range times {
		start := time.Now()
		if err := Preflight(config.Dir); err != nil {
			t.Fatal(err)
		}
		best.preflight = min(best.preflight, time.Since(start))
		start = time.Now()
		node := opened(t, config)
		best.restart = min(best.restart, time.Since(start))
		start = time.Now()
		if err := node.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		best.snapshot = min(best.snapshot, time.Since(start))
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
	}
	names, err := snapshotNames(filepath.Join(config.Dir, snapshots))
	if err != nil {
		t.Fatal(err)
	}
	for path, size := range map[string]*int64{filepath.Join(config.Dir, snapshots, names[len(names)-1], snapshotState): &best.state,
		filepath.Join(config.Dir, eventsFile): &best.disk} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		*size = info.Size()
	}
	return best
}

func (m measured) String() string {
	return fmt.Sprintf("preflight %s, restart until it answers %s, snapshot %s of %d bytes; events.db %d MB", m.preflight.Round(time.Microsecond*100),
		m.restart.Round(time.Millisecond), m.snapshot.Round(time.Microsecond*100), m.state, m.disk>>20)
}

// TestHistoryCostsNothingAtARestart has the same live state after ten thousand and after a hundred thousand events.
func TestHistoryCostsNothingAtARestart(t *testing.T) {
	few, many := uint64(10_000), uint64(100_000)
	if testing.Short() {
		few, many = 1_000, 10_000
	}
	short, long := aged(t, few), aged(t, many)
	const slack = 50 * time.Millisecond // of a machine with other things to do
	for attempt := 1; ; attempt++ {     // what grows with history grows every time
		young, old := measure(t, short, 5), measure(t, long, 5)
		t.Logf("%7d events: %s", few, young)
		t.Logf("%7d events: %s", many, old)
		if old.state > young.state+1024 {
			t.Fatal("a snapshot grows with what ever happened")
		}
		if old.preflight <= 2*young.preflight+slack && old.restart <= 2*young.restart+slack && old.snapshot <= 2*young.snapshot+slack {
			return
		}
		if attempt == 3 {
			t.Fatal("a restart takes longer the more ever happened")
		}
	}
}

// BenchmarkRestart goes on to a million.
func BenchmarkRestart(b *testing.B) {
	for _, events := range []uint64{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(events, " events"), func(b *testing.B) {
			config := aged(b, events)
			b.Logf("%7d events: %s", events, measure(b, config, 5))
			for b.Loop() {
				node := opened(b, config)
				if err := node.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPreflightOfTheLongestLog reads a raft.db with as many entries as there are between two snapshots and behind.
func BenchmarkPreflightOfTheLongestLog(b *testing.B) {
	config := aged(b, 100)
	store, err := openRaftStore(config.Dir, Seams{})
	if err != nil {
		b.Fatal(err)
	}
	last, err := store.LastIndex()
	if err != nil {
		b.Fatal(err)
	}
	command := make([]byte, 2500) // a request with its proof
	for range (trailingCommands + snapshotAfter) / 64 {
		batch := make([]*raft.Log, 64)
		for i := range batch {
			last++
			batch[i] = &raft.Log{Index: last, Term: 9, Data: command}
		}
		if err := (chainedStore{store}).StoreLogs(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Preflight(config.Dir); err != nil {
			b.Fatal(err)
		}
	}
}
