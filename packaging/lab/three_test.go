//go:build lab

package lab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pim-ssh/packaging/lab/labtest"
)

var brokers = []string{"b1", "b2", "b3"}

// TestThreeBrokers is what a deployment of three must bear: each sentence is told on the same lab.
func TestThreeBrokers(t *testing.T) {
	t.Parallel()
	s := settled{labtest.Up(t, "--brokers", "3")}
	for _, chapter := range []struct {
		sentence string
		tell     func(settled, *testing.T)
	}{
		{"a broker killed -9 in the middle of a request, 20 times: the person's one command ends in exactly one grant", settled.killedInTheMiddle},
		{"a partitioned leader answers nothing authoritative and lets no host believe it; whole again, all is as before", settled.partitionedLeader},
		{"the majority goes on without a leader that was cut off, and it takes no part until it has caught up", settled.cutLeader},
		{"a revocation reaches the hosts through whichever brokers are left", settled.revokedByTheRest},
		{"with the power of a broker's machine gone, a command takes a second longer at most, and what that machine held comes back", settled.powerGone},
		{"brokers stopped in order, one after the other, stop nobody's command", settled.rolled},
		{"every broker's log is the same", settled.sameLogs},
	} {
		t.Run(chapter.sentence, func(t *testing.T) { chapter.tell(s, t) })
	}
}

// leader is the broker that says it leads.
func (s settled) leader(t testing.TB) string {
	t.Helper()
	var leader string
	labtest.WaitFor(t, "a leader", 10*time.Second, func() bool {
		for _, b := range brokers { // a machine that is off says nothing
			if s.leads(t, b) {
				leader = b
				return true
			}
		}
		return false
	})
	return leader
}

// leads reports whether a broker says that it leads; a frozen one says what it said before.
func (s settled) leads(t testing.TB, broker string) bool {
	t.Helper()
	return s.Exec(t, broker, "systemctl", "show", "-p", "StatusText", "--value", "pim-brokerd").Out == "leads\n"
}

func theOthers(but string) []string {
	return slices.DeleteFunc(slices.Clone(brokers), func(b string) bool { return b == but })
}

// kill9 is kill -9 from outside, at this moment; systemd starts a broker again after a second.
func kill9(t testing.TB, pids []int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

// back waits until these brokers, or all, run and one leads, and returns that one. systemd forgets that it has seen them die.
func (s settled) back(t testing.TB, which ...string) (leader string) {
	t.Helper()
	if len(which) == 0 {
		which = brokers
	}
	for _, b := range which {
		labtest.WaitFor(t, b+" runs", 20*time.Second, func() bool {
			return s.Exec(t, b, "sh", "-c", "systemctl is-active -q pim-brokerd && systemctl reset-failed pim-brokerd").Code == 0
		})
	}
	return s.leader(t)
}

// killedInTheMiddle asks in turns for a role that needs nobody and one that bob approves meanwhile, and kills brokers in
// turns, leaders as often as others, at moments drawn from a seed, until it has hit 20 commands that were under way.
func (s settled) killedInTheMiddle(t *testing.T) {
	moments := rand.New(rand.NewPCG(3, 20))
	var took []time.Duration
	inside := 0 // commands that the kill found under way
	asked, leader := 0, s.leader(t)
	for ; inside < 20 && asked < 60; asked++ {
		i := asked
		victim := leader
		if i%4 >= 2 {
			victim = theOthers(victim)[i%2]
		}
		role, why := "web-deploy@web1", fmt.Sprintf("kill %d.", i)
		if i%2 == 1 {
			role = "db-admin@db1"
		}
		pids := s.running(t, victim, "/usr/sbin/pim-brokerd run")
		begun := time.Now()
		asking := s.BeginLab(t, "as", "alice", "--", "pim-ssh", "request", role, "--for", "10m", "--why", why)
		if i%2 == 1 {
			asking.Expect(t, "waiting for", 15*time.Second)
			id, _, _ := strings.Cut(asking.Output(), "\n")
			approving := s.BeginLab(t, "as", "bob", "--", "pim-ssh", "approve", "--yes", "--quiet", id)
			killAfter(t, pids, time.Duration(moments.IntN(160))*time.Millisecond)
			inside += underWay(asking)
			approving.Wait(t, 30*time.Second).Want(t, 0)
		} else {
			killAfter(t, pids, time.Duration(moments.IntN(160))*time.Millisecond)
			inside += underWay(asking)
		}
		asking.Wait(t, 30*time.Second).Want(t, 0)
		took = append(took, time.Since(begun))
		leader = s.back(t, victim)
	}
	slices.Sort(took)
	t.Logf("%d commands, %d of them under way when a broker was killed: median %v, longest %v", asked, inside,
		took[asked/2].Round(time.Millisecond), took[asked-1].Round(time.Millisecond))
	kinds := map[string]int{}
	for _, e := range s.logOf(t, s.leader(t)) {
		kinds[e.Kind]++
	}
	if inside < 20 || kinds["RequestFiled"] != asked || kinds["GrantOpened"] != asked {
		t.Errorf("%d commands became %d requests and %d grants", asked, kinds["RequestFiled"], kinds["GrantOpened"])
	}
}

func killAfter(t *testing.T, pids []int, pause time.Duration) {
	t.Helper()
	<-time.After(pause)
	kill9(t, pids)
}

// underWay counts commands that have not ended.
func underWay(asking *labtest.Session) int {
	if asking.Ended() {
		return 0
	}
	return 1
}

// partitionedLeader cuts the two others off, so that people and hosts reach the leader alone.
func (s settled) partitionedLeader(t *testing.T) {
	s.back(t)
	leader := s.leader(t)
	for _, b := range theOthers(leader) {
		s.Cut(t, b)
	}
	for _, words := range [][]string{{"whoami"}, {"inbox"}, {"request", "web-deploy@web1", "--for", "5m", "--why", "cut", "--no-wait"}} {
		if got := s.pim(t, "alice", words...); got.Code != 69 || got.Out != "" {
			t.Errorf("pim-ssh %v: exit code %d, want 69\n%s%s", words, got.Code, got.Out, got.Err)
		}
	}
	heard := func() string { return string(s.Get(t, "db1", "/var/lib/pim-ssh/host/heard")) }
	last := heard()
	if labtest.Poll(12*time.Second, func() bool { return heard() != last }) {
		t.Error("db1 took a fresh word from a leader without a majority")
	}
	healed := time.Now()
	for _, b := range theOthers(leader) {
		s.Heal(t, b)
	}
	labtest.WaitFor(t, "an answer", 15*time.Second, func() bool { return s.pim(t, "alice", "whoami").Code == 0 })
	t.Logf("answers again %v after the network was whole", time.Since(healed).Round(time.Millisecond))
	labtest.WaitFor(t, "a fresh word on db1", 30*time.Second, func() bool { return heard() != last })
}

// cutLeader cuts the leader off from everybody.
func (s settled) cutLeader(t *testing.T) {
	s.back(t)
	leader := s.leader(t)
	s.Cut(t, leader)
	cut := time.Now()
	s.pim(t, "alice", "request", "web-deploy@web1", "--for", "9m", "--why", "the majority", "--no-wait").Want(t, 0)
	t.Logf("a request was granted %v after the leader was cut off", time.Since(cut).Round(time.Millisecond))
	labtest.WaitFor(t, "the old leader to give up", 5*time.Second, func() bool {
		return !s.leads(t, leader)
	})
	s.Heal(t, leader)
	s.back(t)
}

// revokedByTheRest kills the leader and revokes: the host hears of it from the others.
func (s settled) revokedByTheRest(t *testing.T) {
	id := s.grant(t, "erin", "db-admin@db1", "10m", "bob")
	labtest.WaitFor(t, "db1 to hear of the grant, whichever broker it listened to", 20*time.Second, func() bool {
		return s.As(t, "erin", "ssh", "postgres@db1", "true").Code == 0
	})
	shell := s.Begin(t, "erin", "ssh", "-tt", "postgres@db1", "echo in; exec sleep 7777")
	shell.Expect(t, "in", 10*time.Second)
	s.starts(t, "db1", "sleep 7777")
	leader := s.leader(t)
	s.Kill(t, leader)
	s.pim(t, "dave", "revoke", id).Want(t, 0)
	revoked := time.Now()
	labtest.WaitFor(t, "the end of what runs", 10*time.Second, func() bool { return len(s.running(t, "db1", "sleep 7777")) == 0 })
	t.Logf("gone %v after the revocation was acknowledged, with the leader just killed", time.Since(revoked).Round(time.Millisecond))
	s.Start(t, leader)
	s.back(t)
}

// powerGone ends the machine that everybody's pim-ssh asks first: nothing there refuses a connection.
func (s settled) powerGone(t *testing.T) {
	s.KillMachine(t, "b1")
	s.leader(t)
	took := time.Hour
	for range 3 { // each begins with the first broker; this machine may be busy with others
		took = min(took, s.pim(t, "alice", "whoami").Want(t, 0).Took)
	}
	t.Logf("pim-ssh whoami takes %v with the first broker's machine gone", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("pim-ssh whoami took %v", took)
	}
	s.pim(t, "alice", "request", "web-deploy@web1", "--for", "8m", "--why", "no power", "--no-wait").Want(t, 0)
	s.Start(t, "b1")
	s.back(t)
}

// rolled restarts each broker as an upgrade does, while commands go on.
func (s settled) rolled(t *testing.T) {
	for i, b := range brokers {
		restarting := s.BeginLab(t, "exec", b, "--", "systemctl", "restart", "pim-brokerd")
		for n := 0; n == 0 || !restarting.Ended(); n++ {
			s.pim(t, "erin", "request", "web-deploy@web1", "--for", strconv.Itoa(301+100*i+n)+"s", "--why", "rolling", "--no-wait").Want(t, 0)
		}
		restarting.Wait(t, 20*time.Second).Want(t, 0)
		s.back(t)
	}
}

// sameLogs compares what stands on the three disks.
func (s settled) sameLogs(t *testing.T) {
	for _, b := range theOthers("b1") {
		var first, log map[uint64]event
		labtest.WaitFor(t, b+" holds the same log as b1", 10*time.Second, func() bool {
			first, log = s.logOf(t, "b1"), s.logOf(t, b)
			return len(log) == len(first) && len(log) > 40
		})
		for index, e := range log {
			if first[index].Kind != e.Kind || first[index].Proof.Hash() != e.Proof.Hash() {
				t.Errorf("event %d is %s on %s and %s on b1", index, e.Kind, b, first[index].Kind)
			}
		}
	}
}
