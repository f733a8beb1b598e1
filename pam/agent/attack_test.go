package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pim-ssh/broker"
	"pim-ssh/packaging/lab/forger"
)

// The module asks whenever the state directory is not plainly absent; an agent that took a disk error for "observing" would
// wave everybody through.
func TestAnEnforcingHostWhoseStateCannotBeReadStillRefuses(t *testing.T) {
	for sentence, spoil := range map[string]func(state string) error{
		"a file stands on the way to it": func(state string) error {
			return errors.Join(os.Remove(filepath.Dir(state)), os.WriteFile(filepath.Dir(state), nil, 0o600))
		},
		"it is a link to nowhere": func(state string) error { return os.Symlink("nowhere", state) },
		"it is a link to itself":  func(state string) error { return os.Symlink(filepath.Base(state), state) },
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, forger.New(t, nil))
			a := m.start()
			a.Enforcing = filepath.Join(t.TempDir(), "enforcing")
			if err := spoil(a.Enforcing); err != nil {
				t.Fatal(err)
			}
			if got := a.say("sudo", "alice", &peer{}, deny(errNotOpen, "")); got.Allow {
				t.Error("allowed")
			}
		})
	}
}

// The agent is dead when the window ends, the reaper does its work, and then somebody sets the clock back into the window
// (no further than the floor forgives: the floor is as old as the agent's death) and starts the agent again.
func TestAClockSetBackBehindTheReaperReopensNothing(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	m.clock.pass(601 * time.Second)
	for _, path := range m.units.windows[stem].Remove { // as the reaper does
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.units.Close(t.Context(), stem); err != nil {
		t.Fatal(err)
	}
	m.clock.set(-500*time.Second, 0)
	a = m.start()
	a.settle(t.Context())
	m.wantStands(stem, false)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = m.start() // and it stays over when its record is gone
	a.settle(t.Context())
	m.wantStands(stem, false)
}

// A sudo run under two grants lives in the unit of the one; the agent is killed, comes back, and cannot open again what
// stands. The run goes on, stays known, and is gone at once when the other grant is.
func TestASessionEndsWithEachOfItsGrantsWhateverTheNextAgentFinds(t *testing.T) {
	revoke := func(t *testing.T, a *Agent, d broker.Dossier) {
		if err := a.takeEnded(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
			t.Fatal(err)
		}
		a.settle(t.Context())
	}
	for sentence, c := range map[string]func(t *testing.T, m *machine, other broker.Dossier){
		"PID 1 does not answer it, and then the other is revoked": func(t *testing.T, m *machine, other broker.Dossier) {
			m.units.broken = errors.New("daemon-reload")
			a := m.start()
			a.settle(t.Context())
			revoke(t, a, other)
		},
		"granting has stopped, and then the other is revoked": func(t *testing.T, m *machine, other broker.Dossier) {
			a := m.start()
			a.ledger.halt = errors.New("forked")
			a.settle(t.Context())
			revoke(t, a, other)
		},
		"a frame comes in its first round, and then the other is revoked": func(t *testing.T, m *machine, other broker.Dossier) {
			a := m.start()
			a.Beat = func() { a.Reload() }
			a.settle(t.Context())
			a.settle(t.Context())
			revoke(t, a, other)
		},
		"it was killed between the tombstone of the other and its end": func(t *testing.T, m *machine, other broker.Dossier) {
			if err := m.spool().putTombstone(other.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
				t.Fatal(err)
			}
			m.start()
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			m.enforce()
			first := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
			other := w.Granted("alice", "root", "db1", 1200, forger.Key(t), "bob", "carol")
			m.feed(first)
			m.feed(other)
			a := m.start()
			for range 3 {
				a.settle(t.Context())
			}
			run := newCaller(t, aliceUID, 0)
			place, stands := a.placeOf(first.Stem())
			if !stands {
				t.Fatal(m.log)
			}
			opened, err := a.sessions.open(session{Stem: first.Stem(), Grants: []broker.Stem{first.Stem(), other.Stem()}, Process: process{PID: run.cmd.Process.Pid},
				Service: "sudo", Account: "postgres"}, place)
			if err = errors.Join(err, a.sessions.keep(opened, 1), a.Close()); err != nil {
				t.Fatal(err)
			}
			c(t, m, other)
			waitFor(t, "the run gone", run.dead)
		})
	}
}

// The agent is killed between placing a run and writing down under which grants it goes: nobody could end it with them.
func TestARunThatNoRecordTellsOfEndsWithTheAgentThatPlacedIt(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	place, _ := a.placeOf(stem)
	told, untold := newCaller(t, aliceUID, 0), newCaller(t, aliceUID, 0)
	for _, run := range []*callerProcess{told, untold} {
		s, err := a.sessions.open(session{Stem: stem, Grants: []broker.Stem{stem}, Process: process{PID: run.cmd.Process.Pid}, Service: "sudo", Account: "postgres"}, place)
		if err == nil && run == told {
			err = a.sessions.keep(s, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	m.start().settle(t.Context())
	waitFor(t, "the run nobody knows gone", untold.dead)
	if told.dead() {
		t.Error("the other went too")
	}
}

// Between the look at a caller's grants and the move into the unit of the one, the other is revoked: a run that is placed all
// the same would belong to a grant that ended already, and nothing would end it with that.
func TestARunIsNotPlacedUnderAGrantThatEndedAtThatMoment(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	other := w.Granted("alice", "root", "db1", 1200, forger.Key(t), "bob", "carol")
	m.feed(w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob"))
	m.feed(other)
	a := m.start()
	for range 3 {
		a.settle(t.Context())
	}
	live, r := a.sudoGrants(aliceUID, "alice")
	if len(live) != 2 {
		t.Fatal(r, m.log)
	}
	if err := a.takeEnded(other.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	run := newCaller(t, aliceUID, 0)
	pidfd, err := unix.PidfdOpen(run.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{PID: run.cmd.Process.Pid, real: aliceUID, pidfd: pidfd}
	defer p.close()
	s := session{Stem: live[0].Stem, Grants: []broker.Stem{live[0].Stem, live[1].Stem}, Process: process{PID: p.PID}, Service: "sudo", Account: "postgres"}
	if got := a.place(live, s, p); got.allow {
		t.Error("placed under a grant that had ended")
	}
}

// On a full disk an end is still an end, for the agent that comes after a kill too: somebody who may write where the spool
// lies fills it, is revoked, and waits for the agent to start again with no broker in reach.
func TestAnEndIsKeptOnAFullDisk(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	small := filepath.Join(m.dir, "small")
	if err := errors.Join(os.Mkdir(small, 0o700), unix.Mount("tmpfs", small, "tmpfs", 0, "size=512k"), os.CopyFS(filepath.Join(small, "host"), os.DirFS(filepath.Join(m.dir, "host")))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	m.dir = small
	d := db("alice", "db1")(w)
	stem := m.feed(d)
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
	full, err := os.Create(filepath.Join(small, "full"))
	for err == nil {
		_, err = full.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := a.takeEnded(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
		t.Errorf("not kept: %v", err)
	}
	a.settle(t.Context())
	m.wantStands(stem, false)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = m.start()
	a.settle(t.Context())
	m.wantStands(stem, false)
}

// While the disk under the spool is read-only nothing starts, since no end could be kept: not under what stands, not under what
// is new, not by the next agent. What must end does end, and all goes on when the disk is back.
func TestAReadOnlyDiskStartsNothingAndEndsEverything(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	disk := filepath.Join(m.dir, "disk")
	if err := errors.Join(os.Mkdir(disk, 0o700), unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"), os.CopyFS(filepath.Join(disk, "host"), os.DirFS(filepath.Join(m.dir, "host")))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", disk, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	m.dir = disk
	config := m.config()
	config.RunDir = filepath.Join(t.TempDir(), "run") // a tmpfs of its own on a host
	m.units.sudoers = filepath.Join(config.RunDir, sudoersDir)
	start := func() *Agent {
		t.Helper()
		a, err := New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		a.settle(t.Context())
		return a
	}
	mayStart := func(a *Agent, stem broker.Stem) error {
		t.Helper()
		g, err := a.ledger.named(stem)
		if err != nil {
			return err
		}
		return a.ledger.snapshot(a.Clock.now()).mayStart(g.Grant, a.Clock)
	}
	d := db("alice", "db1")(w)
	revoked, lapsing, lasting := m.feed(d), m.feed(w.Granted("alice", "db-admin", "db1", 60, forger.Key(t), "bob")), m.feed(w.Granted("alice", "db-admin", "db1", 900, forger.Key(t), "bob"))
	a := start()
	for _, stem := range []broker.Stem{revoked, lapsing, lasting} {
		if err := mayStart(a, stem); err != nil || !m.units.has(stem) {
			t.Fatalf("%s: %v, unit %v", stem, err, m.units.has(stem))
		}
	}

	remount(unix.MS_RDONLY)
	if err := a.takeDossier(w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")); !errors.Is(err, unix.EROFS) {
		t.Errorf("a new dossier: %v", err)
	}
	if err := a.takeEnded(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); !errors.Is(err, unix.EROFS) {
		t.Errorf("an end: %v", err)
	}
	m.clock.pass(90 * time.Second)
	a.settle(t.Context())
	if m.units.has(revoked) || m.units.has(lapsing) {
		t.Errorf("after the end: revoked %v, lapsed %v", m.units.has(revoked), m.units.has(lapsing))
	}
	if err := mayStart(a, lasting); err == nil || !m.units.has(lasting) {
		t.Errorf("beside a disk that keeps no end: %v; what runs goes on: %v", err, m.units.has(lasting))
	}

	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = start() // it cannot know of the revocation
	for _, stem := range []broker.Stem{revoked, lapsing, lasting} {
		if err := mayStart(a, stem); err == nil || stem != lasting && m.units.has(stem) {
			t.Errorf("the next agent, %s: %v, unit %v", stem, err, m.units.has(stem))
		}
	}

	remount(0)
	if err := a.takeEnded(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
		t.Error(err)
	}
	m.clock.pass(2 * watchful)
	a.settle(t.Context())
	if err := mayStart(a, lasting); err != nil {
		t.Errorf("the disk is back: %v", err)
	}
	if err := mayStart(a, revoked); err == nil || m.units.has(revoked) {
		t.Error("revoked, and open")
	}
}
