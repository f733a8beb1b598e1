package clustertest

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// What `make soak` says.
var (
	seeds   = flag.Uint64("seeds", 0, "how many seeds; 0: twenty, or four with -short")
	minutes = flag.Float64("minutes", 0, "begin no seed after so many minutes; 0: all of them")
	first   = flag.Uint64("first", 1, "the first seed")
	restore = flag.Duration("restore", 0, "how long a storm every seed has in a second epoch; 0: one in five")
	keep    = flag.String("keep", os.TempDir(), "where the history of a bad seed is kept")
)

// play runs one seed in a bubble of its own, with keys that are the seed's too.
func play(t *testing.T, seed uint64, options Options) (run *Run) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	defer func() { // a bubble that something never leaves
		if p := recover(); p != nil && run != nil {
			run.cluster.wrong("%v", p)
		} else if p != nil {
			panic(p)
		}
	}()
	synctest.Test(t, func(t *testing.T) { run = Play(t, seed, options) })
	return run
}

// TestChaos breaks brokers, disks, wires and clocks under people at work, and holds what everybody was told to the model.
// It ends with the first seed whose history no promise allows, and keeps that.
func TestChaos(t *testing.T) {
	begin := time.Now()
	played, all, many := uint64(0), Tally{}, *seeds
	switch {
	case many > 0:
	case testing.Short():
		many = 4
	default:
		many = 20
	}
	for seed := *first; seed < *first+many; seed++ {
		if *minutes > 0 && time.Since(begin).Minutes() > *minutes {
			break
		}
		good := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			run := play(t, seed, Options{Restore: *restore})
			all.Add(run)
			if wrong := run.Verdict(); len(wrong) > 0 {
				file := filepath.Join(*keep, fmt.Sprintf("chaos-seed-%d.txt", seed))
				err := os.WriteFile(file, []byte(strings.Join(wrong, "\n")+"\n\n"+run.Text()), 0o600)
				t.Errorf("%d things are wrong; all of it is in %s (%v)\n%s", len(wrong), file, err, strings.Join(wrong[:min(4, len(wrong))], "\n"))
			}
		})
		if !good {
			t.Fatalf("after %d seeds (%s): make soak SEED=%d SEEDS=1", played, all, seed)
		}
		played++
	}
	t.Logf("%d seeds in %s: %s", played, time.Since(begin).Round(time.Second), all)
	for _, f := range faults {
		if played >= 100 && all.Faults[f.name] == 0 {
			t.Errorf("%q never struck", f.name)
		}
	}
}

// TestTheJudgeReports breaks the code on purpose: a judge that never finds anything proves nothing.
func TestTheJudgeReports(t *testing.T) {
	for name, c := range map[string]struct {
		broken Breakage
		faults []string // those that bring it out
		words  []string // one of them must be said
	}{
		"a leader that does not ask whether it still leads": {NoVerify, []string{"stalled and alone"}, []string{"stale"}},
		"a raft log that is not synced":                     {NoSync, []string{"kill all", "kill"}, []string{"lost", "this is not the disk", "differs from the leader's", "different events"}},
		"an event that is folded twice":                     {Twice, []string{"kill", "alone"}, []string{"audit verify"}},
		"an end that is forgotten":                          {Unburied, []string{"kill", "alone"}, []string{"no order", "it is over"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 10; seed++ {
				var run *Run
				synctest.Test(t, func(t *testing.T) {
					run = Play(t, seed, Options{Storm: 20 * time.Second, Restore: -1, Faults: c.faults, Shape: Shape{Broken: c.broken}})
				})
				wrong := strings.Join(run.Verdict(), "\n")
				if slices.ContainsFunc(c.words, func(w string) bool { return strings.Contains(wrong, w) }) {
					t.Logf("seed %d: %.300s", seed, wrong)
					return
				}
			}
			t.Errorf("ten seeds, and nothing of %v was said", c.words)
		})
	}
}

// TestOnlyWhatAMajorityOutlivesIsLostForEver holds the storm to what it may do: it took a disk away while a member that had been
// taken out, and was gone, still had its vote (seed 48).
func TestOnlyWhatAMajorityOutlivesIsLostForEver(t *testing.T) {
	var votes []cluster.Seat
	for _, name := range []statement.BrokerName{"b1", "b2", "b3", "b4"} {
		votes = append(votes, cluster.Seat{Name: name, Votes: true})
	}
	for what, c := range map[string]struct {
		votes int
		gone  string
		want  bool
	}{
		"one of two":                         {2, "b1", false},
		"one of three":                       {3, "b1", true},
		"one of four":                        {4, "b1", true},
		"two of four, one of them taken out": {4, "b1 b4", false},
		"two of three":                       {3, "b1 b2", false},
		"nobody knows who votes":             {0, "", false},
	} {
		if got := majority(votes[:c.votes], func(s cluster.Seat) bool { return !strings.Contains(c.gone, string(s.Name)) }); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}

// TestASeedFixesWhatIsTried plays one seed twice: the scheduler may differ, the plan may not.
func TestASeedFixesWhatIsTried(t *testing.T) {
	for seed := range uint64(50) {
		for stream := range uint64(3) {
			a, b := roll(seed, stream, 4), roll(seed, stream, 4)
			if x, y := a.Uint64(), b.Uint64(); x != y {
				t.Fatalf("seed %d throws %d and %d", seed, x, y)
			}
		}
	}
	names := map[string]bool{}
	for _, f := range faults {
		names[f.name] = true
	}
	if len(names) != len(faults) {
		t.Errorf("two faults have one name: %v", slices.Sorted(maps.Keys(names)))
	}
}
