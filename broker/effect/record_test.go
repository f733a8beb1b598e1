package effect

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// growing is a log of a broker's own, which reports make longer.
type growing struct {
	t      *testing.T
	state  *broker.State
	leaves [][]byte
	grown  chan struct{}
}

func newGrowing(t *testing.T, world *forger.World) *growing {
	g := &growing{t: t, state: broker.NewState(), grown: make(chan struct{})}
	for _, p := range world.Chain.Proofs() {
		g.file(p)
	}
	return g
}

func (g *growing) file(p statement.Proof) {
	g.t.Helper()
	command, err := broker.CommandFor(p, forger.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	decided, err := broker.Decide(g.state, command.Under(g.state))
	if err != nil && len(decided.Events) == 0 {
		g.t.Fatal(err)
	}
	for _, event := range decided.Events {
		leaf, err := broker.EncodeEvent(event)
		if err != nil {
			g.t.Fatal(err)
		}
		g.leaves = append(g.leaves, leaf)
		broker.Evolve(g.state, event)
	}
	close(g.grown)
	g.grown = make(chan struct{})
}

// refuse makes n events: mallory asks for what she may not have.
func (g *growing) refuse(world *forger.World, n int) {
	g.t.Helper()
	key := forger.Key(g.t)
	for range n {
		g.file(world.Ask("mallory", "root", "db1", 60, key, nil))
	}
}

func (g *growing) Local(fn func(*broker.State)) error { fn(g.state); return nil }

func (g *growing) Events(index uint64, limit int) ([][]byte, <-chan struct{}, error) {
	from := min(index, uint64(len(g.leaves)))
	return g.leaves[from:min(from+uint64(limit), uint64(len(g.leaves)))], g.grown, nil
}

// audited verifies a record as an auditor does.
func audited(t *testing.T, world *forger.World, source audit.Source, others ...audit.Signed) (audit.Signed, error) {
	t.Helper()
	text, err := source(audit.PathCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := audit.Open(text, world.Chain.Deployment(), world.Chain.Current().LogKeys())
	if err != nil {
		t.Fatal(err)
	}
	_, err = refold.Verify(refold.Record{Source: source, Signed: signed, Others: others, Pinned: world.Chain, Now: forger.Now()}, nil)
	return signed, err
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTheRecordFollowsTheLogAcrossRestartsAndDamage publishes in steps; at each the record is sound, holds no file too
// many, and begins with what was signed before.
func TestTheRecordFollowsTheLogAcrossRestartsAndDamage(t *testing.T) {
	world := forger.New(t, nil)
	log := newGrowing(t, world)
	dir := filepath.Join(t.TempDir(), "record")
	open := func() *Record {
		return &Record{Dir: dir, Key: world.Log, Events: log, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	}
	record, seen := open(), []audit.Signed{}
	damage := map[int]func(){
		2: func() { record = open() },
		3: func() { must(t, os.RemoveAll(filepath.Join(dir, "tile"))) },
		4: func() {
			must(t, os.WriteFile(filepath.Join(dir, "tile/0/000"), []byte("rubbish"), 0o600))
			record = open()
		},
		5: func() { must(t, os.WriteFile(filepath.Join(dir, "checkpoint"), nil, 0o600)); record = open() },
		6: func() {
			must(t, os.WriteFile(filepath.Join(dir, "tile/0/001.p/9"), []byte("left by a crash"), 0o600))
			record = open()
		},
	}
	for step, n := range []int{0, 1, 60, 250, 0, 0, 1} {
		log.refuse(world, n)
		if harm := damage[step]; harm != nil {
			harm()
		}
		must(t, record.Publish())
		if step == 4 { // a file of long ago is looked at when somebody asks for it
			if _, err := record.Read("tile/0/000"); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("rubbish is handed out: %v", err)
			}
			must(t, record.Publish())
		}
		signed, err := audited(t, world, record.Read, seen...)
		if err != nil || signed.Size != uint64(len(log.leaves)) {
			t.Fatalf("step %d: %d of %d events: %v", step, signed.Size, len(log.leaves), err)
		}
		seen = append(seen, signed)
		if _, err := audited(t, world, audit.FromFS(os.DirFS(dir))); err != nil {
			t.Errorf("step %d: a copy of the directory: %v", step, err)
		}
	}
	want := []string{"checkpoint", "tile/0/000", "tile/0/001.p/57", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/57"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestABrokerSignsNoSecondLog swaps the event log under a record: one broker's own disk, put back or rewritten.
func TestABrokerSignsNoSecondLog(t *testing.T) {
	world := forger.New(t, nil)
	honest, other := newGrowing(t, world), newGrowing(t, world)
	honest.refuse(world, 20)
	other.refuse(world, 40)
	record := &Record{Dir: t.TempDir(), Key: world.Log, Events: honest, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	must(t, record.Publish())
	before, err := record.Read(audit.PathCheckpoint)
	must(t, err)
	record.Events = other
	if err := record.Publish(); !errors.Is(err, audit.ErrForked) {
		t.Errorf("another log: %v", err)
	}
	again := &Record{Dir: record.Dir, Key: world.Log, Events: other, Log: record.Log}
	if err := again.Publish(); !errors.Is(err, audit.ErrForked) {
		t.Errorf("another log, after a restart: %v", err)
	}
	short := newGrowing(t, world)
	back := &Record{Dir: record.Dir, Key: world.Log, Events: short, Log: record.Log}
	if err := back.Publish(); !errors.Is(err, audit.ErrShrunk) {
		t.Errorf("an older log, put back: %v", err)
	}
	after, err := again.Read(audit.PathCheckpoint)
	if err != nil || string(after) != string(before) {
		t.Errorf("it signed %q after %q: %v", after, before, err)
	}
}

// TestAThousandFlippedBytesAreEachNamed changes one byte of a broker's stored record at a time, seeded, over entries, tiles
// and checkpoint.
func TestAThousandFlippedBytesAreEachNamed(t *testing.T) {
	world := forger.New(t, nil)
	log := newGrowing(t, world)
	log.refuse(world, 280)
	record := &Record{Dir: t.TempDir(), Key: world.Log, Events: log, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	must(t, record.Publish())
	named, flips := map[string]int{}, 1000
	if testing.Short() {
		flips = 200
	}
	for i := range flips {
		name := flip(t, record.Dir, i, func(name string) {
			text, err := os.ReadFile(filepath.Join(record.Dir, audit.PathCheckpoint))
			must(t, err)
			source := audit.FromFS(os.DirFS(record.Dir))
			signed, err := audit.Open(text, world.Chain.Deployment(), world.Chain.Current().LogKeys())
			if err == nil {
				_, err = audit.Read(source, signed.LogHead, func(uint64, []byte) {})
			}
			var wrong *audit.Wrong
			if err == nil || errors.As(err, &wrong) != (name != audit.PathCheckpoint) || wrong != nil && wrong.Where != name {
				t.Errorf("flip %d in %s: %v", i, name, err)
			}
		})
		named[strings.Split(name, ".p/")[0]]++
	}
	t.Log(named)
	if len(named) != 6 {
		t.Errorf("only these files were changed: %v", named)
	}
}
