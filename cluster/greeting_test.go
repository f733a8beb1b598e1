package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

const (
	disk1 = "11111111111111111111111111111111"
	disk2 = "22222222222222222222222222222222"
	disk3 = "33333333333333333333333333333333"
	disk4 = "44444444444444444444444444444444"
)

// TestABrokerGreetsForNobodyElse has the owned broker b2 come first, in b3's name: b3's own disk is the one remembered.
func TestABrokerGreetsForNobodyElse(t *testing.T) {
	d, _ := newTestDoor(t)
	for _, c := range []struct {
		sentence string
		key      statement.BrokerName // that TLS has checked
		says     greeting
		want     error
	}{
		{"b2 says that it is b3", "b2", greeting{mark: disk2, id: "b3"}, errOtherName},
		{"b2 says that it is b3 on a disk of its own", "b2", greeting{mark: disk2, id: "b3/" + disk2}, errOtherName},
		{"b3 itself", "b3", greeting{mark: disk3, id: "b3"}, nil},
		{"b2 with its one disk", "b2", greeting{mark: disk2, id: "b2"}, nil},
		{"b2 with another", "b2", greeting{mark: disk4, id: "b2"}, errOtherDisk},
		{"b2 under an id of another disk", "b2", greeting{mark: disk2, id: "b2/" + disk4}, errOtherName},
		{"b2 with a copy of b1's disk", "b2", greeting{mark: disk1, id: "b2"}, errCopied},
		{"b2 of another founding", "b2", greeting{mark: disk2, id: "b2", origin: statement.HashOf([]byte("other"))}, errForeign},
		{"b2 with what is no disk", "b2", greeting{mark: statement.Disk(strings.Repeat("\n", markLength)), id: "b2"}, errGarbled},
		{"b2 with its one disk again", "b2", greeting{mark: disk2, id: "b2"}, nil},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if c.says.origin.IsZero() {
				c.says.origin = d.begin.origin
			}
			there, here := welcomed(t, d, c.key, c.says)
			if !errors.Is(here, c.want) {
				t.Errorf("it became %v, want %v", here, c.want)
			}
			var refused refusedError
			if told := errors.As(there, &refused); told != (c.want != nil && c.want != errGarbled) {
				t.Errorf("it heard %v", there)
			}
			if c.want != nil && c.want != errGarbled && !strings.Contains(refused.Error(), c.want.Error()) {
				t.Errorf("it heard %v, want %v", refused, c.want)
			}
		})
	}
}

// TestMadeUpNamesLeaveNothing greets under a thousand names: raft.db grows by none.
func TestMadeUpNamesLeaveNothing(t *testing.T) {
	d, path := newTestDoor(t)
	for i := range 1000 {
		name := raft.ServerID(fmt.Sprintf("made-up-%d", i))
		for _, id := range []raft.ServerID{name, name + "/" + disk2} {
			if _, err := welcomed(t, d, "b2", greeting{origin: d.begin.origin, mark: disk2, id: id}); !errors.Is(err, errOtherName) {
				t.Fatalf("%s: %v", id, err)
			}
		}
	}
	if n := remembered(t, d, path); n != 0 {
		t.Errorf("%d names are remembered", n)
	}
}

// TestARefusalIsPrintable has an owned broker answer with what would disturb a terminal or forge a line of the journal.
func TestARefusalIsPrintable(t *testing.T) {
	d, _ := newTestDoor(t)
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		if _, err := hear(far); err == nil {
			refuse(far, errors.New("no\x1b[2J\n\xff\u202eSTATUS=leads"+strings.Repeat("x", 500)))
		}
	}()
	if err := d.greet("b2", near); err == nil {
		t.Fatal("a refusal was taken for a greeting")
	}
	why := d.refusals()["b2"].Why
	if !strings.HasPrefix(why, "refused: no?[2J???STATUS=leads") || len(why) > 300 {
		t.Errorf("it is shown as %q", why)
	}
}

// TestABrokerThatNeverGreetsIsLetGo connects and says nothing.
func TestABrokerThatNeverGreetsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := newTestDoor(t)
		near, far := net.Pipe()
		defer far.Close()
		start := time.Now()
		if _, err := d.welcome("b2", nil, near); err == nil || time.Since(start) > 2*greetTimeout {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// newTestDoor is b1's, with nobody met.
func newTestDoor(t *testing.T) (d *door, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "known.db")
	known, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { known.Close() })
	look := func(fn func(*broker.State)) error { fn(broker.NewState()); return nil }
	return newDoor("b1", disk1, founding{origin: statement.HashOf([]byte("founding"))}, known, look, slog.New(slog.NewTextHandler(io.Discard, nil))), path
}

// welcomed has somebody whose key is checked greet, and returns what came of it on either side.
func welcomed(t *testing.T, d *door, key statement.BrokerName, says greeting) (there, here error) {
	t.Helper()
	near, far := net.Pipe()
	answer := make(chan error, 1)
	go func() {
		err := says.say(far)
		if err == nil {
			_, err = hear(far)
		}
		answer <- err
	}()
	defer near.Close()
	defer far.Close()
	_, here = d.welcome(key, nil, near)
	if here != nil {
		near.Close()
	}
	return <-answer, here
}

// remembered closes the door's store and counts what it holds.
func remembered(t *testing.T, d *door, path string) (keys int) {
	t.Helper()
	if err := d.known.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error {
		keys = tx.Bucket([]byte("conf")).Stats().KeyN
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestABrokerSpeaksForNobodyElse has the owned broker b2 greet as itself and then stand for election, send entries and
// call an election in the name of another: raft itself would believe it, and its term would show.
func TestABrokerSpeaksForNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		owned, victim := r.follower(), r.leader()
		var other statement.BrokerName
		for _, name := range r.names {
			if name != owned && name != victim {
				other = name
			}
		}
		wire := outbound{Wire: Wire{Dial: r.dialFrom(owned)}, mute: newMute(), door: r.node(owned).door}
		evil := raft.NewNetworkTransport(wire, 0, time.Second, io.Discard)
		defer evil.Close()
		term := r.node(victim).raft.CurrentTerm()
		header := func(name statement.BrokerName) raft.RPCHeader {
			return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(name), Addr: []byte(name)}
		}
		for sentence, send := range map[string]func(raft.RPCHeader) error{
			"it stands for election": func(h raft.RPCHeader) error {
				return evil.RequestVote("", raft.ServerAddress(victim), &raft.RequestVoteRequest{RPCHeader: h, Term: term + 9, LastLogIndex: 1 << 40, LastLogTerm: term + 8, LeadershipTransfer: true}, &raft.RequestVoteResponse{})
			},
			"it leads": func(h raft.RPCHeader) error {
				return evil.AppendEntries("", raft.ServerAddress(victim), &raft.AppendEntriesRequest{RPCHeader: h, Term: term + 9, PrevLogEntry: 1, PrevLogTerm: 1}, &raft.AppendEntriesResponse{})
			},
			"its heart beats as the leader's": func(h raft.RPCHeader) error {
				return evil.AppendEntries("", raft.ServerAddress(victim), &raft.AppendEntriesRequest{RPCHeader: h, Term: term + 9}, &raft.AppendEntriesResponse{})
			},
			"it hands leadership over": func(h raft.RPCHeader) error {
				return evil.TimeoutNow("", raft.ServerAddress(victim), &raft.TimeoutNowRequest{RPCHeader: h}, &raft.TimeoutNowResponse{})
			},
			"it sends a snapshot": func(h raft.RPCHeader) error {
				return evil.InstallSnapshot("", raft.ServerAddress(victim), &raft.InstallSnapshotRequest{RPCHeader: h, SnapshotVersion: 1, Term: term + 9, Size: 4}, &raft.InstallSnapshotResponse{}, strings.NewReader("junk"))
			},
		} {
			if err := send(header(other)); err == nil {
				t.Errorf("%s in the name of another, and is answered", sentence)
			}
		}
		if now := r.node(victim).raft.CurrentTerm(); now != term {
			t.Errorf("term %d became %d", term, now)
		}
		if err := evil.RequestPreVote("", raft.ServerAddress(victim), &raft.RequestPreVoteRequest{RPCHeader: header(owned), Term: term}, &raft.RequestPreVoteResponse{}); err != nil {
			t.Errorf("in its own name it is not answered: %v", err)
		}
		r.filed(victim)
	})
}
