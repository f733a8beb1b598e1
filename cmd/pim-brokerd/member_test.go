package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// newcomer has init done on one more broker, and the stewards list it.
func (r *trio) newcomer(name statement.BrokerName) {
	r.t.Helper()
	dir := r.t.TempDir()
	b := &one{dir: filepath.Join(dir, string(name)), address: freeAddress(r.t), build: os.Args[0], said: &speech{}}
	keys, err := makeKeys(b.dir, name)
	r.must(err)
	keys.Address = b.address
	b.config = write(r.t, dir, string(name)+".yaml", fmt.Sprintf("dir: %s\nlisten: %s\n", b.dir, b.address))
	r.all[name], r.names = b, append(r.names, name)
	current := r.world.Chain.Current()
	doc := r.world.Chain.Next(*current, current.Expires)
	doc.Brokers = maps.Clone(doc.Brokers)
	doc.Brokers[name] = keys
	proof := r.world.SignPolicy(doc, "dave")
	r.taken(proof)
	r.world.Chain, err = r.world.Chain.Advance(proof)
	r.must(err)
}

// taken has dave file something until a broker takes it.
func (r *trio) taken(proof statement.Proof) {
	r.t.Helper()
	client := r.as("dave")
	var err error
	r.within(30*time.Second, "a decision", func() bool {
		_, err = client.Submit(r.t.Context(), proof)
		return broker.KindOf(err) != broker.Unavailable
	})
	r.must(err)
}

var addLine = regexp.MustCompile(`(?m)^and an operator: pim-ssh cluster add (\S+) --disk ([0-9a-f]{32})$`)

// join types pim-brokerd join, and returns the disk in the line that it prints for the operator.
func (r *trio) join(name statement.BrokerName) statement.Disk {
	r.t.Helper()
	said := say(r.t, 0, "join", r.chainFile(r.t.TempDir(), r.world.Chain), "--dir", r.all[name].dir)
	line := addLine.FindStringSubmatch(said)
	if line == nil || line[1] != string(name) {
		r.t.Fatalf("join says\n%s", said)
	}
	return statement.Disk(line[2])
}

// change is dave's word on a broker.
func (r *trio) change(what statement.Change, name statement.BrokerName, disk statement.Disk, watching bool) {
	r.t.Helper()
	r.taken(r.world.Sign(statement.Cluster{Head: r.world.Head(statement.KindCluster, "dave"), Action: what, Broker: name, Disk: disk, Watching: watching}, "dave"))
}

// placed waits until the cluster shows a broker in a place.
func (r *trio) placed(name statement.BrokerName, place api.Place) {
	r.t.Helper()
	client := r.as("frank")
	r.within(40*time.Second, fmt.Sprintf("%s is %s", name, place), func() bool {
		shown, err := client.Cluster(r.t.Context())
		for _, b := range shown.Brokers {
			if err == nil && b.Name == name {
				return b.Place == place
			}
		}
		return false
	})
}

// told waits until a broker's journal says something.
func (r *trio) told(name statement.BrokerName, what string) {
	r.t.Helper()
	r.within(30*time.Second, fmt.Sprintf("%s is told %q", name, what), func() bool { return strings.Contains(r.all[name].said.String(), what) })
}

// writers are alice and erin, who file until stop.
func (r *trio) writers() (writing *load, stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	writing = &load{}
	var all sync.WaitGroup
	for _, person := range []statement.Person{"alice", "erin"} {
		client := r.as(person)
		all.Go(func() { writing.run(ctx, r, person, client) })
	}
	return writing, func() { cancel(); all.Wait() }
}

// TestAFourthBrokerIsAddedUnderLoad watches first, serves reads and passes writes on, then votes; two of four are killed, and
// nothing that was acknowledged is lost.
func TestAFourthBrokerIsAddedUnderLoad(t *testing.T) {
	r := newTrio(t)
	writing, stop := r.writers()
	defer stop()
	r.newcomer("b4")
	disk := r.join("b4")
	if again := r.join("b4"); again != disk {
		t.Errorf("join, typed again, says %s, before %s", again, disk)
	}
	r.start("b4")
	r.told("b4", "an operator types pim-ssh cluster add b4 --disk "+string(disk))
	begun := time.Now()
	r.change(statement.Add, "b4", disk, true)
	r.placed("b4", api.PlaceWatching)
	r.must(r.caughtUp("b4"))
	t.Logf("b4 answers %s after it was added", time.Since(begun))
	answer, err := r.at("b4", "alice").Submit(t.Context(), r.ask("alice"))
	r.must(err)
	if _, err := r.at("b4", "alice").Grant(t.Context(), string(*answer.Grant)); err != nil {
		t.Errorf("filed at b4 and read there: %v", err)
	}
	begun = time.Now()
	r.change(statement.Add, "b4", disk, false)
	r.placed("b4", api.PlaceVoter)
	t.Logf("b4 votes %s after that was said", time.Since(begun))
	leader, follower := r.leader(), r.follower()
	r.kill(leader)
	r.kill(follower)
	if _, err := r.at("b4", "alice").Submit(t.Context(), r.ask("alice")); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("two of four: %v", err)
	}
	back := time.Now()
	r.start(follower)
	r.within(15*time.Second, "an acknowledged write", func() bool { return writing.after(back) != 0 })
	t.Logf("three of four take writes again after %s", writing.after(back))
	r.start(leader)
	r.must(r.caughtUp(leader))
	stop()
	r.checkKept(writing.kept)
	t.Logf("%d writes, none lost", len(writing.kept))
}

// TestARemovedBrokerComesBackWithANewDiskOnly removes a follower under load; its disk returns and is refused; quarantine, join
// and add bring it back.
func TestARemovedBrokerComesBackWithANewDiskOnly(t *testing.T) {
	r := newTrio(t)
	writing, stop := r.writers()
	defer stop()
	gone := r.follower()
	dir := r.all[gone].dir
	r.change(statement.Remove, gone, "", false)
	r.placed(gone, api.PlaceRemoved)
	if said := say(t, 1, "quarantine", "--dir", dir); !strings.Contains(said, "first: systemctl stop pim-brokerd") {
		t.Errorf("quarantine of a running broker says %s", said)
	}
	r.stop(gone)
	r.all[gone].said.forget()
	r.start(gone)
	r.told(gone, string(gone)+" was removed by dave at ")
	r.told(gone, "pim-brokerd quarantine, then pim-brokerd join CHAINFILE")
	r.stop(gone)
	if said := say(t, 1, "join", r.file, "--dir", dir); !strings.Contains(said, "type: pim-brokerd quarantine") {
		t.Errorf("join on a disk that was removed says %s", said)
	}
	mark, err := os.ReadFile(filepath.Join(dir, "disk"))
	r.must(err)
	if said := say(t, 0, "quarantine", "--dir", dir); !strings.Contains(said, "next: pim-brokerd join CHAINFILE") {
		t.Errorf("quarantine says %s", said)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "quarantine", "*", "disk"))
	r.must(err)
	if len(kept) != 1 {
		t.Fatalf("quarantine holds %v", kept)
	}
	if moved, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(moved, mark) {
		t.Errorf("quarantine holds disk %s, %v", moved, err)
	}
	disk := r.join(gone)
	r.start(gone)
	r.change(statement.Add, gone, disk, false)
	r.placed(gone, api.PlaceVoter)
	r.must(r.caughtUp(gone))
	stop()
	r.checkKept(writing.kept)
	t.Logf("%d writes, none lost", len(writing.kept))
}

// TestAWipedBrokerIsHelpedBack loses a disk under load. Bootstrapped again it is refused; joined, it is told what an operator
// types; and a leader that is removed hands over first.
func TestAWipedBrokerIsHelpedBack(t *testing.T) {
	r := newTrio(t)
	writing, stop := r.writers()
	defer stop()
	wiped := r.follower()
	dir := r.all[wiped].dir
	r.kill(wiped)
	for _, name := range []string{"disk", "raft.db", "events.db", "snapshots"} {
		r.must(os.RemoveAll(filepath.Join(dir, name)))
	}
	say(t, 0, "bootstrap", r.file, "--dir", dir)
	r.start(wiped)
	r.told(wiped, "it came back with another disk")
	r.stop(wiped)
	say(t, 0, "quarantine", "--dir", dir)
	disk := r.join(wiped)
	r.start(wiped)
	r.told(wiped, fmt.Sprintf("an operator types pim-ssh cluster remove %s, then pim-ssh cluster add %s --disk %s", wiped, wiped, disk))
	r.change(statement.Remove, wiped, "", false)
	r.change(statement.Add, wiped, disk, false)
	r.placed(wiped, api.PlaceVoter)
	leader := r.leader()
	r.change(statement.Remove, leader, "", false)
	removed := time.Now()
	r.placed(leader, api.PlaceRemoved)
	r.within(15*time.Second, "an acknowledged write", func() bool { return writing.after(removed) != 0 })
	if next := r.leader(); next == leader {
		t.Errorf("%s still leads", leader)
	}
	stop()
	r.kill(leader)
	r.names = []statement.BrokerName{wiped, r.leader()}
	r.checkKept(writing.kept)
	t.Logf("%d writes, none lost", len(writing.kept))
}

// TestABrokerThatWasAwayLearnsWhoCame has a broker away while another is listed, added, and comes to lead: it knows neither
// its key nor its place.
func TestABrokerThatWasAwayLearnsWhoCame(t *testing.T) {
	r := newTrio(t)
	away := r.follower()
	r.kill(away)
	r.newcomer("b4")
	disk := r.join("b4")
	r.start("b4")
	r.change(statement.Add, "b4", disk, false)
	r.placed("b4", api.PlaceVoter)
	var others []statement.BrokerName
	for _, name := range []statement.BrokerName{"b1", "b2", "b3"} {
		if name != away {
			others = append(others, name)
		}
	}
	r.change(statement.Remove, others[0], "", false)
	r.placed(others[0], api.PlaceRemoved)
	r.kill(others[0])
	if r.leader() == others[1] { // only b4 can lead after it
		r.stop(others[1])
		r.start(others[1])
	}
	r.within(10*time.Second, "b4 leads", func() bool { return r.leader() == "b4" })
	back := time.Now()
	r.start(away)
	r.must(r.caughtUp(away))
	t.Logf("%s answers %s after it is back, and %s leads", away, time.Since(back), r.leader())
}

// TestEveryBrokerMayGetANewKeyAtOnce has the stewards list other identities for all three, which stop and start with those:
// none of the keys that the cluster was founded with is left.
func TestEveryBrokerMayGetANewKeyAtOnce(t *testing.T) {
	r := newTrio(t)
	current := r.world.Chain.Current()
	doc := r.world.Chain.Next(*current, current.Expires)
	doc.Brokers = maps.Clone(doc.Brokers)
	for _, name := range r.names {
		key, err := makeKey(filepath.Join(r.all[name].dir, "identity.new"), "new")
		r.must(err)
		listed := doc.Brokers[name]
		listed.Identity = key
		doc.Brokers[name] = listed
	}
	proof := r.world.SignPolicy(doc, "dave")
	for _, name := range r.names {
		r.must(r.caughtUp(name))
	}
	if _, err := r.as("dave").Submit(t.Context(), proof); err != nil && broker.KindOf(err) != broker.Unavailable {
		t.Fatal(err)
	}
	var err error
	r.world.Chain, err = r.world.Chain.Advance(proof)
	r.must(err)
	calls := r.ownTLS("b1")
	for _, name := range r.names {
		r.within(10*time.Second, string(name)+" knows the old keys no more", func() bool {
			_, err := calls.Events(t.Context(), current.Brokers[name], 0)
			return broker.KindOf(err) == broker.Denied
		})
	}
	for _, name := range r.names {
		r.kill(name)
		r.must(os.Rename(filepath.Join(r.all[name].dir, "identity.new"), filepath.Join(r.all[name].dir, "identity")))
	}
	for _, name := range r.names {
		r.start(name)
	}
	for _, name := range r.names {
		r.must(r.caughtUp(name))
	}
	_, err = r.as("alice").Submit(t.Context(), r.ask("alice"))
	r.must(err)
}

// TestAForeignBrokerIsLetInByNobody joins with another deployment's chain, that lists the very same keys for every broker.
func TestAForeignBrokerIsLetInByNobody(t *testing.T) {
	r := newTrio(t)
	r.newcomer("b4")
	ours := r.world.Chain
	theirs := forger.New(t, func(doc *policy.Document) { doc.Brokers = r.world.Chain.Current().Brokers })
	r.world.Chain = theirs.Chain
	disk := r.join("b4")
	r.world.Chain = ours
	r.start("b4")
	r.told("b4", "it was bootstrapped from another chain file")
	r.change(statement.Add, "b4", disk, false)
	r.placed("b4", api.PlaceCatching)
	r.told("b4", "it was bootstrapped from another chain file")
	client := r.as("frank")
	r.within(10*time.Second, "the cluster's view", func() bool {
		shown, err := client.Cluster(t.Context())
		for _, b := range shown.Brokers {
			if err == nil && b.Name == "b4" {
				return b.Place == api.PlaceCatching && b.Behind == shown.Events
			}
		}
		return false
	})
	_, err := r.as("alice").Submit(t.Context(), r.ask("alice"))
	r.must(err)
}

// TestWordsOfJoining holds join and quarantine to what they say.
func TestWordsOfJoining(t *testing.T) {
	r := newTrioOf(t, os.Args[0])
	r.signal("b1", syscall.SIGTERM)
	r.must(r.all["b1"].cmd.Wait())
	fresh := filepath.Join(t.TempDir(), "b9")
	say(t, 0, "init", "--name", "b9", "--address", "b9:7443", "--dir", fresh)
	other := filepath.Join(t.TempDir(), "b1")
	say(t, 0, "init", "--name", "b1", "--address", "b1:7443", "--dir", other)
	for name, try := range map[string]struct {
		exit  int
		words []string
		says  string
	}{
		"join without a file":            {2, []string{"join"}, "usage:"},
		"join from no file":              {1, []string{"join", filepath.Join(fresh, "chain"), "--dir", fresh}, "no such file"},
		"join of a broker not listed":    {1, []string{"join", r.file, "--dir", fresh}, "lists no broker b9; add what pim-brokerd init printed"},
		"join with other keys":           {1, []string{"join", r.file, "--dir", other}, "the policy lists another identity key"},
		"join where bootstrap was typed": {1, []string{"join", r.file, "--dir", r.all["b1"].dir}, "type: pim-brokerd quarantine"},
		"quarantine of nothing":          {1, []string{"quarantine", "--dir", fresh}, "holds no disk"},
		"quarantine with a word":         {2, []string{"quarantine", "now"}, "usage:"},
	} {
		t.Run(name, func(t *testing.T) {
			if said := say(t, try.exit, try.words...); !strings.Contains(said, try.says) {
				t.Errorf("it says\n%s\nwant %q", said, try.says)
			}
		})
	}
}
