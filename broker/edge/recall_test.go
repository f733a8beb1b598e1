package edge

import (
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// TestThreatAWatchReadsNoHistoryWhileTheStateIsHeld resumes as mallory, who is nobody, far back in a log whose requests the
// state has dropped: while a view is open no command is applied, so whoever reads the log inside one stops the cluster.
func TestThreatAWatchReadsNoHistoryWhileTheStateIsHeld(t *testing.T) {
	const requests = 300
	reads, inView := 0, false
	log, state := droppedRequests(t, requests)
	p := &personReader{person: "mallory", log: func(index uint64, limit int) ([][]byte, <-chan struct{}, error) {
		if inView {
			t.Fatal("the log is read while the state is held")
		}
		reads++
		return log[min(index, uint64(len(log))):min(index+uint64(limit), uint64(len(log)))], nil, nil
	}}
	inView = true
	_, err := p.frames(state, decoded(t, log[requests:]))
	inView = false
	if err == nil {
		t.Fatal("nothing had to be recalled")
	}
	if err := p.recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	inView = true
	frames, err := p.frames(state, decoded(t, log[requests:]))
	if err != nil || len(frames) != 0 {
		t.Errorf("%d frames, %v", len(frames), err)
	}
	if reads > requests/batch+2 {
		t.Errorf("the log was read %d times, a batch each", reads)
	}
	if len(p.mine) != 0 {
		t.Errorf("%d of other people's requests are remembered", len(p.mine))
	}
	alice := &personReader{person: "alice", log: p.log}
	inView = false
	if _, err := alice.frames(state, decoded(t, log[requests:])); err == nil {
		t.Fatal("nothing had to be recalled for alice")
	}
	if err := alice.recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	frames, err = alice.frames(state, decoded(t, log[requests:]))
	if err != nil || len(frames) != requests {
		t.Errorf("alice is told %d of her %d expiries: %v", len(frames), requests, err)
	}
}

// droppedRequests is a log in which alice's requests are filed and then all expire, and a state that holds none of them.
func droppedRequests(t *testing.T, n int) ([][]byte, *broker.State) {
	t.Helper()
	world := forger.New(t, nil)
	ask := world.Ask("alice", "db-admin", "db1", 60, forger.Key(t), nil)
	var log [][]byte
	add := func(event broker.Event) {
		leaf, err := broker.EncodeEvent(event)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, leaf)
	}
	ids := make([]broker.RequestID, n)
	for i := range ids {
		ids[i] = broker.StemOf(statement.HashOf([]byte{byte(i), byte(i >> 8)})).Request()
		add(&broker.RequestFiled{EventHead: eventHead(len(log), "RequestFiled"), Request: ids[i], Person: "alice", Role: "db-admin", Proof: ask})
	}
	for _, id := range ids {
		add(&broker.RequestExpired{EventHead: eventHead(len(log), "RequestExpired"), Request: id})
	}
	return log, broker.NewState()
}

func eventHead(index int, kind broker.EventKind) broker.EventHead {
	return broker.EventHead{V: broker.EventVersion, Index: uint64(index), At: forger.Now(), Kind: kind}
}

func decoded(t *testing.T, leaves [][]byte) []broker.Event {
	t.Helper()
	events := make([]broker.Event, len(leaves))
	for i, leaf := range leaves {
		var err error
		if events[i], err = broker.DecodeEvent(leaf); err != nil {
			t.Fatal(err)
		}
	}
	return events
}
