package edge

import (
	"fmt"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

func TestOneKeyFilesOnlySoMuch(t *testing.T) {
	s := newStage(t, nil, nil)
	mallory, alice := signtest.Public(s.world.People["mallory"]), signtest.Public(s.world.People["alice"])
	var p pace
	now := forger.Now()
	for i := range paceBurst {
		if err := p.take(mallory, now); err != nil {
			t.Fatalf("statement %d: %v", i, err)
		}
	}
	if err := p.take(mallory, now); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("one more: %v", err)
	}
	if err := p.take(alice, now); err != nil {
		t.Errorf("another key: %v", err)
	}
	for i := range paceRefill {
		if err := p.take(mallory, now+1); err != nil {
			t.Errorf("a second later, statement %d: %v", i, err)
		}
	}
	if p.take(mallory, now+1) == nil || p.take(mallory, now-5) == nil {
		t.Error("more than the second's share")
	}
	for i := range 3 * paceKeys {
		p.take(statement.Key(fmt.Sprint(i)), now)
	}
	if len(p.left) > paceKeys {
		t.Errorf("%d keys are remembered", len(p.left))
	}

	ask := s.world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil)
	s.submit(ask)
	left := s.server.pace.left[alice].left
	for range 20 {
		s.submit(ask)
	}
	if got := s.server.pace.left[alice].left; got < left {
		t.Errorf("repetitions took %d of alice's share", left-got)
	}

	s.server.pace.left = map[statement.Key]share{mallory: {0, forger.Now() + 60}}
	before := s.index()
	s.refused(s.world.Ask("mallory", "root", "db1", 60, forger.Key(t), nil), broker.Unavailable)
	if s.index() != before {
		t.Error("it was filed")
	}
}

// TestThreatStrangersKeysResetNobodysShare has mallory, whose share is used up, sign with keys made for the purpose until
// brokers can remember no more keys.
func TestThreatStrangersKeysResetNobodysShare(t *testing.T) {
	s := newStage(t, nil, nil)
	mallory := signtest.Public(s.world.People["mallory"])
	s.server.pace.left = map[statement.Key]share{mallory: {0, forger.Now() + 60}}
	for i := range paceKeys {
		s.server.pace.left[statement.Key(fmt.Sprint(i))] = share{1, forger.Now()}
	}
	forged, err := statement.Sign(statement.End{Head: s.world.Head(statement.KindEnd, "mallory"), Grant: "g-aaaaaaaaaaaaaaaaaaaaaaaaaa", How: statement.Revoke}, forger.Key(t))
	s.must(err)
	s.refused(forged, broker.Denied)
	s.refused(s.world.Ask("mallory", "root", "db1", 60, forger.Key(t), nil), broker.Unavailable)
}
