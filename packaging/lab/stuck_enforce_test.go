//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// TestAStuckEnforceEnds: an enforce that gets nowhere has a clock that is systemd's, keeps no grant waiting meanwhile, and the
// agent starts another after it, also when somebody stopped it: what did not end is not done.
func TestAStuckEnforceEnds(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	s.root(t, "db1", "systemd-run -q --unit=holder flock /run/pim-ssh/enforce.lock sleep infinity").Want(t, 0)
	labtest.WaitFor(t, "the lock held", 5*time.Second, func() bool {
		return s.root(t, "db1", "flock -n /run/pim-ssh/enforce.lock true").Code != 0
	})
	s.root(t, "db1", "rm /var/lib/pim-ssh/host/in-step && systemctl restart pim-hostd").Want(t, 0)
	runs := func() bool {
		return s.root(t, "db1", "grep -q . /sys/fs/cgroup/system.slice/pim-hostd-enforce.service/cgroup.procs").Code == 0
	}
	labtest.WaitFor(t, "enforce started by the agent", 10*time.Second, runs)
	if got := s.show(t, "pim-hostd-enforce", "TimeoutStartUSec", "TimeoutStopUSec"); !strings.Contains(got, "TimeoutStartUSec=3min\n") || !strings.Contains(got, "TimeoutStopUSec=1s\n") {
		t.Errorf("it has no end:\n%s", got)
	}
	s.opened(t, "db1", s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob")))
	// What its clock would do is done now.
	s.root(t, "db1", "systemctl stop pim-hostd-enforce && systemctl stop holder").Want(t, 0)
	labtest.WaitFor(t, "the failure in the journal", 5*time.Second, func() bool {
		return strings.Contains(s.Journal(t, "db1", "pim-hostd"), "not in step with policy, trying again")
	})
	labtest.WaitFor(t, "another one, which gets there", 60*time.Second, func() bool {
		return s.root(t, "db1", "test -e /var/lib/pim-ssh/host/in-step").Code == 0
	})
}
