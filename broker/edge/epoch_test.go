package edge

import (
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// restore is dave's word that the brokers go on from the log as it is.
func (s *stage) restore() statement.Proof {
	return s.world.Sign(statement.Restore{Head: s.world.Head(statement.KindRestore, "dave"), Epoch: 1, Size: s.index(), Root: statement.HashOf([]byte("root")),
		Why: "all disks burnt"}, "dave")
}

// TestARestoreIsNotFiled: it is what restored disks begin with, and nobody sends it in, an operator neither.
func TestARestoreIsNotFiled(t *testing.T) {
	s := newStage(t, nil, nil)
	before := s.index()
	s.refused(s.restore(), broker.Denied)
	if after := s.index(); after != before {
		t.Errorf("%d events became %d", before, after)
	}
}

// TestEveryHostHearsOfARestoreFirst, wherever its stream begins: what it knows may be from a record that is gone.
func TestEveryHostHearsOfARestoreFirst(t *testing.T) {
	s := newStage(t, nil, nil)
	s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	restore := s.restore()
	command, err := broker.CommandFor(restore, forger.Now())
	s.must(err)
	_, err = s.node.Propose(t.Context(), command)
	s.must(err)
	for from := range s.index() + 3 {
		var after *uint64
		if from > 0 {
			at := from - 1
			after = &at
		}
		stream, err := s.host("db1").Watch(t.Context(), after)
		s.must(err)
		told := false
		for {
			frame, err := stream.Next()
			s.must(err)
			if frame.Restore != nil && frame.Restore.Hash() == restore.Hash() {
				told = true
			}
			if (frame.Dossier != nil || frame.Beat != 0) && !told {
				t.Fatalf("after %v the host hears %+v first", after, frame)
			}
			if frame.Dossier != nil && frame.Dossier.Ended == nil {
				t.Errorf("after %v a grant from before is shown as live", after)
			}
			if frame.Beat != 0 {
				break
			}
		}
		stream.Close()
	}
	stream, err := s.as("dave").Watch(t.Context(), nil)
	s.must(err)
	defer stream.Close()
	for told := false; !told; {
		frame, err := stream.Next()
		s.must(err)
		if frame.Beat != 0 {
			t.Fatal("the operator's own stream does not hold the epoch")
		}
		event, err := broker.DecodeEvent(frame.Event)
		s.must(err)
		told = event.Head().Kind == "EpochBegun"
	}
}
