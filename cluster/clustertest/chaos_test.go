package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// play runs one seed in a bubble of its own.
func play(t *testing.T, seed uint64, options Options) (run *Run) {
	synctest.Test(t, func(t *testing.T) { run = Play(t, seed, options) })
	return run
}

func TestScratch(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("SEEDS"))
	first, _ := strconv.Atoi(os.Getenv("SEED"))
	all := time.Now()
	var totalOps, totalEvents int
	counts := map[string]int{}
	for seed := uint64(first); seed < uint64(first+n); seed++ {
		begin := time.Now()
		run := play(t, seed, Options{})
		played := time.Since(begin)
		wrong := run.Verdict()
		ops, looks, starts, events := run.Size()
		totalOps += ops
		totalEvents += events
		for k, v := range run.Counts() {
			counts[k] += v
		}
		if len(wrong) > 0 || time.Since(begin) > 8*time.Second {
			fmt.Println(seed, "played", played, "judged", time.Since(begin)-played, "ops", ops, "looks", looks, "starts", starts, "events", events, run.Counts())
			os.WriteFile(filepath.Join("/tmp", fmt.Sprintf("chaos-%d.txt", seed)), []byte(run.Text()), 0o644)
		}
		for _, w := range wrong {
			fmt.Println("WRONG", seed, w)
		}
	}
	fmt.Println(n, "seeds", time.Since(all), "ops", totalOps, "events", totalEvents, counts)
}
