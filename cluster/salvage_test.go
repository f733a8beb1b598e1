package cluster

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/packaging/lab/forger"
)

func (l *lone) salvage() (*Salvaged, [][]byte) {
	l.t.Helper()
	s, err := Salvage(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	var leaves [][]byte
	for leaf, err := range s.Events() {
		if err != nil {
			l.t.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	return s, leaves
}

// TestASalvagedDiskGivesWhatTheBrokerHad, before its first snapshot and after one, and stays as it was to the byte.
func TestASalvagedDiskGivesWhatTheBrokerHad(t *testing.T) {
	l := newLone(t)
	for _, when := range []string{"before a snapshot", "after a snapshot"} {
		for range 5 {
			l.propose(l.refusal())
		}
		digest, index := l.digest()
		l.close()
		before, err := os.ReadFile(l.file(eventsFile))
		if err != nil {
			t.Fatal(err)
		}
		s, leaves := l.salvage()
		if s.State.Digest() != digest || uint64(len(leaves)) != index || s.Late != 0 || s.Doubt != nil {
			t.Errorf("%s: %d events of %d, %d late, doubt: %v", when, len(leaves), index, s.Late, s.Doubt)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(l.file(eventsFile)); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: %s was changed, %v", when, eventsFile, err)
		}
		l.open()
		if err := l.node.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatOnlyRaftsLogHoldsIsSalvaged: the leader had it from a majority and said so, and is gone before this broker heard.
func TestWhatOnlyRaftsLogHoldsIsSalvaged(t *testing.T) {
	l := newLone(t)
	l.propose(l.refusal())
	_, index := l.digest()
	l.close()
	late := l.refusal()
	command, err := broker.CommandFor(late, forger.Now())
	if err != nil {
		t.Fatal(err)
	}
	command.Rules = broker.Rules // which a new deployment begins under
	data, err := broker.EncodeCommand(command)
	if err != nil {
		t.Fatal(err)
	}
	store, err := openRaftStore(l.dir, Seams{})
	if err != nil {
		t.Fatal(err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := (chainedStore{store}).StoreLog(&raft.Log{Index: last + 1, Term: 9, Type: raft.LogCommand, Data: data}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	s, leaves := l.salvage()
	if s.Late != 1 || s.State.Index() != index+1 || uint64(len(leaves)) != index+1 || s.Doubt != nil {
		t.Fatalf("%d late, %d events of %d, doubt: %v", s.Late, len(leaves), index+1, s.Doubt)
	}
	event, err := broker.DecodeEvent(leaves[index])
	if err != nil {
		t.Fatal(err)
	}
	if proof, _ := broker.Carried(event); proof.Hash() != late.Hash() {
		t.Errorf("the late event is %T", event)
	}
}

// TestADamagedRaftLogLeavesTheEvents: what was committed here is salvaged all the same, and the doubt is said.
func TestADamagedRaftLogLeavesTheEvents(t *testing.T) {
	l := newLone(t)
	asked := l.refusal()
	l.propose(asked)
	digest, _ := l.digest()
	l.close()
	for _, damage := range []func() error{
		func() error {
			alter(t, l.file(raftFile), []byte(broker.FileRequest))
			return nil
		},
		func() error { return os.Truncate(l.file(raftFile), 3*4096) },
		func() error { return os.Remove(l.file(raftFile)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		s, _ := l.salvage()
		if s.Doubt == nil || s.State.Digest() != digest {
			t.Errorf("doubt: %v, %d events", s.Doubt, s.State.Index())
		}
	}
}

func TestADiskThatCannotBeSalvagedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		if _, err := Salvage(l.dir); err == nil || !strings.Contains(err.Error(), "held by another process") {
			t.Errorf("while the broker runs: %v", err)
		}
		l.propose(l.refusal())
		l.close()
		alter(t, l.file(eventsFile), []byte("StatementRefused"))
		if _, err := Salvage(l.dir); !errors.Is(err, ErrDisk) {
			t.Errorf("altered: %v", err)
		}
		if _, err := Salvage(t.TempDir()); !errors.Is(err, ErrEmpty) {
			t.Errorf("empty: %v", err)
		}
	})
}
