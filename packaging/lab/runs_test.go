//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// TestTwoThousandSudosNeverHang: a Go module in the same place hung in 28 of 5 691 (FACTS G2).
func TestTwoThousandSudosNeverHang(t *testing.T) {
	t.Parallel()
	hosts := []string{"db1", "web1"}
	s := newStage(t, forger.New(t, nil), hosts)
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s.opened(t, host, s.feed(t, host, s.w.Granted("alice", "db-admin", hostName(host), 3600, newKey(t), "bob")))
			const runs = "n=0; while [ $n -lt 1000 ]; do timeout 5 sudo -n -u postgres true || { echo run $n: exit $?; exit 1; }; n=$((n + 1)); done; echo $n"
			got := s.ExecAs(t, host, "alice", "sh", "-c", runs).Want(t, 0)
			if got.Out != "1000\n" {
				t.Errorf("%q", got.Out)
			}
			t.Logf("1000 runs in %v", got.Took.Round(time.Millisecond))
		})
	}
}

// TestWhatSudoPlacesAndWhatItReports: every sudo under a grant is placed before sudoers is asked what it may run, a listing and
// a refused command like the rest. Only what began is reported, also from the background, and nothing of the others stays.
func TestWhatSudoPlacesAndWhatItReports(t *testing.T) {
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	stem := s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob"))
	s.opened(t, "db1", stem)
	const flood = "for i in $(seq 40); do sudo -n -l >/dev/null; sudo -n -v; sudo -n /usr/bin/id 2>/dev/null; done; true"
	if got := s.ExecAs(t, "db1", "alice", "sh", "-c", flood).Want(t, 0); strings.Contains(got.Out, "uid=") {
		t.Fatalf("a command without a rule ran: %s", got.Out)
	}
	reports := func(what string) int {
		return strings.Count(s.root(t, "db1", "journalctl -o cat -u pim-hostd").Out, "session "+what)
	}
	left := func() string {
		return s.root(t, "db1", "ls /run/pim-ssh/sessions; ls -d /sys/fs/cgroup/system.slice/"+stem.Unit()+"/s-* | tail -n +2").Out
	}
	labtest.WaitFor(t, "nothing left of what began nothing", 5*time.Second, func() bool { return left() == "" })
	if reports("opened")+reports("closed") != 0 {
		t.Errorf("%d openings and %d closings reported of what never began", reports("opened"), reports("closed"))
	}
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-b", "-u", "postgres", "sleep", "3").Want(t, 0)
	labtest.WaitFor(t, "the background run reported", 5*time.Second, func() bool { return reports("opened") == 1 })
	if in := s.alive(t, "db1", "sleep 3$"); reports("closed") != 0 || !strings.Contains(in, stem.Unit()) {
		t.Errorf("closed %d times, lives as %s", reports("closed"), in)
	}
	labtest.WaitFor(t, "its end reported", 10*time.Second, func() bool { return reports("closed") == 1 })
	labtest.WaitFor(t, "nothing left of it", 5*time.Second, func() bool { return left() == "" })
}
