package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"
)

// TestR3ADiskThatIsNotTheOneLeftIsRefused takes parts away, cuts, swaps and alters them.
func TestR3ADiskThatIsNotTheOneLeftIsRefused(t *testing.T) {
	for name, harm := range map[string]func(*testing.T, *lone){
		"raft.db vanished while events and snapshots remain": func(t *testing.T, l *lone) { remove(t, l.file(raftFile)) },
		"events.db vanished":                           func(t *testing.T, l *lone) { remove(t, l.file(eventsFile)) },
		"the disk's own id vanished":                   func(t *testing.T, l *lone) { remove(t, l.file(markFile)) },
		"the snapshots vanished":                       func(t *testing.T, l *lone) { remove(t, l.file(snapshots)) },
		"raft.db is cut short":                         func(t *testing.T, l *lone) { cut(t, l.file(raftFile)) },
		"events.db is cut short":                       func(t *testing.T, l *lone) { cut(t, l.file(eventsFile)) },
		"raft.db is empty":                             func(t *testing.T, l *lone) { truncate(t, l.file(raftFile), 0) },
		"raft.db is another broker's":                  func(t *testing.T, l *lone) { swap(t, l, raftFile) },
		"events.db is another broker's":                func(t *testing.T, l *lone) { swap(t, l, eventsFile) },
		"a byte of a raft entry is altered (FACTS R2)": func(t *testing.T, l *lone) { alter(t, l.file(raftFile), []byte(`"FileRequest"`)) },
		"the newest snapshot is altered":               alterSnapshot,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLone(t)
			l.propose(l.refusal())
			if err := l.node.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			l.propose(l.refusal())
			l.close()
			harm(t, l)
			node, err := Open(l.config())
			if err == nil {
				node.Close()
			}
			if !errors.Is(err, ErrDisk) {
				t.Errorf("got %v, want ErrDisk", err)
			}
		})
	}
}

func TestAnEventThatWasChangedIsNoticedOnReplay(t *testing.T) {
	l := newLone(t)
	l.propose(l.refusal())
	l.close()
	alter(t, l.file(eventsFile), []byte(`"StatementRefused"`))
	node, err := Open(l.config()) // the newest event is looked at
	if err == nil {
		defer node.Close()
		node.Ready(t.Context())
		err = node.Err()
	}
	if !errors.Is(err, ErrDisk) {
		t.Errorf("got %v, want ErrDisk", err)
	}
}

func TestAnEmptyDirectoryIsNotBootstrapped(t *testing.T) {
	l := &lone{t: t, dir: t.TempDir()}
	if _, err := Open(l.config()); !errors.Is(err, ErrEmpty) {
		t.Errorf("got %v, want ErrEmpty", err)
	}
}

func TestR3ASecondOpenerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		start := time.Now()
		if _, err := Open(l.config()); !errors.Is(err, bolterrors.ErrTimeout) {
			t.Errorf("got %v, want a lock timeout", err)
		}
		if took := time.Since(start); took > 3*openTimeout {
			t.Errorf("it took %s", took)
		}
	})
}

func TestNobodyElseReadsTheDisk(t *testing.T) {
	l := newLone(t)
	for _, name := range []string{markFile, raftFile, eventsFile} {
		info, err := os.Stat(l.file(name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

// TestR2TheChainNoticesAReplacedEntry puts an intact entry of another log in the place of one.
func TestR2TheChainNoticesAReplacedEntry(t *testing.T) {
	store := chainedStore{raft.NewInmemStore()}
	for i := uint64(1); i <= 3; i++ {
		if err := store.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.check(); err != nil {
		t.Fatal(err)
	}
	other := chainedStore{raft.NewInmemStore()}
	if err := other.StoreLog(&raft.Log{Index: 2, Term: 1, Data: []byte("other")}); err != nil {
		t.Fatal(err)
	}
	var foreign raft.Log
	if err := other.LogStore.GetLog(2, &foreign); err != nil {
		t.Fatal(err)
	}
	if err := store.LogStore.StoreLog(&foreign); err != nil {
		t.Fatal(err)
	}
	if err := store.check(); !errors.Is(err, ErrDisk) {
		t.Errorf("got %v, want ErrDisk", err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	truncate(t, path, min(info.Size(), 12<<10))
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func swap(t *testing.T, l *lone, name string) {
	t.Helper()
	other := newLone(t)
	other.close()
	if err := os.Rename(other.file(name), l.file(name)); err != nil {
		t.Fatal(err)
	}
}

func alterSnapshot(t *testing.T, l *lone) {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(l.file(snapshots), "*", "state.bin"))
	if err != nil || len(states) == 0 {
		t.Fatalf("%v, %v", states, err)
	}
	alter(t, states[0], []byte(`"adopted"`))
}
