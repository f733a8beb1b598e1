package cluster

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// restoring is dave's word that a record of this length goes on; the tree's root is pim-brokerd's to look at.
func restoring(w *forger.World, size uint64, bend func(*statement.Restore)) statement.Proof {
	body := statement.Restore{Head: w.Head(statement.KindRestore, "dave"), Epoch: 1, Size: size, Root: statement.HashOf([]byte("root")), Why: "all disks burnt"}
	body.Created -= 2 // what is signed in the same second counts as signed before
	if bend != nil {
		bend(&body)
	}
	return w.Sign(body, body.Person)
}

func listed(leaves [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, leaf := range leaves {
			if !yield(leaf, nil) {
				return
			}
		}
	}
}

// copied is the record that a broker holds, as a backup of this moment has it.
func (r *trio) copied(from statement.BrokerName) [][]byte {
	r.t.Helper()
	leaves, _, err := r.node(from).Events(0, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	return leaves
}

// restore gives a broker a new disk, made from a copy.
func (r *trio) restore(name statement.BrokerName, proof statement.Proof, leaves [][]byte) {
	r.t.Helper()
	r.dirs[name] = memory(r.t)
	if err := Restore(Config{Name: name, Dir: r.dirs[name], Now: forger.Now, Log: io.Discard}, proof, listed(leaves)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *trio) epoch(at statement.BrokerName) (epoch broker.Epoch, now statement.Time) {
	r.t.Helper()
	if err := r.node(at).View(r.t.Context(), func(s *broker.State) { epoch, now = s.Epoch(), s.Now() }); err != nil {
		r.t.Fatalf("%s: %v", at, err)
	}
	return epoch, now
}

// TestRestoredBrokersBeginAnEpoch kills all three, throws their disks away, and goes on from a copy; twice.
func TestRestoredBrokersBeginAnEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		for round := uint64(1); round <= 2; round++ {
			for range 20 {
				r.filed(r.leader())
			}
			backup := r.copied(r.leader())
			r.filed(r.leader()) // which the backup lacks
			for _, name := range r.names {
				r.close(name)
			}
			proof := restoring(r.world, uint64(len(backup)), func(b *statement.Restore) { b.Epoch = round })
			for _, name := range r.names {
				r.restore(name, proof, backup)
				r.open(name)
			}
			r.ready(r.names...)
			digest, index := r.digest("b1")
			if index != uint64(len(backup))+1 {
				t.Errorf("%d events, restored from %d", index, len(backup))
			}
			for _, name := range r.names {
				epoch, _ := r.epoch(name)
				if other, _ := r.digest(name); other != digest || epoch.Number != round || epoch.Index != uint64(len(backup)) {
					t.Errorf("%s: epoch %+v, another digest: %v", name, epoch, other != digest)
				}
			}
		}
		for range 3 { // and it stays so over restarts: the restore is not filed again
			for _, name := range r.names {
				r.close(name)
			}
			for _, name := range r.names {
				r.open(name)
			}
			r.ready(r.names...)
			r.filed(r.settled())
		}
		if epoch, _ := r.epoch("b2"); epoch.Number != 2 {
			t.Errorf("epoch %d", epoch.Number)
		}
	})
}

// settled is the leader, once every broker knows it.
func (r *trio) settled() statement.BrokerName {
	leader := r.leader()
	r.within("all know the leader", func() bool {
		for _, name := range r.names {
			if r.node(name).Leader() != leader {
				return false
			}
		}
		return true
	})
	return leader
}

// TestABrokerOfTheOldEpochIsRefusedWithASentence: b3 was away while the others were restored, and comes back with its disk.
func TestABrokerOfTheOldEpochIsRefusedWithASentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.filed(r.leader())
		backup := r.copied(r.leader())
		for _, name := range r.names {
			r.close(name)
		}
		proof := restoring(r.world, uint64(len(backup)), nil)
		for _, name := range r.names[:2] {
			r.restore(name, proof, backup)
			r.open(name)
		}
		r.open("b3")
		r.ready("b1", "b2")
		r.filed(r.leader())
		r.within("b3 hears why", func() bool { return r.heard("b3", "pim-brokerd quarantine, then pim-brokerd restore FILE") })
		r.within("the others say so too", func() bool {
			return r.heard("b1", "it goes by a record from before a restore") || r.heard("b2", "it goes by a record from before a restore")
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := r.node("b3").View(ctx, func(*broker.State) { t.Error("it shows its old record") }); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("it answers %v", err)
		}
		r.close("b3")
		r.restore("b3", proof, backup) // long after the others: the first command comes with raft's log
		r.open("b3")
		r.ready("b3")
		digest, _ := r.digest("b1")
		if other, _ := r.digest("b3"); other != digest {
			t.Error("restored later, it differs")
		}
	})
}

// TestNothingIsAnsweredBeforeTheEpochBegins: one restored broker of three shows and takes nothing.
func TestNothingIsAnsweredBeforeTheEpochBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.filed(r.leader())
		backup := r.copied(r.leader())
		for _, name := range r.names {
			r.close(name)
		}
		r.restore("b1", restoring(r.world, uint64(len(backup)), nil), backup)
		r.open("b1")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := r.node("b1").View(ctx, func(*broker.State) { t.Error("it shows something") }); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("it answers %v", err)
		}
		if err := r.node("b1").show(nil, func(*broker.State) { t.Error("it shows the backup") }); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("asked for what is there: %v", err)
		}
	})
}

// TestAClockThatRanAheadIsLeftBehind: the leader stamped a year ahead, all refuse everything, and dave begins again.
func TestAClockThatRanAheadIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		year := statement.Seconds(365 * 24 * 3600)
		for _, name := range r.names { // all three believe one wrong clock
			r.mu.Lock()
			r.ahead[name] = year
			r.mu.Unlock()
		}
		if err := r.propose(r.leader()); broker.KindOf(err) != broker.Expired {
			t.Fatalf("alice, whose clock is right: %v", err)
		}
		r.stampsAhead()
		backup := r.copied(r.leader())
		for _, name := range r.names {
			r.close(name)
			r.ahead[name] = 0
		}
		proof := restoring(r.world, uint64(len(backup)), nil)
		for _, name := range r.names {
			r.restore(name, proof, backup)
			r.open(name)
		}
		r.ready(r.names...)
		if epoch, now := r.epoch("b1"); now != epoch.Begun || now > forger.Now() {
			t.Errorf("the log's time is %s, dave said %s", now, epoch.Begun)
		}
		r.filed(r.settled())
	})
}

// stampsAhead has the log stamped with the leader's clock: a policy is adopted.
func (r *trio) stampsAhead() {
	r.t.Helper()
	doc := *r.world.Chain.Current()
	doc.Expires++
	proof := r.world.SignPolicy(r.world.Chain.Next(doc, doc.Expires), "dave")
	command, err := broker.CommandFor(proof, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.node(r.leader()).Propose(r.t.Context(), command); err != nil {
		r.t.Fatal(err)
	}
	if r.world.Chain, err = r.world.Chain.Advance(proof); err != nil {
		r.t.Fatal(err)
	}
	if _, now := r.epoch(r.leader()); now < forger.Now()+1000 {
		r.t.Fatal("the log's time is not ahead")
	}
}

func TestWhatCannotBeRestoredLeavesTheDirectoryEmpty(t *testing.T) {
	l := newLone(t)
	l.propose(l.refusal())
	l.propose(l.refusal())
	leaves, _, err := l.node.Events(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	size := uint64(len(leaves))
	other := forger.New(t, nil)
	broken := errors.New("the file is cut short")
	for why, try := range map[string]struct {
		proof  statement.Proof
		events iter.Seq2[[]byte, error]
		now    statement.Time
		name   statement.BrokerName
		says   string
	}{
		"an event is missing":        {restoring(l.world, size, nil), listed(leaves[:size-1]), 0, "b1", "there are 2"},
		"one in the middle":          {restoring(l.world, size-1, nil), listed(append(leaves[:1:1], leaves[2:]...)), 0, "b1", "no event 1"},
		"the file breaks off":        {restoring(l.world, size, nil), func(yield func([]byte, error) bool) { yield(nil, broken) }, 0, "b1", "cut short"},
		"nothing is in it":           {restoring(l.world, 1, nil), listed(nil), 0, "b1", "no policy"},
		"it is signed by mallory":    {restoring(l.world, size, func(r *statement.Restore) { r.Person = "mallory" }), listed(leaves), 0, "b1", "no operator"},
		"it is another deployment's": {restoring(other, size, nil), listed(leaves), 0, "b1", "another deployment"},
		"it was signed yesterday":    {restoring(l.world, size, nil), listed(leaves), forger.Now() + 86400, "b1", "good until"},
		"the clock here is behind":   {restoring(l.world, size, nil), listed(leaves), forger.Now() - 86400, "b1", "the restore was signed at"},
		"the policy lists no b9":     {restoring(l.world, size, nil), listed(leaves), 0, "b9", "lists no broker b9"},
		"it is no restore at all":    {l.refusal(), listed(leaves), 0, "b1", "request"},
	} {
		config := Config{Name: try.name, Dir: t.TempDir(), Log: io.Discard, Now: forger.Now}
		if try.now != 0 {
			config.Now = func() statement.Time { return try.now }
		}
		err := Restore(config, try.proof, try.events)
		if err == nil || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v, want %q", why, err, try.says)
		}
		if left, err := os.ReadDir(config.Dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", why, left, err)
		}
	}
	if err := Restore(l.config(), restoring(l.world, size, nil), listed(leaves)); !errors.Is(err, ErrUsed) {
		t.Errorf("over a disk: %v", err)
	}
}

// TestARestoreThatBreaksOffNeverOpens stops it before each of its last steps, as a crash would.
func TestARestoreThatBreaksOffNeverOpens(t *testing.T) {
	l := newLone(t)
	l.propose(l.refusal())
	leaves, _, err := l.node.Events(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	proof := restoring(l.world, uint64(len(leaves)), nil)
	for _, missing := range []string{markFile, raftFile, eventsFile, snapshots} {
		config := l.config()
		config.Dir = t.TempDir()
		if err := Restore(config, proof, listed(leaves)); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(config.Dir + "/" + missing); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(config); !errors.Is(err, ErrDisk) {
			t.Errorf("without %s: %v", missing, err)
		}
		if err := Restore(config, proof, listed(leaves)); !errors.Is(err, ErrUsed) {
			t.Errorf("again, over what is left without %s: %v", missing, err)
		}
	}
}

// TestASalvagedSurvivorIsRestored: two of three are gone for ever. The third's disk goes on as a cluster of its own.
func TestASalvagedSurvivorIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		for range 5 {
			r.filed(r.leader())
		}
		digest, index := r.digest("b3")
		for _, name := range r.names {
			r.close(name)
		}
		s, err := Salvage(r.dirs["b3"])
		if err != nil {
			t.Fatal(err)
		}
		if s.State.Digest() != digest || s.Doubt != nil {
			t.Fatalf("%d of %d events, doubt: %v", s.State.Index(), index, s.Doubt)
		}
		var leaves [][]byte
		for leaf, err := range s.Events() {
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leaf)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		proof := restoring(r.world, index, nil)
		for _, name := range r.names {
			r.restore(name, proof, leaves)
			r.open(name)
		}
		r.ready(r.names...)
		r.filed(r.settled())
	})
}

// TestABrokerJoinsARestoredCluster: it is told the deployment alone, and learns the epoch from who was restored.
func TestABrokerJoinsARestoredCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.filed(r.leader())
		backup := r.copied(r.leader())
		for _, name := range r.names {
			r.close(name)
		}
		proof := restoring(r.world, uint64(len(backup)), nil)
		for _, name := range r.names {
			r.restore(name, proof, backup)
			r.open(name)
		}
		r.ready(r.names...)
		r.list("b4")
		disk := r.join("b4")
		r.change(statement.Add, "b4", disk, false)
		r.seated("b1", "b2", "b3", joined("b4", disk))
		r.filed(r.leader())
		r.agree()
		r.close("b4")
		r.open("b4") // which knows the epoch by now, and no other
		r.filed(r.leader())
		r.agree()
		if epoch, _ := r.epoch("b4"); epoch.Number != 1 {
			t.Errorf("b4 is in epoch %d", epoch.Number)
		}
	})
}

// TestADiskThatJoinedBeforeARestoreNeverReturns: b4 was a member, was away, and comes back with that disk.
func TestADiskThatJoinedBeforeARestoreNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		r.list("b4")
		disk := r.join("b4")
		r.change(statement.Add, "b4", disk, false)
		r.seated("b1", "b2", "b3", joined("b4", disk))
		r.agree()
		backup := r.copied(r.leader())
		for _, name := range r.names {
			r.close(name)
		}
		old := r.dirs["b4"]
		proof := restoring(r.world, uint64(len(backup)), nil)
		for _, name := range r.names {
			r.restore(name, proof, backup)
		}
		restoredDir := r.dirs["b4"]
		r.dirs["b4"] = old
		for _, name := range r.names {
			r.open(name)
		}
		r.ready("b1", "b2", "b3")
		r.within("b4 hears why", func() bool { return r.heard("b4", "pim-brokerd quarantine") })
		r.filed(r.leader())
		r.close("b4")
		r.dirs["b4"] = restoredDir
		r.open("b4")
		r.ready("b4")
		r.seated("b1", "b2", "b3", "b4")
		r.agree()
	})
}
