package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// wipe throws a broker's disk away; its keys stay.
func (r *trio) wipe(name statement.BrokerName) {
	r.t.Helper()
	r.kill(name)
	for _, part := range []string{"disk", "raft.db", "events.db", "snapshots"} {
		r.must(os.RemoveAll(filepath.Join(r.all[name].dir, part)))
	}
}

// restored has every broker restored from a file, as people do it, and started.
func (r *trio) restored(file string, names ...statement.BrokerName) {
	r.t.Helper()
	for _, name := range names {
		r.wipe(name)
		if said := say(r.t, 0, "restore", file, "--dir", r.all[name].dir); !strings.Contains(said, "next: systemctl start pim-brokerd") {
			r.t.Fatalf("%s: %s", name, said)
		}
	}
	for _, name := range names {
		r.start(name)
	}
	for _, name := range names {
		r.must(r.caughtUp(name))
	}
}

// state folds what a broker's log says.
func (r *trio) state(from statement.BrokerName) *broker.State {
	r.t.Helper()
	state := broker.NewState()
	for _, event := range r.log(from) {
		broker.Evolve(state, event)
	}
	return state
}

// TestBackedUpUnderLoadAndRestored backs up while people write, kills and wipes all three, and restores.
func TestBackedUpUnderLoadAndRestored(t *testing.T) {
	r := newTrio(t)
	dave, frank := r.desk("dave"), r.desk("frank")
	secret, public := dave.ageKey()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writing load
	var writers sync.WaitGroup
	for _, person := range []statement.Person{"alice", "erin"} {
		client := r.as(person)
		writers.Go(func() { writing.run(ctx, r, person, client) })
	}
	r.within(20*time.Second, "some writes", func() bool { return len(r.log("b1")) > 20 })
	begun := time.Now()
	said := dave.does(0, "cluster", "backup", "backup", "--to", public)
	took, during := time.Since(begun), writing.after(begun)
	if during == 0 || during > took {
		t.Errorf("nothing was acknowledged while the backup was made in %s", took)
	}
	stop()
	writers.Wait()
	revoked := r.ask("erin") // granted and revoked after the backup, which holds neither
	answer, err := r.as("erin").Submit(t.Context(), revoked)
	r.must(err)
	_, err = r.as("dave").Submit(t.Context(), r.world.Sign(statement.End{Head: r.world.Head(statement.KindEnd, "dave"), Grant: string(*answer.Grant), How: statement.Revoke}, "dave"))
	r.must(err)
	r.within(10*time.Second, "the record shows it", func() bool {
		frank.does(0, "audit", "verify")
		return strings.Contains(frank.does(0, "audit", "list"), "GrantRevoked")
	})
	before := r.state("b1")
	t.Logf("%d events; the backup took %s, a write was acknowledged after %s of it\n%s", before.Index(), took, during, said)
	for _, name := range r.names {
		r.wipe(name)
	}

	restore := []string{"cluster", "restore", "backup", "--identity", secret, "--why", "fire in the machine room", "--yes", "-o", "epoch"}
	seen := frank.file("state/pim-ssh/checkpoints/b1") + "," + frank.file("state/pim-ssh/checkpoints/b2") + "," + frank.file("state/pim-ssh/checkpoints/b3")
	if said := dave.does(7, append(restore, "--seen", seen)...); !strings.Contains(said, "revocations too") || !strings.Contains(said, "--despite") {
		t.Errorf("an older head: %s", said)
	}
	t.Log(dave.does(0, append(restore, "--seen", seen, "--despite", "no newer backup is left")...))
	r.restored(dave.file("epoch"), r.names...)
	after := r.state("b1")
	if after.Epoch().Number != 1 || after.Index() >= before.Index() {
		t.Errorf("epoch %+v, %d events of %d", after.Epoch(), after.Index(), before.Index())
	}
	for _, kept := range writing.kept {
		if one, ok := after.Request(kept.answer.Request); ok && (one.State == broker.StatePending || one.Grant != nil && one.Grant.Ended == nil) {
			t.Errorf("%s is open in the new epoch", one.ID)
		}
	}
	if _, err := r.as("erin").Submit(t.Context(), revoked); broker.KindOf(err) != broker.Denied {
		t.Errorf("the revoked request, sent again: %v", err)
	}
	if _, err := r.as("erin").Submit(t.Context(), r.later("erin", after.Epoch())); err != nil {
		t.Errorf("a new one: %v", err)
	}
	r.within(10*time.Second, "every broker publishes", func() bool {
		_, _, code := frank.run("audit", "verify")
		return code == 0
	})
	if said := frank.does(0, "audit", "verify"); !strings.Contains(said, "epoch 1 begins at event") || !strings.Contains(said, "no newer backup is left") {
		t.Errorf("the auditor, who has seen more, hears %s", said)
	}
	r.rewritten(frank)
}

// rewritten checks that frank still notices a broker that leaves something out without a restore.
func (r *trio) rewritten(frank *desk) {
	r.t.Helper()
	names := []string{"b1.1", "b2.1", "b3.1"}
	for _, name := range names {
		if _, err := os.Stat(frank.file("state/pim-ssh/checkpoints/" + name)); err != nil {
			r.t.Errorf("what frank saw in the new epoch is not kept apart: %v", err)
		}
	}
}

// TestLostQuorumIsRecoveredFromTheSurvivor: two disks are gone for ever, and so is what only they knew.
func TestLostQuorumIsRecoveredFromTheSurvivor(t *testing.T) {
	r := newTrio(t)
	dave := r.desk("dave")
	secret, public := dave.ageKey()
	live := r.ask("alice")
	if _, err := r.as("alice").Submit(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	before := r.state("b2")
	r.wipe("b1")
	r.wipe("b3")
	backup := dave.file("survivor")
	if said := say(t, 1, "export", backup, "--to", public, "--config", r.all["b2"].config); !strings.Contains(said, "systemctl stop pim-brokerd") {
		t.Errorf("while it runs: %s", said)
	}
	r.kill("b2")
	t.Log(say(t, 0, "export", backup, "--to", public, "--config", r.all["b2"].config))
	dave.does(0, "cluster", "restore", "survivor", "--identity", secret, "--why", "two disks lost", "--yes", "-o", "epoch")
	r.restored(dave.file("epoch"), r.names...)
	after := r.state("b1")
	if after.Epoch().Number != 1 || after.Epoch().Index < before.Index() {
		t.Errorf("epoch %+v after %d events", after.Epoch(), before.Index())
	}
	if one, ok := after.Request(broker.StemOf(live.Hash()).Request()); !ok || one.Grant.Phase(forger.Now()) != broker.PhaseRevoked {
		t.Errorf("alice's grant is %+v", one)
	}
	if _, err := r.as("alice").Submit(t.Context(), r.later("alice", after.Epoch())); err != nil {
		t.Errorf("and life does not go on: %v", err)
	}
}

// later is a request that is signed after an epoch began.
func (r *trio) later(person statement.Person, e broker.Epoch) statement.Proof {
	r.within(5*time.Second, "the next second", func() bool { return forger.Now() > e.Begun })
	return r.ask(person)
}

// TestOneBrokerGoesOnAloneByANewPolicy: the machines of b1 and b3 are gone too, so the stewards no longer list them.
func TestOneBrokerGoesOnAloneByANewPolicy(t *testing.T) {
	r := newTrio(t)
	secret, public := "", ""
	first := r.desk("dave")
	secret, public = first.ageKey()
	r.kill("b1")
	r.kill("b3")
	r.kill("b2")
	say(t, 0, "export", first.file("survivor"), "--to", public, "--config", r.all["b2"].config)
	doc := *r.world.Chain.Current()
	doc.Brokers = map[statement.BrokerName]policy.Broker{"b2": doc.Brokers["b2"]}
	next, err := r.world.Chain.Advance(r.world.SignPolicy(r.world.Chain.Next(doc, doc.Expires), "dave"))
	r.must(err)
	r.world.Chain = next
	dave := r.desk("dave") // who joined with the steward's new chain file
	said := dave.does(0, "cluster", "restore", first.file("survivor"), "--identity", secret, "--why", "one is left", "--yes", "-o", "epoch", "-o", "json")
	if !strings.Contains(said, `"policy":2,"brokers":["b2"]`) {
		t.Errorf("it says %s", said)
	}
	if said := say(t, 1, "restore", dave.file("epoch"), "--dir", r.all["b1"].dir); !strings.Contains(said, "quarantine") && !strings.Contains(said, "not for this broker") {
		t.Errorf("b1: %s", said)
	}
	r.restored(dave.file("epoch"), "b2")
	state := r.state("b2")
	if state.Chain().Ref() != next.Ref() || state.Epoch().Number != 1 {
		t.Errorf("policy %d, epoch %d", state.Chain().Ref().Revision, state.Epoch().Number)
	}
	if _, err := r.as("alice").Submit(t.Context(), r.later("alice", state.Epoch())); err != nil {
		t.Error(err)
	}
}
