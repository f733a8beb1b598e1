//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// sleeper opens a sudo run of alice's under her grant that would last, and waits until it runs.
func (s *stage) sleeper(t *testing.T, host, marker string) {
	t.Helper()
	s.BeginLab(t, "exec", host, "--as", "alice", "--", "sudo", "-n", "-u", "postgres", "sh", "-c", "trap '' TERM HUP; sleep "+marker+"; true")
	s.runs(t, host, marker)
}

func (s *stage) runs(t *testing.T, host, marker string) {
	t.Helper()
	labtest.WaitFor(t, "sleep "+marker, 10*time.Second, func() bool { return s.alive(t, host, "postgres .* sleep "+marker+"$") != "" })
}

func (s *stage) show(t *testing.T, unit string, properties ...string) string {
	t.Helper()
	return s.root(t, "db1", "systemctl show "+unit+" -p "+strings.Join(properties, ",")).Out
}

// TestF24UnitAndReaper: what systemd itself says about a grant's unit and its reaper is what the mechanism needs, and stays
// so over daemon-reload, daemon-reexec and a restart of the agent.
func TestF24UnitAndReaper(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	d := s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob")
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	stem := s.feed(t, "db1", d)
	s.opened(t, "db1", stem)
	s.sleeper(t, "db1", "7901")
	check := func(when string) {
		t.Helper()
		unit := s.show(t, stem.Unit(), "ActiveState", "Delegate", "KillMode", "TimeoutStopUSec", "SendSIGKILL", "OOMPolicy", "TasksMax")
		for _, want := range []string{"ActiveState=active", "Delegate=yes", "KillMode=control-group", "TimeoutStopUSec=1s", "SendSIGKILL=yes", "OOMPolicy=continue", "TasksMax=infinity"} {
			if !strings.Contains(unit, want+"\n") {
				t.Errorf("%s: want %s in\n%s", when, want, unit)
			}
		}
		timer := s.show(t, stem.Principal()+"-end.timer", "ActiveState", "AccuracyUSec", "TimersCalendar", "TimersMonotonic", "NextElapseUSecRealtime")
		for _, want := range []string{"ActiveState=active", "AccuracyUSec=100ms", "OnCalendar=" + grant.Until.Std().Format("2006-01-02 15:04:05") + " UTC", "OnActiveUSec=9min"} {
			if !strings.Contains(timer, want) {
				t.Errorf("%s: want %s in\n%s", when, want, timer)
			}
		}
		reaper := s.show(t, stem.Principal()+"-end.service", "ExecStart", "ExecStartEx")
		for _, want := range []string{"kill --signal=SIGKILL --kill-whom=all " + stem.Unit(), "stop " + stem.Unit(), "/run/pim-ssh/sudoers.d/" + stem.SudoersFile()} {
			if !strings.Contains(reaper, want) {
				t.Errorf("%s: want %s in\n%s", when, want, reaper)
			}
		}
		s.runs(t, "db1", "7901")
		if line := s.alive(t, "db1", " sleep 7901$"); !strings.Contains(line, stem.Unit()+"/s-") {
			t.Errorf("%s: outside its session's cgroup: %s", when, line)
		}
	}
	check("opened")
	s.root(t, "db1", "systemctl daemon-reload").Want(t, 0)
	check("after daemon-reload")
	s.root(t, "db1", "systemctl daemon-reexec").Want(t, 0)
	check("after daemon-reexec")
	s.root(t, "db1", "systemctl restart pim-hostd").Want(t, 0)
	check("after a restart of the agent")
	s.root(t, "db1", "systemctl kill -s KILL pim-hostd").Want(t, 0)
	labtest.WaitFor(t, "the agent back", 10*time.Second, func() bool { return s.root(t, "db1", "systemctl is-active -q pim-hostd").Code == 0 })
	check("after kill -9 of the agent")
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Want(t, 0)
}

// TestStoppingTheAgentEndsNobody, and the next agent knows the sessions of the last: it can revoke them.
func TestStoppingTheAgentEndsNobodyAndTheNextOneRevokes(t *testing.T) {
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	first := s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob")
	other := s.w.Granted("alice", "root", "db1", 1200, newKey(t), "bob", "carol")
	stem := s.feed(t, "db1", first)
	s.opened(t, "db1", stem)
	s.opened(t, "db1", s.feed(t, "db1", other))
	s.sleeper(t, "db1", "7902")
	s.root(t, "db1", "systemctl stop pim-hostd.service pim-hostd.socket").Want(t, 0)
	s.runs(t, "db1", "7902")
	s.root(t, "db1", "systemctl start pim-hostd.socket pim-hostd.service").Want(t, 0)
	s.runs(t, "db1", "7902")
	// The session lives in the first grant's unit, but it belongs to the other one too.
	ended := other
	ended.Ended = &broker.Ended{How: broker.EndedByRevoke, At: forger.Now()}
	s.feed(t, "db1", ended)
	labtest.WaitFor(t, "the session of both gone", 2*time.Second, func() bool { return s.alive(t, "db1", " sleep 7902$") == "" })
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Want(t, 0)
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "id").Refused(t)
}

// TestAReaperThatWasTakenAway is armed again by the next agent; and a unit whose reaper, agent and all are gone still ends
// by its own clock.
func TestAReaperThatWasTakenAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	d := s.w.Granted("alice", "db-admin", "db1", 40, newKey(t), "bob")
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	stem := s.feed(t, "db1", d)
	s.opened(t, "db1", stem)
	s.sleeper(t, "db1", "7903")
	timer := stem.Principal() + "-end.timer"
	s.root(t, "db1", "systemctl stop "+timer+"; systemctl restart pim-hostd").Want(t, 0)
	labtest.WaitFor(t, "the reaper armed again", 5*time.Second, func() bool { return s.root(t, "db1", "systemctl is-active -q "+timer).Code == 0 })
	s.runs(t, "db1", "7903")
	s.Kill(t, "db1")
	s.root(t, "db1", "systemctl stop "+timer).Want(t, 0)
	<-time.After(time.Until(grant.Until.Std().Add(5 * time.Second)))
	if left := s.alive(t, "db1", " sleep 7903$"); left != "" {
		t.Errorf("alive 5 s after the end, by the third clock:\n%s", left)
	}
}

// TestAnAgentThatWasDownAcrossTheEnd ends what is overdue before it answers anything.
func TestAnAgentThatWasDownAcrossTheEnd(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	d := s.w.Granted("alice", "db-admin", "db1", 20, newKey(t), "bob")
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	stem := s.feed(t, "db1", d)
	s.opened(t, "db1", stem)
	s.sleeper(t, "db1", "7904")
	s.Kill(t, "db1")
	// Its reaper is gone and what stood is made to stand again by hand, as a machine restored from a snapshot would have it.
	s.root(t, "db1", "cp -a /run/pim-ssh/sudoers.d/"+stem.SudoersFile()+" /root/rule; systemctl stop "+stem.Principal()+"-end.timer").Want(t, 0)
	<-time.After(time.Until(grant.Until.Std().Add(4 * time.Second)))
	s.root(t, "db1", "systemd-run -q --unit "+stem.Unit()+" sleep infinity; cp -a /root/rule /run/pim-ssh/sudoers.d/"+stem.SudoersFile()).Want(t, 0)
	s.Start(t, "db1")
	labtest.WaitFor(t, "the agent back", 10*time.Second, func() bool { return s.root(t, "db1", "systemctl is-active -q pim-hostd").Code == 0 })
	s.root(t, "db1", "systemctl is-active -q "+stem.Unit()).Refused(t)
	if got := s.root(t, "db1", "ls /run/pim-ssh/sudoers.d /run/pim-ssh/open").Out; strings.Contains(got, string(stem)) {
		t.Errorf("left: %s", got)
	}
}

// TestADropInThatWeakensTheUnit keeps the grant shut: unit and reaper are read back before anything may start.
func TestADropInThatWeakensTheUnit(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	s.Put(t, "db1", "/etc/systemd/system/service.d/weak.conf", 0o644, []byte("[Service]\nKillMode=process\n"))
	s.root(t, "db1", "systemctl daemon-reload").Want(t, 0)
	stem := s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob"))
	labtest.WaitFor(t, "the reason in the journal", 10*time.Second, func() bool {
		return strings.Contains(s.Journal(t, "db1", "pim-hostd"), "a drop-in changes it")
	})
	s.root(t, "db1", "test -e /run/pim-ssh/sudoers.d/"+stem.SudoersFile()).Refused(t)
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Refused(t)
}

// TestOneAgentOnly: a second one exits, and the first goes on.
func TestOneAgentOnly(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	second := s.root(t, "db1", "pim-hostd run")
	if second.Code != 1 || !strings.Contains(second.Err, "another pim-hostd runs") {
		t.Errorf("exit %d: %s", second.Code, second.Err)
	}
	s.opened(t, "db1", s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob")))
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Want(t, 0)
}

// TestNothingIsLeftAfterARebootInsideAWindow.
func TestARebootInsideAWindow(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	d := s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob")
	stem := s.feed(t, "db1", d)
	s.opened(t, "db1", stem)
	s.sleeper(t, "db1", "7905")
	s.KillMachine(t, "db1")
	s.Start(t, "db1")
	labtest.WaitFor(t, "the agent back", 20*time.Second, func() bool { return s.root(t, "db1", "systemctl is-active -q pim-hostd").Code == 0 })
	if left := s.alive(t, "db1", " sleep 7905$"); left != "" {
		t.Errorf("alive after a reboot:\n%s", left)
	}
	s.opened(t, "db1", stem) // the window goes on, and so does the right to start
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Want(t, 0)
}
