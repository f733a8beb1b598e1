package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/pam/wire"
)

func sudoBegun(user, as, session string) *wire.Begun {
	return &wire.Begun{Service: "sudo", User: as, RUser: user, Session: session}
}

// started is a serving agent under which alice holds db-admin on db1.
func started(t *testing.T) (*serving, broker.Stem) {
	t.Helper()
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	stem := m.feed(db("alice", "db1")(w))
	s := m.serve()
	s.settled()
	return s, stem
}

// reported waits until the journal tells of so many openings and closings of sessions, and then sees that it tells of no more
// once what waits is forgotten.
func (s *serving) reported(opened, closed int) {
	s.m.t.Helper()
	said := func(what string) int { return strings.Count(s.m.log.String(), `msg="session `+what) }
	defer func() {
		if s.m.t.Failed() {
			s.m.t.Log(s.m.log, s.sessions.all)
		}
	}()
	waitFor(s.m.t, fmt.Sprintf("%d sessions opened, %d closed", opened, closed), func() bool {
		return said("opened") >= opened && said("closed") >= closed
	})
	s.m.clock.pass(late)
	s.settled()
	s.m.clock.pass(late)
	s.settled()
	waitFor(s.m.t, "all reports written", func() bool { return len(s.reports.queue) == 0 })
	if said("opened") != opened || said("closed") != closed {
		s.m.t.Errorf("%d sessions opened and %d closed, want %d and %d\n%s", said("opened"), said("closed"), opened, closed, s.m.log)
	}
}

// nothingIsLeft waits until no session is known, on record or in a cgroup of the unit, but for the one prepared for the next.
func (s *serving) nothingIsLeft(stem broker.Stem) {
	s.m.t.Helper()
	place, _ := s.placeOf(stem)
	defer func() {
		if s.m.t.Failed() {
			s.m.t.Log(s.m.log, s.sessions.all, place.subs())
		}
	}()
	waitFor(s.m.t, "nothing left", func() bool {
		s.settled()
		records, err := os.ReadDir(filepath.Join(s.RunDir, sessionsDir))
		return err == nil && len(records) == 0 && len(s.sessions.of(stem)) == 0 && len(place.subs()) <= 1
	})
}

func (c *callerProcess) end() {
	c.t.Helper()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func TestAccountPlacesTheRunThatThenBegins(t *testing.T) {
	s, stem := started(t)
	sudo := newCaller(t, aliceUID, 0)
	got := sudo.say(s.pam, sudoAccount("alice"))
	if want := (wire.Answer{Allow: true, Seconds: got.Seconds, Session: stem.Unit() + "/s-1", RunAs: "postgres root"}); got != want || got.Seconds == 0 {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if !strings.Contains(sudo.cgroups(), "/"+got.Session+"\n") {
		t.Fatalf("said to be in %s, is in %s", got.Session, sudo.cgroups())
	}
	sudo.say(s.pam, sudoBegun("alice", "postgres", got.Session))
	waitFor(t, "it begun", func() bool { return !s.sessions.of(stem)[0].waits() })
	if of := s.sessions.of(stem)[0]; of.Account != "postgres" || of.Process.PID != sudo.cmd.Process.Pid {
		t.Errorf("%+v", of)
	}
	sudo.say(s.pam, &wire.Close{Service: "sudo", User: "postgres", RUser: "alice"})
	s.reported(1, 1)
	sudo.end()
	s.nothingIsLeft(stem)
	s.reported(1, 1)
}

// sudo -l and sudo -v ask account and open nothing; so does a run that sudoers, or another module, then refuses.
func TestWhatNeverBeginsIsReportedByNobodyAndLeavesNothing(t *testing.T) {
	s, stem := started(t)
	for range 40 {
		list := newCaller(t, aliceUID, 0)
		if got := list.say(s.pam, sudoAccount("alice")); got.Session == "" {
			t.Fatalf("%+v\n%s", got, s.m.log)
		}
		list.end()
	}
	s.reported(0, 0)
	s.nothingIsLeft(stem)
}

// The module does not wait to be heard: the run may be over when it is.
func TestARunThatIsOverBeforeItWasHeardOfIsReported(t *testing.T) {
	s, stem := started(t)
	sudo := newCaller(t, aliceUID, 0)
	session := sudo.say(s.pam, sudoAccount("alice")).Session
	sudo.end()
	place, _ := s.placeOf(stem)
	waitFor(t, "its cgroup gone", func() bool { s.settled(); return !slices.Contains(place.subs(), "s-1") })
	newCaller(t, 0, 0).say(s.pam, sudoBegun("alice", "postgres", session))
	s.reported(1, 1)
	s.nothingIsLeft(stem)
}

// root's socket hears it from nobody but root; and root, too, can have nothing opened, moved or kept by it.
func TestWhatDidNotWaitDoesNotBegin(t *testing.T) {
	s, stem := started(t)
	waiting, open := newCaller(t, aliceUID, 0), newCaller(t, aliceUID, 0)
	session := waiting.say(s.pam, sudoAccount("alice")).Session
	if got := open.say(s.pam, sudoOpen("alice", "postgres")); !got.Allow {
		t.Fatalf("%+v", got)
	}
	_, name, _ := strings.Cut(session, "/")
	other := broker.Stem(strings.Repeat("a", 26)).Unit()
	for sentence, c := range map[string]struct{ session, as string }{
		"no session":                     {"", "postgres"},
		"a unit alone":                   {stem.Unit(), "postgres"},
		"a number nobody has":            {stem.Unit() + "/s-77", "postgres"},
		"another spelling of its number": {stem.Unit() + "/s-0" + strings.TrimPrefix(name, "s-"), "postgres"},
		"another grant's":                {other + "/" + name, "postgres"},
		"with more behind":               {session + "/x", "postgres"},
		"with more before":               {"/system.slice/" + session, "postgres"},
		"one that open_session opened":   {stem.Unit() + "/s-2", "postgres"},
		"as nobody":                      {session, ""},
		"as a name with a newline":       {session, "root\nroot"},
	} {
		t.Run(sentence, func(t *testing.T) {
			outside := newCaller(t, 0, 0)
			before := outside.cgroups()
			outside.say(s.pam, sudoBegun("alice", c.as, c.session))
			if now := outside.cgroups(); now != before {
				t.Errorf("moved from %s to %s", before, now)
			}
		})
	}
	if of := s.sessions.of(stem); len(of) != 2 || !of[0].waits() || of[1].waits() {
		t.Errorf("%+v", of)
	}
	allowSocket(t, s.pam)
	newCaller(t, aliceUID, aliceUID).say(s.pam, sudoBegun("alice", "postgres", session))
	s.reported(1, 0)
	waiting.end()
	open.end()
	s.reported(1, 1)
	s.nothingIsLeft(stem)
}

// `sudo -b` opens its session in a child of the process that account was asked by, and closes it there.
func TestABackgroundRunBeginsAndClosesInAChild(t *testing.T) {
	s, stem := started(t)
	parent, child := newCaller(t, aliceUID, 0), newCaller(t, aliceUID, 0)
	session := parent.say(s.pam, sudoAccount("alice")).Session
	place, _ := s.placeOf(stem)
	for _, dir := range place.sub("s-1").dirs { // as a fork is
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, child.cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	parent.end()
	s.settled()
	child.say(s.pam, sudoBegun("alice", "postgres", session))
	waitFor(t, "it begun", func() bool { return !s.sessions.of(stem)[0].waits() })
	s.reported(1, 0)
	child.say(s.pam, &wire.Close{Service: "sudo", User: "postgres", RUser: "alice"})
	s.reported(1, 1)
	child.end()
	s.nothingIsLeft(stem)
}

// What account placed ends like everything else, whether or not it ever begins.
func TestAWaitingRunEndsWithTheFirstOfItsGrants(t *testing.T) {
	for sentence, c := range map[string]struct {
		end func(s *serving, first, other broker.Dossier) error
	}{
		"the window of the first is over": {func(s *serving, _, _ broker.Dossier) error { s.m.clock.pass(601 * time.Second); return nil }},
		"the first is revoked": {func(s *serving, first, _ broker.Dossier) error {
			return s.takeEnded(first.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()})
		}},
		"the other is revoked": {func(s *serving, _, other broker.Dossier) error {
			return s.takeEnded(other.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()})
		}},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			m.enforce()
			first := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
			other := w.Granted("alice", "root", "db1", 1200, forger.Key(t), "bob", "carol")
			stem := m.feed(first)
			m.feed(other)
			s := m.serve()
			s.settled()
			s.settled()
			sudo := newCaller(t, aliceUID, 0)
			if got := sudo.say(s.pam, sudoAccount("alice")); got.Session != stem.Unit()+"/s-1" && got.Session != stem.Unit()+"/s-2" {
				t.Fatalf("%+v\n%s", got, m.log)
			}
			if err := c.end(s, first, other); err != nil {
				t.Fatal(err)
			}
			poke(s.wake)
			waitFor(t, "the run gone", sudo.dead)
			s.reported(0, 0)
		})
	}
}

// The next agent knows of it, ends nobody for its predecessor's death, and hears what was on its way.
func TestTheNextAgentAdoptsAWaitingRun(t *testing.T) {
	for sentence, over := range map[string]bool{"it goes on": false, "it is over": true} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			m.enforce()
			stem := m.feed(db("alice", "db1")(w))
			a := m.start()
			a.settle(t.Context())
			a.settle(t.Context())
			sudo := newCaller(t, aliceUID, 0)
			place, _ := a.placeOf(stem)
			placed, err := a.sessions.open(session{Stem: stem, Grants: []broker.Stem{stem}, Process: process{PID: sudo.cmd.Process.Pid}, Service: "sudo"}, place)
			if err != nil || a.sessions.keep(placed, 1) != nil || a.Close() != nil {
				t.Fatal(err)
			}
			if over {
				sudo.end()
			}
			s := m.serve()
			s.settled()
			newCaller(t, 0, 0).say(s.pam, sudoBegun("alice", "postgres", placed.cgroup()))
			if !over {
				s.reported(1, 0)
				if sudo.dead() {
					t.Fatal("ended")
				}
				sudo.end()
			}
			s.reported(1, 1)
			s.nothingIsLeft(stem)
		})
	}
}

// Whoever the module would not let in by account's answer is judged in full, and placed once more.
func TestAnOpenByAWaitingRunIsJudgedInFull(t *testing.T) {
	s, stem := started(t)
	sudo := newCaller(t, aliceUID, 0)
	sudo.say(s.pam, sudoAccount("alice"))
	if got := sudo.say(s.pam, sudoOpen("alice", "mallory")); got.Allow {
		t.Errorf("%+v", got)
	}
	if got := sudo.say(s.pam, sudoOpen("erin", "postgres")); got.Allow {
		t.Errorf("%+v", got)
	}
	if got := sudo.say(s.pam, sudoOpen("alice", "postgres")); !got.Allow || got.Session != "" {
		t.Errorf("%+v", got)
	}
	s.reported(1, 0)
	sudo.end()
	s.reported(1, 1)
	s.nothingIsLeft(stem)
}

// An answer that cannot name all accounts names none, and then nobody is placed by it.
func TestAccountPlacesNobodyWhenItsAnswerHasNoRoom(t *testing.T) {
	w := forger.New(t, func(doc *policy.Document) {
		role := doc.Roles["db-admin"]
		for i := range 40 {
			role.Sudo = append(slices.Clone(role.Sudo), policy.SudoRule{As: statement.Account(fmt.Sprintf("account-number-%d", i)), Commands: []policy.Command{"/usr/bin/id"}})
		}
		doc.Roles["db-admin"] = role
	})
	m := newMachine(t, w)
	m.enforce()
	stem := m.feed(db("alice", "db1")(w))
	s := m.serve()
	s.settled()
	sudo := newCaller(t, aliceUID, 0)
	if got := sudo.say(s.pam, sudoAccount("alice")); !got.Allow || got.Session != "" || got.RunAs != "" || strings.Contains(sudo.cgroups(), stem.Unit()) {
		t.Errorf("%+v in %s\n%s", got, sudo.cgroups(), m.log)
	}
	if got := sudo.say(s.pam, sudoOpen("alice", "account-number-7")); !got.Allow || !strings.Contains(sudo.cgroups(), stem.Unit()) {
		t.Errorf("%+v in %s", got, sudo.cgroups())
	}
}

func TestAccountPlacesNobodyElse(t *testing.T) {
	for sentence, c := range map[string]struct {
		enforcing bool
		real      int
		user      string
	}{
		"on a host that observes":    {false, aliceUID, "alice"},
		"an exempt account":          {true, 61020, "backup"},
		"somebody without any grant": {true, erinUID, "erin"},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			if c.enforcing {
				m.enforce()
			}
			m.feed(db("alice", "db1")(w))
			s := m.serve()
			s.settled()
			sudo := newCaller(t, c.real, 0)
			if got := sudo.say(s.pam, sudoAccount(c.user)); got.Session != "" || got.RunAs != "" || strings.Contains(sudo.cgroups(), "pim-g-") {
				t.Errorf("%+v in %s", got, sudo.cgroups())
			}
		})
	}
}
