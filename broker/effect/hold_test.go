package effect

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/packaging/lab/forger"
)

// TestNoAlteredByteOfTheRecordIsHandedOut alters one byte at a time under a record that runs: whoever asks for any file gets
// what was signed, or nothing yet, and the next look mends it.
func TestNoAlteredByteOfTheRecordIsHandedOut(t *testing.T) {
	world := forger.New(t, nil)
	log := newGrowing(t, world)
	log.refuse(world, 300)
	record := &Record{Dir: t.TempDir(), Key: world.Log, Events: log, Log: slog.New(slog.DiscardHandler)}
	must(t, record.Publish())
	want := map[string][]byte{}
	for _, name := range files(t, record.Dir) {
		data, err := record.Read(name)
		must(t, err)
		want[name] = data
	}
	flips, refused := 300, 0
	if testing.Short() {
		flips = 60
	}
	for i := range flips {
		flip(t, record.Dir, i, func(altered string) {
			for name, whole := range want {
				data, err := record.Read(name)
				if err == nil && !bytes.Equal(data, whole) {
					t.Errorf("flip %d in %s: %s is handed out altered", i, altered, name)
				}
				if err != nil && broker.KindOf(err) != broker.Unavailable {
					t.Errorf("flip %d in %s: %s: %v", i, altered, name, err)
				}
				if err != nil {
					refused++
				}
			}
			if altered == audit.PathCheckpoint {
				return // the one in memory is handed out, and the next one written over it
			}
			must(t, record.Publish())
			if data, err := os.ReadFile(filepath.Join(record.Dir, altered)); err != nil || !bytes.Equal(data, want[altered]) {
				t.Errorf("flip %d in %s was not mended: %v", i, altered, err)
			}
		})
		must(t, record.Publish())
	}
	if refused < flips/3 {
		t.Errorf("only %d reads of %d flips were refused", refused, flips)
	}
}

// TestHistoryCostsNothingWhenARecordIsLoaded loads records of ten thousand and of a hundred thousand entries.
func TestHistoryCostsNothingWhenARecordIsLoaded(t *testing.T) {
	few, many := 10_000, 100_000
	if testing.Short() {
		few, many = 1_000, 20_000
	}
	young, old := loading(t, few), loading(t, many)
	t.Logf("loaded and found whole: %d entries %s, %d entries %s", few, young, many, old)
	if old > 3*young+20*time.Millisecond {
		t.Error("loading a record takes longer the more ever happened")
	}
}

// loading returns the best time in which a record of so many entries is loaded.
func loading(t *testing.T, entries int) time.Duration {
	t.Helper()
	world := forger.New(t, nil)
	log := newGrowing(t, world)
	log.refuse(world, 1)
	last, err := broker.DecodeEvent(log.leaves[len(log.leaves)-1])
	must(t, err)
	for filler := last.(*broker.StatementRefused); len(log.leaves) < entries; {
		next := *filler
		next.Index = log.state.Index()
		leaf, err := broker.EncodeEvent(&next)
		must(t, err)
		log.leaves = append(log.leaves, leaf)
		broker.Evolve(log.state, &next)
	}
	record := &Record{Dir: t.TempDir(), Key: world.Log, Events: log, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	must(t, record.Publish())
	best := time.Hour
	for range 5 {
		again := &Record{Dir: record.Dir, Key: world.Log, Events: log, Log: record.Log}
		start := time.Now()
		must(t, again.Publish())
		best = min(best, time.Since(start))
	}
	return best
}
