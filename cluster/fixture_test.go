package cluster

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// memory is a directory that costs no disk: what must be durable is not what these tests are about.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pim-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// lone is a cluster of one on a disk in a temporary directory.
type lone struct {
	t     *testing.T
	world *forger.World
	dir   string
	node  *Node
	clock statement.Time // 0: the real one
}

func newLone(t *testing.T) *lone {
	t.Helper()
	l := &lone{t: t, world: forger.New(t, nil), dir: t.TempDir()}
	if err := Bootstrap(l.config(), l.world.Chain.Proofs()); err != nil {
		t.Fatal(err)
	}
	l.open()
	t.Cleanup(func() { l.close() })
	return l
}

func (l *lone) config() Config {
	return Config{Name: "b1", Dir: l.dir, Wire: Alone(), Log: l.t.Output(), Now: func() statement.Time {
		if l.clock != 0 {
			return l.clock
		}
		return statement.TimeOf(time.Now())
	}}
}

func (l *lone) open() {
	l.t.Helper()
	node, err := Open(l.config())
	if err != nil {
		l.t.Fatal(err)
	}
	l.node = node
	if err := node.Ready(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lone) close() {
	l.t.Helper()
	if l.node == nil {
		return
	}
	if err := l.node.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.node = nil
}

func (l *lone) restart() {
	l.t.Helper()
	l.close()
	l.open()
}

func (l *lone) propose(p statement.Proof) (broker.Outcome, error) {
	l.t.Helper()
	command, err := broker.CommandFor(p, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.node.Propose(context.Background(), command)
}

// refusal files a statement that is authentic and refused: no host is enrolled. Each becomes one event.
func (l *lone) refusal() statement.Proof {
	return l.world.Ask("alice", "web-deploy", "web1", 60, l.world.People["alice"], nil)
}

func (l *lone) digest() (digest statement.Hash, index uint64) {
	l.t.Helper()
	err := l.node.View(l.t.Context(), func(s *broker.State) { digest, index = s.Digest(), s.Index() })
	if err != nil {
		l.t.Fatal(err)
	}
	return digest, index
}

func (l *lone) file(name string) string { return filepath.Join(l.dir, name) }

// alter changes every place where old stands in a file.
func alter(t *testing.T, path string, old []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(old)
	changed[len(old)-2] ^= 1
	if !bytes.Contains(data, old) {
		t.Fatalf("%s holds no %q", path, old)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, old, changed), 0o600); err != nil {
		t.Fatal(err)
	}
}
