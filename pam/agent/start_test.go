package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/pam/wire"
)

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

// reported waits until the journal tells of so many openings and closings of sessions, and then sees that it tells of no more.
func (s *serving) reported(opened, closed int) {
	s.m.t.Helper()
	said := func(what string) int { return strings.Count(s.m.log.String(), `msg="session `+what) }
	waitFor(s.m.t, fmt.Sprintf("%d sessions opened, %d closed", opened, closed), func() bool {
		return said("opened") >= opened && said("closed") >= closed
	})
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
	sudo.begin("postgres")
	waitFor(t, "it begun", func() bool { return !s.sessions.of(stem)[0].waits() })
	if of := s.sessions.of(stem)[0]; of.Account != "postgres" || of.Process.PID != sudo.cmd.Process.Pid {
		t.Errorf("%+v", of)
	}
	s.reported(1, 0)
	sudo.hangUp() // PAM ends, and what the run left in the background may live on
	s.reported(1, 1)
	if s.settled(); len(s.sessions.of(stem)) != 1 {
		t.Error("forgotten while something of it lives")
	}
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

// The module does not wait to be heard: the run may be over, and its cgroup gone, when it is.
func TestARunThatIsOverBeforeItWasHeardOfIsReported(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	place, _ := a.placeOf(stem)
	sudo := newCaller(t, aliceUID, 0)
	placed, err := a.sessions.open(session{Stem: stem, Grants: []broker.Stem{stem}, Process: process{PID: sudo.cmd.Process.Pid}, Service: "sudo", line: true}, place)
	if err = errors.Join(err, a.sessions.keep(placed, 0)); err != nil {
		t.Fatal(err)
	}
	sudo.end()
	waitFor(t, "its cgroup gone", func() bool { a.settle(t.Context()); return !slices.Contains(place.subs(), placed.name()) })
	ours, theirs := socketPair(t)
	if err := errors.Join(wire.WriteQuestion(theirs, &wire.Begun{User: "postgres"}), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	a.attend(t.Context(), ours, placed)
	for _, want := range []statement.ReportWhat{statement.SessionOpened, statement.SessionClosed} {
		if len(a.reports.queue) == 0 {
			t.Fatalf("nobody reports %s\n%s", want, m.log)
		}
		if got := <-a.reports.queue; got.What != want || got.Account != "postgres" || got.Session != placed.name() {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	if a.settle(t.Context()); len(a.sessions.of(stem)) != 0 || len(a.reports.queue) != 0 {
		t.Errorf("known %+v, %d reports more", a.sessions.of(stem), len(a.reports.queue))
	}
}

func socketPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		conns[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conns[0], conns[1]
}

// A connection tells of the one session that was placed by it, once. Nothing else that is said there, or said elsewhere, has
// anything begun, opened, moved or kept.
func TestOnlyTheConnectionThatPlacedASessionBeginsIt(t *testing.T) {
	for sentence, c := range map[string]struct {
		say     func(s *serving, sudo *callerProcess) *callerProcess
		reports int
		said    string // in the journal
	}{
		"nothing":       {say: func(_ *serving, sudo *callerProcess) *callerProcess { return sudo }},
		"that it began": {say: func(_ *serving, sudo *callerProcess) *callerProcess { sudo.begin("postgres"); return sudo }, reports: 1},
		"that twice": {say: func(_ *serving, sudo *callerProcess) *callerProcess {
			sudo.begin("postgres")
			sudo.begin("root")
			return sudo
		}, reports: 1, said: "means nothing"},
		"as nobody":    {say: func(_ *serving, sudo *callerProcess) *callerProcess { sudo.begin(""); return sudo }, said: "cannot begin"},
		"as two lines": {say: func(_ *serving, sudo *callerProcess) *callerProcess { sudo.begin("root\nroot"); return sudo }, said: "cannot begin"},
		"another question": {say: func(_ *serving, sudo *callerProcess) *callerProcess {
			sudo.say("line", sudoOpen("alice", "postgres"))
			return sudo
		}, said: "means nothing"},
		"the same, first on a connection": {say: func(s *serving, _ *callerProcess) *callerProcess {
			root := newCaller(s.m.t, 0, 0)
			root.say(s.pam, &wire.Begun{User: "postgres"})
			return root
		}, said: "on PAM's socket"},
		"the same, on a connection that placed nobody": {say: func(s *serving, _ *callerProcess) *callerProcess {
			erin := newCaller(s.m.t, erinUID, 0)
			erin.say(s.pam, sudoAccount("erin"))
			erin.begin("postgres")
			return erin
		}},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, stem := started(t)
			sudo := newCaller(t, aliceUID, 0)
			sudo.say(s.pam, sudoAccount("alice"))
			speaker := c.say(s, sudo)
			s.reported(c.reports, 0)
			if in := strings.Contains(speaker.cgroups(), stem.Unit()); in != (speaker == sudo) {
				t.Errorf("in the unit: %v", in)
			}
			if of := s.sessions.of(stem); len(of) != 1 || of[0].waits() != (c.reports == 0) {
				t.Errorf("%+v", of)
			}
			sudo.end()
			waitFor(t, "it in the journal", func() bool { return strings.Contains(s.m.log.String(), c.said) })
			s.reported(c.reports, c.reports)
			s.nothingIsLeft(stem)
		})
	}
}

// `sudo -b` begins in a child, which has the connection from its parent and outlives it.
func TestABackgroundRunGoesOnUntilItsLastProcessHangsUp(t *testing.T) {
	s, stem := started(t)
	parent, child := newCaller(t, aliceUID, 0), newCaller(t, aliceUID, 0)
	parent.say(s.pam, sudoAccount("alice"))
	place, _ := s.placeOf(stem)
	for _, dir := range place.sub("s-1").dirs { // as a fork is
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, child.cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	line := inherit(t, parent)
	parent.end()
	s.settled()
	if err := wire.WriteQuestion(line, &wire.Begun{User: "postgres"}); err != nil {
		t.Fatal(err)
	}
	s.reported(1, 0)
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	s.reported(1, 1)
	child.end()
	s.nothingIsLeft(stem)
}

// inherit returns a duplicate of a caller's last connection.
func inherit(t *testing.T, c *callerProcess) *os.File {
	t.Helper()
	pidfd, err := unix.PidfdOpen(c.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	for number := range 64 {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.cmd.Process.Pid, number))
		if err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "line")
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	t.Fatal("the caller has no connection")
	return nil
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

// The next agent ends nobody for its predecessor's death, and tells what had begun from what had not.
func TestTheNextAgentAdoptsWhatWasPlaced(t *testing.T) {
	for sentence, begun := range map[string]bool{"it had begun": true, "it had not": false} {
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
			placed, err := a.sessions.open(session{Stem: stem, Grants: []broker.Stem{stem}, Process: process{PID: sudo.cmd.Process.Pid}, Service: "sudo", line: true}, place)
			if err = errors.Join(err, a.sessions.keep(placed, 0)); err != nil {
				t.Fatal(err)
			}
			if begun {
				a.begun(placed, &wire.Begun{User: "postgres"})
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			s := m.serve()
			s.settled()
			if of := s.sessions.of(stem); len(of) != 1 || of[0].waits() == begun || sudo.dead() {
				t.Fatalf("dead %v, known %+v\n%s", sudo.dead(), of, m.log)
			}
			sudo.end()
			s.nothingIsLeft(stem)
			if begun {
				s.reported(0, 1) // the opening was its predecessor's to tell
				return
			}
			s.reported(0, 0)
		})
	}
}

// An agent that is told to stop has every line cut, and takes none of them for an end.
func TestAnAgentThatStopsTakesNobodyForOver(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	stem := m.feed(db("alice", "db1")(w))
	var sudo *callerProcess
	t.Run("until it stops", func(t *testing.T) {
		m.t = t
		s := m.serve()
		s.settled()
		sudo = newCaller(m.units.t, aliceUID, 0)
		sudo.say(s.pam, sudoAccount("alice"))
		sudo.begin("postgres")
		s.reported(1, 0)
	})
	m.t = t
	if strings.Contains(m.log.String(), "session closed") {
		t.Error(m.log)
	}
	s := m.serve()
	s.settled()
	if of := s.sessions.of(stem); len(of) != 1 || of[0].Account != "postgres" {
		t.Errorf("%+v", of)
	}
	sudo.end()
	s.reported(1, 1)
	s.nothingIsLeft(stem)
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

// Whoever starts sudo after sudo has the agent keep so many connections and no more; what comes then asks in open_session.
func TestTheConnectionsKeptAreBounded(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.most.lines = 2
	s := m.run(a)
	s.settled()
	first, second, third := newCaller(t, aliceUID, 0), newCaller(t, aliceUID, 0), newCaller(t, aliceUID, 0)
	for _, sudo := range []*callerProcess{first, second} {
		if got := sudo.say(s.pam, sudoAccount("alice")); got.Session == "" {
			t.Fatalf("%+v", got)
		}
	}
	if got := third.say(s.pam, sudoAccount("alice")); !got.Allow || got.Session != "" || strings.Contains(third.cgroups(), stem.Unit()) {
		t.Errorf("%+v in %s", got, third.cgroups())
	}
	if got := third.say(s.pam, sudoOpen("alice", "postgres")); !got.Allow || !strings.Contains(third.cgroups(), stem.Unit()) {
		t.Errorf("%+v in %s", got, third.cgroups())
	}
	first.end()
	waitFor(t, "room again", func() bool { return s.sessions.listening() < 2 })
	if got := third.say(s.pam, sudoAccount("alice")); got.Session == "" {
		t.Errorf("%+v", got)
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
