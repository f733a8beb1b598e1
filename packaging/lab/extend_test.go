//go:build lab

package lab

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// Windows of the tests below: the first is long enough to open a shell and a sudo run in it, on a busy machine too.
const (
	firstWindow  statement.Seconds = 40
	secondWindow statement.Seconds = 20
)

// TestExtension: a shell that ssh opened, and a sudo run, go on past the end of their grant when it was extended, and die
// with the extension: by the agent, with the agent dead, and at once when it is revoked.
func TestExtension(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, func(doc *policy.Document) { doc.V, doc.Roles = policy.Version, ofVersion2(doc.Roles) }), []string{"db1", "web1", "h3", "h4", "h5"})
	for sentence, story := range map[string]func(*testing.T, *stage){
		"to its end": func(t *testing.T, s *stage) { s.extendedTo(t, "db1", false) },
		"to its end, with everything of ours dead":   func(t *testing.T, s *stage) { s.extendedTo(t, "web1", true) },
		"until it is revoked":                        func(t *testing.T, s *stage) { s.extensionRevoked(t, "h3") },
		"an agent that died while it armed":          func(t *testing.T, s *stage) { s.diedWhileArming(t, "h4") },
		"an eligibility that ends inside the window": func(t *testing.T, s *stage) { s.eligibilityEnds(t, "h5") },
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			story(t, s)
		})
	}
}

// ofVersion2 leaves roles as they are: a document of version 2 says something that version 1 has no word for.
func ofVersion2(roles map[statement.RoleName]policy.Role) map[statement.RoleName]policy.Role {
	role := roles["web-deploy"]
	role.ReasonLeast = 1
	roles["web-deploy"] = role
	return roles
}

// running is a grant with a shell and a sudo run under it.
type running struct {
	d     broker.Dossier
	grant broker.Grant
	key   forgerKey
	login string // alice's ssh to postgres@localhost
	sleep string // an expression for ps that finds what runs
}

// run opens a grant of alice's on a host, and under it a shell over ssh and a sudo run.
func (s *stage) run(t *testing.T, host string, d broker.Dossier, key forgerKey) running {
	t.Helper()
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	s.opened(t, host, s.feed(t, host, d))
	r := running{d: d, grant: grant, key: key, sleep: "^ *[0-9]+ postgres .* sleep 780[12]$"}
	r.login = "ssh " + strings.Join(s.carry(t, host, "k", key, s.w.Certificate(d, key, nil)), " ") + " postgres@localhost"
	s.BeginLab(t, "exec", host, "--as", "alice", "-t", "--", "sh", "-c", r.login+` -tt 'exec bash -c "trap \"\" TERM HUP; sleep 7801; true"'`)
	s.BeginLab(t, "exec", host, "--as", "alice", "--", "sudo", "-n", "-u", "postgres", "sh", "-c", "trap '' TERM HUP; sleep 7802; true")
	labtest.WaitFor(t, "a shell and a sudo run on "+host, 20*time.Second, func() bool { return strings.Count(s.alive(t, host, r.sleep), "\n") == 1 })
	return r
}

// extend feeds an extension, and waits until the old unit is armed for its end.
func (s *stage) extend(t *testing.T, host string, of running) (broker.Dossier, broker.Grant) {
	t.Helper()
	d := s.w.Extension(of.d, secondWindow, of.key, nil, "bob")
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	s.feed(t, host, d)
	s.armed(t, host, of.grant.Stem, grant.Until)
	return d, grant
}

// armed waits until both reapers of a unit strike at a moment and just after it.
func (s *stage) armed(t *testing.T, host string, stem broker.Stem, until statement.Time) {
	t.Helper()
	var got string
	if !labtest.Poll(10*time.Second, func() bool {
		got = s.root(t, host, fmt.Sprintf("systemctl show -P NextElapseUSecRealtime %[1]s-end.timer %[1]s-last.timer", stem.Principal())).Out
		return strings.Contains(got, until.Std().Format(time.DateTime)) && strings.Contains(got, until.Add(2).Std().Format(time.DateTime))
	}) {
		t.Fatalf("%s: %s is armed for %s, want %s and 2 s later", host, stem.Unit(), got, until)
	}
}

// until waits for a moment on every machine's clock.
func until(at statement.Time, after time.Duration) { <-time.After(time.Until(at.Std().Add(after))) }

// wantRunning wants both, or none, to live.
func (s *stage) wantRunning(t *testing.T, host string, r running, both bool, when string) {
	t.Helper()
	left := s.alive(t, host, r.sleep)
	if both && strings.Count(left, "\n") != 1 || !both && left != "" {
		t.Errorf("%s: %s: want both alive %v:\n%s\n%s", host, when, both, left, s.Journal(t, host, "pim-hostd"))
	}
}

func (s *stage) extendedTo(t *testing.T, host string, dead bool) {
	key := newKey(t)
	r := s.run(t, host, s.w.Granted("alice", "db-admin", hostName(host), firstWindow, key, "bob"), key)
	_, second := s.extend(t, host, r)
	if dead {
		s.Kill(t, host)
		s.root(t, host, "pkill -KILL -f '^/usr/(sbin|lib)/pim-' || true")
		s.Cut(t, host)
	}
	until(r.grant.Until, 3*time.Second)
	s.wantRunning(t, host, r, true, "3 s after the old end")
	if got := s.ExecAs(t, host, "alice", "sh", "-c", r.login+" id"); got.Code == 0 {
		t.Errorf("%s: the old certificate opens after the old end: %s", host, got.Out)
	}
	if got := s.ExecAs(t, host, "alice", "sudo", "-n", "-u", "postgres", "cat", "/proc/self/cgroup"); (got.Code == 0) == dead {
		t.Errorf("%s: a new sudo after the old end: exit %d\n%s%s", host, got.Code, got.Out, got.Err)
	} else if !dead && !strings.Contains(got.Out, second.Stem.Unit()) {
		t.Errorf("%s: a new sudo is not under the extension: %s", host, got.Out)
	}
	if time.Now().After(second.Until.Std()) {
		t.Fatal("this machine is too slow")
	}
	s.wantRunning(t, host, r, true, "still inside the extension")
	until(second.Until, 5*time.Second)
	s.wantRunning(t, host, r, false, "5 s after the extension")
	if !dead {
		labtest.WaitFor(t, "nothing stands", 5*time.Second, func() bool {
			return strings.TrimSpace(s.root(t, host, "systemctl list-units --all --no-legend --plain 'pim-g-*'; ls /run/pim-ssh/open /run/pim-ssh/sudoers.d | grep -v :").Out) == ""
		})
	}
}

func (s *stage) extensionRevoked(t *testing.T, host string) {
	key := newKey(t)
	r := s.run(t, host, s.w.Granted("alice", "db-admin", hostName(host), firstWindow, key, "bob"), key)
	d, _ := s.extend(t, host, r)
	until(r.grant.Until, 3*time.Second)
	s.wantRunning(t, host, r, true, "3 s after the old end")
	d.Ended = &broker.Ended{How: broker.EndedByRevoke, At: forger.Now()}
	begun := time.Now()
	s.feed(t, host, d)
	labtest.WaitFor(t, "both dead", 2*time.Second-time.Since(begun), func() bool { return s.alive(t, host, r.sleep) == "" })
}

// diedWhileArming puts the reapers into each state in which an agent can die while it arms them for an extension. The one
// that stands holds; the next agent puts both right.
func (s *stage) diedWhileArming(t *testing.T, host string) {
	key := newKey(t)
	r := s.run(t, host, s.w.Granted("alice", "db-admin", hostName(host), 300, key, "bob"), key)
	_, second := s.extend(t, host, r)
	unit := r.grant.Stem.Principal()
	old := fmt.Sprintf("systemctl stop %[1]s-end.timer; systemd-run -q --unit=%[1]s-end --on-calendar='%[2]s UTC' --timer-property=AccuracySec=100ms systemctl kill --signal=SIGKILL --kill-whom=all %[1]s.service",
		unit, r.grant.Until.Std().Format(time.DateTime))
	for sentence, line := range map[string]string{
		"the later one stopped, the first still old": old + "; systemctl stop " + unit + "-last.timer",
		"the later one new, the first still old":     old,
		"the later one new, the first stopped":       "systemctl stop " + unit + "-end.timer",
	} {
		s.Kill(t, host)
		s.root(t, host, line).Want(t, 0)
		s.Start(t, host)
		s.armed(t, host, r.grant.Stem, second.Until)
		s.wantRunning(t, host, r, true, sentence)
	}
}

// eligibilityEnds: on this host the eligibility ends inside the window, elsewhere it does not. With everything of ours dead
// the window ends here all the same, though the certificate says otherwise.
func (s *stage) eligibilityEnds(t *testing.T, host string) {
	soon := forger.Now().Add(firstWindow)
	s.revise(t, host, func(doc *policy.Document) {
		role := doc.Roles["db-admin"]
		role.Eligible = []policy.Name{"erin"}
		role.Dated = []policy.Eligibility{{Who: "alice", Until: soon, Hosts: &policy.Selector{Names: []statement.HostName{hostName(host)}}},
			{Who: "alice", Hosts: &policy.Selector{Names: []statement.HostName{"db7"}}}}
		doc.Roles["db-admin"] = role
	})
	key := newKey(t)
	ask := s.w.Ask("alice", "db-admin", hostName(host), 600, key, func(r *statement.Request) { r.Hosts = append(r.Hosts, "db7") })
	r := s.run(t, host, with(ask, s.w.Approve("bob", ask, nil)), key)
	if r.grant.Until <= soon {
		t.Fatalf("the grant ends at %s, the eligibility here at %s", r.grant.Until, soon)
	}
	s.armed(t, host, r.grant.Stem, soon)
	s.Kill(t, host)
	s.root(t, host, "pkill -KILL -f '^/usr/(sbin|lib)/pim-' || true")
	s.Cut(t, host)
	until(soon, time.Second)
	for _, line := range []string{r.login + " id", "sudo -n -u postgres id"} {
		if got := s.ExecAs(t, host, "alice", "sh", "-c", line); got.Code == 0 || strings.Contains(got.Out, "uid=") {
			t.Errorf("started after the end: %s\n%s", line, got.Out)
		}
	}
	until(soon, 5*time.Second)
	s.wantRunning(t, host, r, false, "5 s after the eligibility's end")
}

// revise moves one host to a policy that its steward signed. The world stays where it is for the other hosts: the one revised
// is named for it alone.
func (s *stage) revise(t *testing.T, host string, edit func(*policy.Document)) {
	t.Helper()
	doc := s.w.Next(edit)
	proof := s.w.SignPolicy(doc, "dave")
	text, err := json.Marshal(proof)
	if err != nil {
		t.Fatal(err)
	}
	s.Put(t, host, fmt.Sprintf("/var/lib/pim-ssh/host/policy/%08d.json", doc.Revision), 0o600, text)
	s.root(t, host, "systemctl reload pim-hostd").Want(t, 0)
}
