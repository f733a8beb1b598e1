package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pim-ssh/cluster"
)

// TestADiskThatKillsItsReaderIsDamaged holds each way in which the reader's process may end to what is said of it.
func TestADiskThatKillsItsReaderIsDamaged(t *testing.T) {
	for name, try := range map[string]struct {
		does string
		says string // "": the node is asked next
	}{
		"ends in order":        {"exit 0", ""},
		"refuses":              {"exit 1", ""},
		"dies of SIGBUS":       {"kill -BUS $$", "kills its reader (signal: bus error"},
		"panics":               {"exit 2", "kills its reader (exit status 2"},
		"hangs":                {"exec sleep 60", "hangs"},
		"is killed for memory": {"kill -KILL $$", "kills its reader (signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := survives(t.Context(), time.Second, "sh", "-c", try.does)
			switch {
			case try.says == "" && err != nil:
				t.Errorf("got %v", err)
			case try.says != "" && (!errors.Is(err, cluster.ErrDisk) || !strings.Contains(err.Error(), try.says)):
				t.Errorf("got %v, want %q", err, try.says)
			}
		})
	}
}

// TestTheRealBrokerRefusesADamagedDisk alters bytes of a stopped broker's raft.db, and cuts it: the program says what to
// type, or nothing was harmed and it serves. It never dies of the disk.
func TestTheRealBrokerRefusesADamagedDisk(t *testing.T) {
	p := newProcess(t)
	p.start()
	for range 20 {
		proof, err := p.ask("alice")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.as("alice").Submit(t.Context(), proof); err != nil {
			t.Fatal(err)
		}
	}
	p.kill()
	path := filepath.Join(p.dir, "broker", "raft.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	draw, refused := rand.New(rand.NewPCG(4, 4)), 0
	const tries = 24
	for i := range tries {
		harmed := append([]byte(nil), whole...)
		if i%4 == 0 {
			harmed = harmed[:draw.IntN(len(whole)/4096)*4096]
		} else {
			harmed[draw.IntN(64<<10)] ^= byte(1 + draw.IntN(255))
		}
		if err := os.WriteFile(path, harmed, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := program(t.Context(), "preflight", "--dir", filepath.Join(p.dir, "broker")).CombinedOutput()
		if err == nil {
			continue
		}
		refused++
		if refused > 4 { // each start waits for its port and its people
			continue
		}
		started, err := program(t.Context(), "dev", "--dir", p.dir).CombinedOutput()
		if err == nil || !strings.Contains(string(started), "type pim-brokerd quarantine, then pim-brokerd join") || strings.Contains(string(started), "goroutine") {
			t.Errorf("preflight said %s; the start ended with %v:\n%s", out, err, started)
		}
	}
	if refused < tries/4 {
		t.Errorf("%d of %d refused", refused, tries)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
}
