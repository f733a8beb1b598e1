package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

func TestARestartFoldsTheSameState(t *testing.T) {
	l := newLone(t)
	for range 5 {
		if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Missing {
			t.Fatalf("got %v, want a missing host", err)
		}
	}
	digest, index := l.digest()
	if index != 6 {
		t.Fatalf("index %d, want a policy and five refusals", index)
	}
	before, _, err := l.node.Events(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	l.restart()
	if again, at := l.digest(); again != digest || at != index {
		t.Errorf("after a restart index %d digest %s, before %d %s", at, again, index, digest)
	}
	after, _, err := l.node.Events(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) || !bytes.Equal(bytes.Join(after, nil), bytes.Join(before, nil)) {
		t.Errorf("the replay changed the event log: %d events, then %d", len(before), len(after))
	}
}

func TestARestartFromASnapshotFoldsTheSameState(t *testing.T) {
	l := newLone(t)
	for range 3 {
		l.propose(l.refusal())
	}
	if err := l.node.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	l.propose(l.refusal())
	digest, index := l.digest()
	l.restart()
	if again, at := l.digest(); again != digest || at != index {
		t.Errorf("after a restart index %d digest %s, before %d %s", at, again, index, digest)
	}
}

func TestARepeatedStatementGetsItsFirstAnswerAndNoRaftEntry(t *testing.T) {
	l := newLone(t)
	p := l.refusal()
	first, firstErr := l.propose(p)
	last := l.node.raft.LastIndex()
	again, againErr := l.propose(p)
	if again != first || firstErr.Error() != againErr.Error() {
		t.Errorf("first %v %v, again %v %v", first, firstErr, again, againErr)
	}
	if l.node.raft.LastIndex() != last {
		t.Error("the repeated statement became a raft entry")
	}
}

func TestAStrangerFillsNoLog(t *testing.T) {
	l := newLone(t)
	stranger := forger.New(t, nil)
	if err := l.node.View(t.Context(), func(*broker.State) {}); err != nil { // the term's own barrier is an entry too
		t.Fatal(err)
	}
	last := l.node.raft.LastIndex()
	_, err := l.propose(stranger.Ask("alice", "web-deploy", "web1", 60, stranger.People["alice"], nil))
	if broker.KindOf(err) != broker.Denied {
		t.Errorf("got %v, want denied", err)
	}
	if l.node.raft.LastIndex() != last {
		t.Error("a stranger's statement became a raft entry")
	}
}

func TestTimeIsStampedHereAndNeverGoesBack(t *testing.T) {
	l := newLone(t)
	real := statement.TimeOf(time.Now())
	l.clock = real + 30
	l.propose(l.refusal())
	l.clock = real.Add(30 - broker.MaxSkew)
	l.propose(l.refusal())
	events, _, err := l.node.Events(1, 2)
	if err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for _, data := range events {
		event, err := broker.DecodeEvent(data)
		if err != nil {
			t.Fatal(err)
		}
		if event.Head().At != real+30 {
			t.Errorf("event %d is stamped %s, want %s", event.Head().Index, event.Head().At, real+30)
		}
	}
}

func TestWhatMustStopStopsTheNodeForEver(t *testing.T) {
	for name, data := range map[string][]byte{
		"an unknown command version": []byte(`{"v":2}`),
		"an unknown rules version":   fmt.Appendf(nil, `{"v":1,"at":"2026-11-23T08:00:00Z","kind":"Tick","rules":%d}`, broker.Rules+1),
		"an unknown command kind":    fmt.Appendf(nil, `{"v":1,"at":"2026-11-23T08:00:00Z","kind":"Grant","rules":%d}`, broker.Rules),
		"bytes that are no command":  []byte(`}`),
		"another state's digest": fmt.Appendf(nil, `{"v":1,"at":"2026-11-23T08:00:00Z","kind":"Tick","rules":%d,"state":{"index":1,`+
			`"digest":"0000000000000000000000000000000000000000000000000000000000000000"}}`, broker.Rules),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLone(t)
			if err := l.node.raft.Apply(data, time.Second).Error(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-l.node.Failed():
			case <-time.After(5 * time.Second):
				t.Fatal("the node goes on")
			}
			if l.node.Err() == nil {
				t.Error("no cause")
			}
			if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("a stopped node answered %v", err)
			}
			if err := l.node.raft.Snapshot().Error(); err == nil {
				t.Error("a stopped node made a snapshot")
			}
			l.close()
			node, err := Open(l.config())
			if err != nil {
				t.Fatal(err)
			}
			defer node.Close()
			if err := node.Ready(t.Context()); err == nil {
				t.Error("after a restart it goes on")
			}
		})
	}
}

func TestEventsSayWhenTheLogHasGrown(t *testing.T) {
	l := newLone(t)
	events, grown, err := l.node.Events(1, 10)
	if err != nil || len(events) != 0 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	l.propose(l.refusal())
	select {
	case <-grown:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody said so")
	}
	if events, _, err = l.node.Events(1, 10); err != nil || len(events) != 1 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

func TestBootstrapLeavesAUsedDirectoryAlone(t *testing.T) {
	l := newLone(t)
	l.close()
	if err := Bootstrap(l.config(), l.world.Chain.Proofs()); !errors.Is(err, ErrUsed) {
		t.Errorf("got %v, want ErrUsed", err)
	}
}

// TestANodeWithoutQuorumAnswersNothing adds a voter that does not exist: reads and writes must stop, though the node
// believed for a moment that it led.
func TestANodeWithoutQuorumAnswersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		l.node.raft.AddVoter("b2", "b2", 0, time.Second)
		deadline := time.Now().Add(10 * time.Second)
		for l.node.raft.State() == raft.Leader {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			err := l.node.View(ctx, func(*broker.State) {})
			cancel()
			if time.Now().After(deadline) {
				t.Fatalf("it still leads; a read says %v", err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.node.View(ctx, func(*broker.State) { t.Error("a state was shown") }); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("a read says %v", err)
		}
		if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("a write says %v", err)
		}
	})
}
