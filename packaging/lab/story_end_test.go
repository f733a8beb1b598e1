//go:build lab

package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/labtest"
)

func (s settled) exitCodes(t *testing.T) {
	pending := s.ask(t, "erin", "db-admin@db1", "4m")
	lapsed := grantOf(s.ask(t, "alice", "web-deploy@web1", "1s"))
	live := s.grant(t, "alice", "web-deploy@web1", "5m")
	s.pim(t, "alice", "ssh", "deploy@web1", "exit 42").Want(t, 42)
	s.pim(t, "alice", "return", live).Want(t, 0)

	interrupted := s.Begin(t, "alice", "pim-ssh", "request", "db-admin@db1", "--for", "2m", "--why", "interrupted")
	interrupted.Expect(t, "waiting for", 10*time.Second)
	interrupted.Type(t, "\x03")
	got := interrupted.Wait(t, 5*time.Second).Want(t, 130)
	s.pim(t, "alice", "withdraw", got.Out[strings.Index(got.Out, "r-"):][:9]).Want(t, 0)

	denied := s.BeginLab(t, "as", "alice", "--", "pim-ssh", "request", "db-admin@db1", "--for", "90s", "--why", "denied")
	denied.Expect(t, "waiting for", 10*time.Second)
	id, _, _ := strings.Cut(denied.Output(), "\n")
	s.pim(t, "bob", "deny", "--yes", id, "--why", "no").Want(t, 0)
	denied.Wait(t, 5*time.Second).Want(t, 3)

	for _, row := range []struct {
		sentence string
		code     int
		args     []string
	}{
		{"no reason", 2, []string{"request", "db-admin@db1"}},
		{"an unknown command", 2, []string{"reqest"}},
		{"longer than the role allows", 2, []string{"request", "db-admin@db1", "--for", "5h", "--why", "x"}},
		{"to approve one's own request", 3, []string{"approve", "--yes", s.ask(t, "alice", "root@db1", "1m")}},
		{"an id nobody has", 4, []string{"show", "r-aaaaaaaa"}},
		{"a role that is not there", 4, []string{"request", "db-admim@db1", "--why", "x"}},
		{"a host the role does not reach", 4, []string{"request", "db-admin@web1", "--why", "x"}},
		{"nobody answers in time", 5, []string{"request", "root@db1,web1", "--why", "x", "--timeout", "1s"}},
		{"a lapsed grant", 6, []string{"cert", lapsed}},
		{"what is over already", 7, []string{"withdraw", id}},
	} {
		got := s.pim(t, "alice", row.args...)
		if got.Code != row.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", row.sentence, got.Code, row.code, got.Out, got.Err)
		}
		if !strings.Contains(got.Err, "try: ") {
			t.Errorf("%s: names nothing to type next:\n%s", row.sentence, got.Err)
		}
	}
	s.pim(t, "erin", "withdraw", pending).Want(t, 0)
}

func (s settled) brokerDead(t *testing.T) {
	id := s.grant(t, "alice", "db-admin@db1", "10m", "bob")
	s.works(t, "db1", "alice", "sudo -n -u postgres true")
	s.Kill(t, "b1")
	defer func() {
		s.Start(t, "b1")
		s.pim(t, "alice", "return", id).Want(t, 0)
	}()
	for _, args := range [][]string{{"request", "root@db1", "--why", "x"}, {"inbox"}, {"status"}, {"approve", "--yes", id}, {"revoke", id}} {
		if got := s.pim(t, "bob", args...); got.Code != 69 {
			t.Errorf("pim-ssh %v with the broker dead: exit code %d, want 69\n%s%s", args, got.Code, got.Out, got.Err)
		}
	}
	key := strings.Fields(string(s.Get(t, "db1", "/etc/ssh/ssh_host_ed25519_key.pub")))[1]
	for asked, known := range map[string]bool{"db1": true, "10.77.0.21": true, "elsewhere": false} {
		if got := s.pim(t, "alice", "known-hosts", asked).Want(t, 0).Out; strings.Contains(got, key) != known || !known && got != "" {
			t.Errorf("known-hosts %s: %q", asked, got)
		}
	}
	offline := []string{"ssh", "-o", "KnownHostsCommand=/usr/bin/pim-ssh known-hosts %H", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "UserKnownHostsFile=/dev/null"}
	ask := s.Begin(t, "alice", append(offline, "postgres@db1", "id -un")...).Wait(t, 15*time.Second)
	if ask.Code != 0 || ask.Out != "postgres\r\n" {
		t.Errorf("plain ssh on a terminal: exit code %d, want no question\n%s", ask.Code, ask.Out)
	}
	s.ssh(t, "alice", "postgres@db1", "true").Want(t, 0)
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "true").Want(t, 0)
}

func (s settled) restarts(t *testing.T) {
	id := s.grant(t, "alice", "db-admin@db1", "10m", "carol")
	// The broker was dead a moment ago: the host comes back to it by itself.
	labtest.WaitFor(t, "ssh under the new grant", 10*time.Second, func() bool {
		return s.As(t, "alice", sshLine("postgres@db1", "true")...).Code == 0
	})
	s.works(t, "db1", "alice", "sudo -n -u postgres true")
	s.BeginLab(t, append([]string{"as", "alice", "--"}, sshLine("postgres@db1", "sleep 7901; true")...)...)
	s.starts(t, "db1", "sleep 7901")
	stays := func(after string) {
		t.Helper()
		if len(s.running(t, "db1", "sleep 7901")) == 0 {
			t.Fatalf("the session ended with %s", after)
		}
		s.works(t, "db1", "alice", "sudo -n -u postgres true")
		s.ssh(t, "alice", "postgres@db1", "true").Want(t, 0)
		s.pim(t, "alice", "status", "-o", "json").Want(t, 0)
	}
	for _, line := range []struct{ machine, unit string }{{"b1", "pim-brokerd"}, {"db1", "pim-hostd"}} {
		s.Exec(t, line.machine, "systemctl", "restart", line.unit).Want(t, 0)
		stays("a restart of " + line.unit)
		s.Kill(t, line.machine)
		s.Start(t, line.machine)
		stays("a kill -9 of " + line.unit)
	}
	s.pim(t, "dave", "revoke", id).Want(t, 0)
	labtest.WaitFor(t, "the session ended by a revocation after all that", 15*time.Second, func() bool { return len(s.running(t, "db1", "sleep 7901")) == 0 })
}

func (s settled) reports(t *testing.T) {
	wanted := []string{"opened sshd", "opened sudo", "closed sshd", "closed sudo", "refused sshd"} // sudo without a rule never asks
	told := map[string]int{}
	count := func() bool {
		clear(told)
		for _, e := range s.log(t) {
			var r statement.Report
			if e.Kind == "HostReported" && e.Host == "db1" && json.Unmarshal(e.Proof.Payload, &r) == nil {
				told[string(r.What)+" "+r.Service]++
			}
		}
		return !slices.ContainsFunc(wanted, func(what string) bool { return told[what] == 0 })
	}
	labtest.Poll(15*time.Second, count)
	t.Logf("db1 told the broker: %v", told)
	for _, want := range wanted {
		if told[want] == 0 {
			t.Errorf("nothing was reported as %s", want)
		}
	}
}

// endsWithin is DESIGN's promise four.
const endsWithin = 2 * time.Second

// TestRevoke: from `pim-ssh revoke` returning to the session's processes gone ≤ 2 s on a connected host, and what else ends a grant.
func TestRevoke(t *testing.T) {
	s := settled{labtest.Up(t, "--policy", withGrace(t, "root", "10s"))}
	t.Run("together", func(t *testing.T) {
		t.Run("revoked by an operator", func(t *testing.T) { t.Parallel(); s.revoked(t) })
		t.Run("a host cut off goes on within its grace, starts nothing after it, and hears of the end when it is back", func(t *testing.T) {
			t.Parallel()
			s.cutOff(t)
		})
	})
	t.Run("returned by its holder", func(t *testing.T) { s.returned(t) })
	t.Run("ended by a policy under which she may not ask", func(t *testing.T) { s.outvoted(t) })
}

// withGrace is the lab's policy with another staleness bound for a role.
func withGrace(t *testing.T, role, grace string) string {
	t.Helper()
	text, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(text), "\n  "+role+":\n")
	if !found {
		t.Fatalf("no role %s in policy.yaml", role)
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(fmt.Sprintf("%s\n  %s:\n    offline: {grace: %s}\n%s", before, role, grace, after)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shapesOfRevocation open on db1 as alice at desk; each leaves the process that follows.
var shapesOfRevocation = []struct{ name, open, seen string }{
	{"ssh, trapping TERM and HUP", `ssh -tt postgres@db1 "trap '' TERM HUP; sleep 7911; true"`, "sleep 7911"},
	{"sudo, trapping TERM and HUP", `ssh -tt alice@db1 "sudo -n -u postgres sh -c \"trap '' TERM HUP; sleep 7912; true\""`, "sleep 7912"},
	{"a ControlMaster's session", `ssh -M -S ~/master -fN postgres@db1 && ssh -S ~/master postgres@db1 "sleep 7913; true"`, "sleep 7913"},
	{"a logged-out setsid", `ssh postgres@db1 "setsid -f sleep 7914 >/dev/null 2>&1 </dev/null"`, "sleep 7914"},
}

func (s settled) revoked(t *testing.T) {
	kept := s.grant(t, "erin", "db-admin@db1", "10m", "bob")
	s.works(t, "db1", "erin", "sudo -n -u postgres true")
	s.BeginLab(t, "exec", "db1", "--as", "erin", "--", "sudo", "-n", "-u", "postgres", "sleep", "7919")
	s.starts(t, "db1", "sleep 7919")
	var after, since []time.Duration
	for range 5 {
		id := s.grant(t, "alice", "db-admin@db1", "10m", "bob")
		s.works(t, "db1", "alice", "sudo -n -u postgres true")
		for _, shape := range shapesOfRevocation {
			s.BeginLab(t, "as", "alice", "--", "sh", "-c", shape.open)
			s.starts(t, "db1", shape.seen)
		}
		typed := time.Now()
		s.pim(t, "dave", "revoke", id, "--why", "enough").Want(t, 0)
		returned := time.Now()
		for _, shape := range shapesOfRevocation {
			labtest.WaitFor(t, shape.name+" gone", 10*time.Second, func() bool { return len(s.running(t, "db1", shape.seen)) == 0 })
		}
		after, since = append(after, time.Since(returned)), append(since, time.Since(typed))
		s.closed(t, "alice", "db1", "postgres")
		s.As(t, "alice", "ssh", "-S", "/home/alice/master", "-o", "ControlMaster=no", "-o", "BatchMode=yes", "postgres@db1", "id").Want(t, 255)
	}
	slices.Sort(after)
	slices.Sort(since)
	t.Logf("the session's processes were gone %v after revoke returned (median of %d; worst %v), %v after it was typed",
		after[len(after)/2].Round(time.Millisecond), len(after), after[len(after)-1].Round(time.Millisecond), since[len(since)/2].Round(time.Millisecond))
	if worst := after[len(after)-1]; worst > endsWithin {
		t.Errorf("%v from revoke returning to the processes gone, want at most %v", worst, endsWithin)
	}
	if len(s.running(t, "db1", "sleep 7919")) == 0 {
		t.Error("erin's session went with alice's grant")
	}
	s.pim(t, "erin", "return", kept).Want(t, 0)
}

func (s settled) cutOff(t *testing.T) {
	id := s.grant(t, "bob", "root@web1", "10m", "carol", "gwen")
	s.works(t, "web1", "bob", "sudo -n true")
	s.BeginLab(t, "exec", "web1", "--as", "bob", "--", "sudo", "-n", "sleep", "7921")
	s.starts(t, "web1", "sleep 7921")
	s.Cut(t, "web1")
	cut := time.Now()
	s.ExecAs(t, "web1", "bob", "sudo", "-n", "true").Want(t, 0)
	s.pim(t, "dave", "revoke", id).Want(t, 0) // the host cannot hear it
	starts := func() bool { return s.ExecAs(t, "web1", "bob", "sudo", "-n", "true").Code == 0 }
	labtest.WaitFor(t, "the grace over", 13*time.Second, func() bool { return !starts() })
	bound := time.Since(cut)
	if bound < 4*time.Second {
		t.Errorf("starts were refused %v after the cut; the grace of 10 s counts from the last beat, at most 5 s before", bound)
	}
	if len(s.running(t, "web1", "sleep 7921")) == 0 {
		t.Error("what ran ended with the grace: only its window or a revocation ends it")
	}
	s.Heal(t, "web1")
	healed := time.Now()
	labtest.WaitFor(t, "the revocation heard", 40*time.Second, func() bool { return len(s.running(t, "web1", "sleep 7921")) == 0 })
	t.Logf("cut off, the host started nothing after %v; back, it heard of the revocation in %v",
		bound.Round(100*time.Millisecond), time.Since(healed).Round(100*time.Millisecond))
	s.closed(t, "bob", "web1", "root")
}

func (s settled) returned(t *testing.T) {
	id := s.grant(t, "alice", "db-admin@db1", "10m", "carol")
	s.works(t, "db1", "alice", "sudo -n -u postgres true")
	s.BeginLab(t, append([]string{"as", "alice", "--"}, sshLine("postgres@db1", "trap '' TERM HUP; sleep 7931; true")...)...)
	s.starts(t, "db1", "sleep 7931")
	s.pim(t, "erin", "return", id).Refused(t)
	s.pim(t, "alice", "return", id).Want(t, 0)
	begun := time.Now()
	labtest.WaitFor(t, "her session gone", endsWithin, func() bool { return len(s.running(t, "db1", "sleep 7931")) == 0 })
	t.Logf("gone %v after return returned", time.Since(begun).Round(time.Millisecond))
	if o := s.object(t, "frank", id); o["phase"] != "returned" || o["ended_by"] != "alice" {
		t.Errorf("frank sees %v", o)
	}
	if held := s.As(t, "alice", "ssh-add", "-L").Out; strings.Contains(held, id) {
		t.Errorf("the certificate is still in her ssh-agent:\n%s", held)
	}
	s.closed(t, "alice", "db1", "postgres")
}

func (s settled) outvoted(t *testing.T) {
	id := s.grant(t, "erin", "db-admin@db1", "10m", "gwen")
	s.works(t, "db1", "erin", "sudo -n -u postgres true")
	s.BeginLab(t, append([]string{"as", "erin", "--"}, sshLine("postgres@db1", "trap '' TERM HUP; sleep 7941; true")...)...)
	s.starts(t, "db1", "sleep 7941")
	s.As(t, "dave", "sed", "-i", "s/engineers: .alice, erin./engineers: [alice]/", "policy.yaml").Want(t, 0)
	said := s.pim(t, "dave", "policy", "sign", "policy.yaml", "-o", "chain2").Want(t, 0).Err
	if !strings.Contains(said, "erin can no longer ask for db-admin") {
		t.Errorf("the change in words:\n%s", said)
	}
	s.pim(t, "dave", "policy", "apply", "chain2").Want(t, 0)
	begun := time.Now()
	labtest.WaitFor(t, "her session gone", endsWithin, func() bool { return len(s.running(t, "db1", "sleep 7941")) == 0 })
	t.Logf("gone %v after policy apply returned", time.Since(begun).Round(time.Millisecond))
	if o := s.object(t, "frank", id); o["phase"] != "revoked" || o["ended_by"] != "" {
		t.Errorf("frank sees %v", o)
	}
	s.closed(t, "erin", "db1", "postgres")
	s.pim(t, "erin", "request", "db-admin@db1", "--why", "again").Want(t, 4)
}
