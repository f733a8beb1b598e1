package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// TestASnapshotThatNewerOnesOvertookIsNoDamage completes a slow snapshot after newer ones, one of which came from the leader: raft
// takes it away at once, which says nothing against the disk. One that is gone without that does.
func TestASnapshotThatNewerOnesOvertookIsNoDamage(t *testing.T) {
	for name, newer := range map[string]int{"as many as are kept": keptSnapshots, "one too few, and it vanishes": keptSnapshots - 1} {
		t.Run(name, func(t *testing.T) {
			var failed error
			dir := memory(t)
			kept, err := openSnapshots(dir, &failstop{dir: dir, fail: func(err error) { failed = err }}, t.Output())
			if err != nil {
				t.Fatal(err)
			}
			_, transport := raft.NewInmemTransport("b1")
			begun := func(index uint64) raft.SnapshotSink {
				sink, err := kept.Create(1, index, 5, raft.Configuration{}, 1, transport)
				if err == nil {
					_, err = sink.Write([]byte("state"))
				}
				if err != nil {
					t.Fatal(err)
				}
				return sink
			}
			slow := begun(44)
			for i := range newer {
				if err := begun(uint64(50 + i)).Close(); err != nil {
					t.Fatal(err)
				}
			}
			if newer < keptSnapshots {
				slow = vanishing{slow, filepath.Join(dir, snapshots, slow.ID()), kept}
			}
			if err := slow.Close(); (err == nil) != (newer == keptSnapshots) || !errors.Is(failed, err) {
				t.Errorf("%v; the broker stops for %v", err, failed)
			}
		})
	}
}

// vanishing is a snapshot that the disk loses as soon as it is complete.
type vanishing struct {
	raft.SnapshotSink
	dir  string
	kept summedSnapshots
}

func (v vanishing) Close() error {
	inner := v.SnapshotSink.(summedSink)
	return summedSink{losing{inner.SnapshotSink, v.dir}, v.kept}.Close()
}

type losing struct {
	raft.SnapshotSink
	dir string
}

func (l losing) Close() error { return errors.Join(l.SnapshotSink.Close(), os.RemoveAll(l.dir)) }
