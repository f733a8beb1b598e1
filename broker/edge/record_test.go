package edge

import (
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/packaging/lab/forger"
)

// opened is the checkpoint a client is served.
func (s *stage) opened(client *api.Client) audit.Signed {
	s.t.Helper()
	text, err := client.Record(s.t.Context())(audit.PathCheckpoint)
	s.must(err)
	signed, err := audit.Open(text, s.world.Chain.Deployment(), s.world.Chain.Current().LogKeys())
	s.must(err)
	return signed
}

// TestAnAuditorVerifiesTheRecordOverTheWireAndAHostProvesItGrew plays both on a real broker.
func TestAnAuditorVerifiesTheRecordOverTheWireAndAHostProvesItGrew(t *testing.T) {
	s := newStage(t, nil, nil)
	s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	s.must(s.record.Publish())
	older := s.opened(s.host("db1"))
	s.granted("erin", "db-admin", "db1", forger.Key(t), "carol")
	s.must(s.record.Publish())
	frank := s.as("frank")
	signed := s.opened(frank)
	found, err := refold.Verify(refold.Record{Source: frank.Record(t.Context()), Signed: signed, Others: []audit.Signed{older}, Pinned: s.world.Chain,
		Now: forger.Now()}, nil)
	if err != nil || found.Grants != 2 || found.Events != s.index() {
		t.Errorf("%+v: %v", found.Folded, err)
	}
	if err := audit.Extends(s.host("db1").Record(t.Context()), older.LogHead, signed.LogHead); err != nil {
		t.Errorf("to a host: %v", err)
	}
	if _, err := s.host("db1").Record(t.Context())("tile/entries/000.p/1"); broker.KindOf(err) != broker.Denied {
		t.Errorf("a host reads entries: %v", err)
	}
}

// TestOnlyTilesOfTheRecordAreServed asks for everything else.
func TestOnlyTilesOfTheRecordAreServed(t *testing.T) {
	s := newStage(t, nil, nil)
	s.must(s.record.Publish())
	read := s.as("frank").Record(t.Context())
	for _, path := range []string{"tile/0/000.p/200", "tile/0/001", "tile/0/000.p/0", "tile/7/000", "tile/entries/", "tile/checkpoint", "tile/0/000.p/1/x", "tile/x"} {
		if data, err := read(path); broker.KindOf(err) != broker.Missing {
			t.Errorf("%s: %d bytes, %v", path, len(data), err)
		}
	}
	for _, path := range []string{"tile/../checkpoint", "tile/0/%2e%2e/000", "tile//0/000", "tile/0/000.p/1?x=1", "tile/0/000.p/../../../checkpoint"} {
		if data, err := read(path); err == nil {
			t.Errorf("%s: %d bytes", path, len(data))
		}
	}
}

// TestAHostHearsTheCheckpointWithEachBeatAndAPersonDoesNot, nor does a host hear what is not there yet.
func TestAHostHearsTheCheckpointWithEachBeatAndAPersonDoesNot(t *testing.T) {
	s := newStage(t, nil, nil)
	beat := func(client *api.Client) api.Frame {
		stream, err := client.Watch(t.Context(), nil)
		s.must(err)
		defer stream.Close()
		for {
			frame, err := stream.Next()
			s.must(err)
			if frame.Beat != 0 {
				return frame
			}
			if frame.Checkpoint != "" {
				t.Error("a checkpoint came with something else")
			}
		}
	}
	if frame := beat(s.host("db1")); frame.Checkpoint != "" {
		t.Errorf("before anything is published: %q", frame.Checkpoint)
	}
	s.must(s.record.Publish())
	signed := s.opened(s.as("frank"))
	if frame := beat(s.host("db1")); frame.Checkpoint != string(signed.Text) {
		t.Errorf("a host hears %q", frame.Checkpoint)
	}
	if frame := beat(s.as("frank")); frame.Checkpoint != "" {
		t.Errorf("a person hears %q", frame.Checkpoint)
	}
}
