package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// An agent dies with a grant open, time or something else goes by, and another starts: what is over ends before anything
// is answered, and what is not goes on with its sessions.
func TestRecovery(t *testing.T) {
	for sentence, c := range map[string]struct {
		meanwhile func(t *testing.T, m *machine, d broker.Dossier)
		adopted   bool
	}{
		"nothing happened":                   {func(*testing.T, *machine, broker.Dossier) {}, true},
		"some time went by":                  {func(_ *testing.T, m *machine, _ broker.Dossier) { m.clock.pass(300 * time.Second) }, true},
		"the window went by":                 {func(_ *testing.T, m *machine, _ broker.Dossier) { m.clock.pass(601 * time.Second) }, false},
		"it went by with the clock set back": {func(_ *testing.T, m *machine, _ broker.Dossier) { m.clock.set(30*time.Second, 601*time.Second) }, false},
		"the clock was set on over the end":  {func(_ *testing.T, m *machine, _ broker.Dossier) { m.clock.set(601*time.Second, time.Second) }, false},
		"its tombstone came": {func(t *testing.T, m *machine, d broker.Dossier) {
			if err := m.spool().putTombstone(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
				t.Fatal(err)
			}
		}, false},
		"its dossier was lost": {func(t *testing.T, m *machine, d broker.Dossier) {
			if err := m.spool().dropDossier(d.Stem()); err != nil {
				t.Fatal(err)
			}
		}, false},
		"its record was torn": {func(t *testing.T, m *machine, d broker.Dossier) {
			if err := os.WriteFile(filepath.Join(m.dir, "run", openDir, string(d.Stem())+".json"), []byte(`{"grant"`), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"its record was lost": {func(t *testing.T, m *machine, d broker.Dossier) {
			if err := os.Remove(filepath.Join(m.dir, "run", openDir, string(d.Stem())+".json")); err != nil {
				t.Fatal(err)
			}
		}, true},
		"its sudoers file was lost": {func(t *testing.T, m *machine, d broker.Dossier) {
			if err := os.Remove(filepath.Join(m.dir, "run", sudoersDir, d.Stem().SudoersFile())); err != nil {
				t.Fatal(err)
			}
		}, true},
		"its sudoers file was widened": {func(t *testing.T, m *machine, d broker.Dossier) {
			path := filepath.Join(m.dir, "run", sudoersDir, d.Stem().SudoersFile())
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("mallory ALL=(ALL) NOPASSWD: ALL\n"), 0o440); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			m.enforce()
			d := db("alice", "db1")(w)
			stem := m.feed(d)
			a := m.start()
			a.settle(t.Context())
			m.wantStands(stem, true)
			process := shell(t, "sleep 600; true")
			place, _ := a.placeOf(stem)
			opened, err := a.sessions.open(session{Stem: stem, Grants: []broker.Stem{stem}, Process: processOf(t, process.Process.Pid), Service: "sudo", Account: "root"}, place)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.sessions.keep(opened, opened.Process.Start); err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}

			c.meanwhile(t, m, d)
			a = m.start()
			if unit, _, _ := m.stands(stem); unit != c.adopted {
				t.Errorf("before the first answer: unit stands %v, want %v\n%s", unit, c.adopted, m.log)
			}
			a.settle(t.Context())
			m.wantStands(stem, c.adopted)
			if got := len(a.sessions.of(stem)); (got == 1) != c.adopted {
				t.Errorf("%d sessions", got)
			}
			text, _ := os.ReadFile(filepath.Join(m.dir, "run", sudoersDir, stem.SudoersFile()))
			if c.adopted && !strings.HasPrefix(string(text), "# pim-ssh grant") {
				t.Errorf("sudoers after recovery:\n%s", text)
			}
			if !c.adopted {
				return
			}
			m.clock.pass(601 * time.Second)
			a.settle(t.Context())
			m.wantStands(stem, false)
		})
	}
}

func processOf(t *testing.T, pid int) process {
	t.Helper()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	return process{PID: pid, Start: start}
}

// A clock set back while the agent was dead does not prolong: the record of this boot holds the end.
func TestARestartNeverProlongs(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	m.clock.set(-50*time.Second, 0) // within what the floor forgives
	a = m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
	m.clock.pass(601 * time.Second)
	a.settle(t.Context())
	m.wantStands(stem, false)
}

// Another boot's record says nothing about this boot's clock.
func TestARecordOfAnotherBootIsNotOurs(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	m.bootID = "boot-2"
	m.clock.set(0, 1000*time.Hour)
	a = m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
}

func TestStraysAreRemovedBeforeTheFirstAnswer(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	run := filepath.Join(m.dir, "run")
	for _, dir := range []string{sudoersDir, openDir} {
		if err := os.MkdirAll(filepath.Join(run, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	stray := broker.Stem(strings.Repeat("a", 26))
	for _, file := range []string{sudoersDir + "/g-" + string(stray), sudoersDir + "/zz-mine", sudoersDir + "/" + tempPrefix + "12", openDir + "/" + string(stray) + ".json"} {
		if err := os.WriteFile(filepath.Join(run, file), []byte("alice ALL=(ALL) NOPASSWD: ALL\n"), 0o440); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.units.Open(t.Context(), Window{Stem: "bbbbbbbbbbbbbbbbbbbbbbbbbb", Remaining: time.Hour}); err != nil {
		t.Fatal(err)
	}
	m.start()
	for _, dir := range []string{sudoersDir, openDir} {
		if entries, err := os.ReadDir(filepath.Join(run, dir)); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
	}
	if stems, err := m.units.Stems(t.Context()); err != nil || len(stems) != 0 {
		t.Errorf("units %v, %v", stems, err)
	}
}

func TestASecondAgentExits(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	m.start()
	if second, err := New(t.Context(), m.config()); err == nil {
		t.Error("two agents", second.Close())
	}
}

func TestAReloadNeverForgetsAnEndAndNeverWalksBack(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	s := m.serve()
	d := db("alice", "db1")(w)
	stem := m.feed(d)
	s.read()
	m.wantStands(stem, true)
	if err := s.takeEnded(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "host", tombstoneDir)); err != nil { // and its disk forgets
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(m.dir, "host", tombstoneDir), 0o700); err != nil {
		t.Fatal(err)
	}
	s.read()
	m.wantStands(stem, false)
}

func TestDossiersOfGrantsLongOverAreDropped(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	for sentence, c := range map[string]struct {
		ago  statement.Seconds
		kept bool
	}{"last week": {7 * statement.Day, true}, "last year": {365 * statement.Day, false}} {
		t.Run(sentence, func(t *testing.T) {
			d := db("alice", "db1")(w)
			stem := m.feed(d)
			if err := m.spool().putTombstone(d.Request.Hash(), Tombstone{How: "revoke", At: forger.Now().Add(-c.ago)}); err != nil {
				t.Fatal(err)
			}
			if err := m.start().Close(); err != nil {
				t.Fatal(err)
			}
			found := load(t, m.spool())
			if _, there := found.dossiers[stem]; there != c.kept {
				t.Errorf("kept %v", there)
			}
			if _, dead := found.tombstones[d.Request.Hash()]; !dead {
				t.Error("its tombstone went too")
			}
		})
	}
}
