//go:build lab

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// TestActivation is what a role can demand, and what people do about it, told with three brokers and real hosts. Each
// sentence builds on those before it.
func TestActivation(t *testing.T) {
	t.Parallel()
	touch := forger.SecurityKey()
	a := activation{settled: settled{labtest.Up(t, "--brokers", "3", "--policy", withLimits(t, touch))}, touch: touch}
	for _, chapter := range []struct {
		sentence string
		tell     func(activation, *testing.T)
	}{
		{"two groups approve, each with a person of its own", activation.twoGroups},
		{"a start later on: nothing before it, everything from it on, and no start for who may no longer have it", activation.scheduled},
		{"what was returned is gone at once", activation.returned},
		{"an emergency opens at once, every alarm rings, and it stays in the inbox until somebody else has reviewed it", activation.emergency},
		{"more time for a running grant: the shell goes on, and ends with the extension", activation.extended},
		{"a code of an authenticator app serves once, whichever brokers are asked at once", activation.codes},
		{"wrong codes lock on all brokers, also when they are killed and start again, until an operator resets", activation.locked},
		{"a role for security keys is refused to a plain key, and to one that nobody unlocked, by brokers and by the host", activation.securityKey},
		{"a policy change ends a running grant within 2 s", activation.policyChange},
	} {
		if !t.Run(chapter.sentence, func(t *testing.T) { chapter.tell(a, t) }) {
			t.Log("what follows may fail for this reason alone")
		}
	}
}

func (a activation) twoGroups(t *testing.T) {
	waiting := a.BeginLab(t, "as", "alice", "--", "pim-ssh", "request", "vault@db1", "--for", "10m", "--why", "two groups")
	waiting.Expect(t, "waiting for 1 of [carol, gwen] and 1 of [bob, carol]", 10*time.Second)
	id, _, _ := strings.Cut(waiting.Output(), "\n")
	a.approve(t, id, "carol") // who is in both groups counts for one
	a.closed(t, "alice", "db1", "postgres")
	a.pim(t, "carol", "approve", "--yes", id).Want(t, 7)
	a.pim(t, "alice", "approve", "--yes", id).Want(t, 3)
	a.approve(t, id, "gwen")
	waiting.Wait(t, 10*time.Second).Want(t, 0)
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	a.ssh(t, "alice", "postgres@db1", "id").Want(t, 0)
	a.pim(t, "alice", "return", grantOf(id)).Want(t, 0)

	short := a.ask(t, "alice", "vault@db1", "9m")
	a.approve(t, short, "bob")
	if needs := fmt.Sprint(a.object(t, "bob", short)["needs"]); !strings.Contains(needs, "carol") || !strings.Contains(needs, "gwen") || strings.Contains(needs, "bob") {
		t.Errorf("what is missing after bob: %s", needs)
	}
	a.pim(t, "carol", "deny", "--yes", short, "--why", "one no is enough").Want(t, 0)
	a.pim(t, "gwen", "approve", "--yes", short).Want(t, 7)
	a.closed(t, "alice", "db1", "postgres")
}

func (a activation) scheduled(t *testing.T) {
	at := forger.Now().Add(30)
	begins := func(person string) string {
		got := a.pim(t, person, "request", "db-admin@db1", "--for", "5m", "--at", at.String(), "--why", "tonight", "--no-wait", "--quiet").Want(t, 0)
		id := strings.TrimSpace(got.Out)
		a.approve(t, id, "bob")
		return grantOf(id)
	}
	alices, erins := begins("alice"), begins("erin")
	if phase := a.object(t, "alice", alices)["phase"]; phase != "waiting" {
		t.Errorf("before its start it is %v", phase)
	}
	a.closed(t, "alice", "db1", "postgres")
	a.revise(t, "eligible: [engineers] # of db-admin", "eligible: [alice] # of db-admin") // erin's is judged again
	if forger.Now() >= at {
		t.Fatal("this machine is too slow: the start came before the policy that takes it")
	}
	until(at, 0)
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	t.Logf("alice's sudo works %v after the start", time.Since(at.Std()).Round(time.Millisecond))
	a.ExecAs(t, "db1", "erin", "sudo", "-n", "-u", "postgres", "id").Refused(t)
	if phase := a.object(t, "erin", erins)["phase"]; phase != "revoked" {
		t.Errorf("erin's, for which she is no longer eligible, is %v", phase)
	}
	a.pim(t, "alice", "return", alices).Want(t, 0)
	a.revise(t, "eligible: [alice] # of db-admin", "eligible: [engineers] # of db-admin")
}

func (a activation) returned(t *testing.T) {
	id := a.grant(t, "alice", "db-admin@db1", "10m", "bob")
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	a.sleeper(t, "7951")
	begun := time.Now()
	a.pim(t, "alice", "return", id).Want(t, 0)
	a.gone(t, "7951", begun)
	a.closed(t, "alice", "db1", "postgres")
}

func (a activation) emergency(t *testing.T) {
	if got := a.pim(t, "alice", "request", "glass@db1", "--why", "INC-1 everything is down", "--no-wait"); got.Code == 0 {
		t.Errorf("a plain key opens it:\n%s", got.Out)
	}
	keys := a.hold(t, "alice", a.touch)
	got := a.As(t, "alice", "env", keys, "pim-ssh", "request", "glass@db1", "--for", "10m", "--why", "INC-1 everything is down", "--no-wait", "--quiet", "--key", fingerprint(a.touch)).Want(t, 0)
	id := grantOf(strings.TrimSpace(got.Out))
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	alerts := a.Exec(t, "db1", "journalctl", "-q", "-o", "cat", "-p", "alert", "-u", "pim-hostd", "--grep="+id).Out
	if strings.Count(alerts, "NOBODY APPROVED") != 1 || !strings.Contains(alerts, "person=alice") {
		t.Errorf("at priority alert the host's journal says:\n%s", alerts)
	}
	inbox := func(person string) bool { return strings.Contains(a.pim(t, person, "inbox").Want(t, 0).Out, id[:9]) }
	if !inbox("bob") || !inbox("frank") || inbox("alice") {
		t.Errorf("its review is in the inbox of bob %v, of frank, who audits, %v, of alice %v", inbox("bob"), inbox("frank"), inbox("alice"))
	}
	a.pim(t, "alice", "review", id, "--why", "all is well").Want(t, 3)
	a.pim(t, "alice", "return", id).Want(t, 0)
	if !inbox("bob") {
		t.Error("returned, it is out of the inbox, and nobody has looked at it")
	}
	a.pim(t, "bob", "review", id, "--why", "read the session's log").Want(t, 0)
	if inbox("bob") || inbox("frank") {
		t.Error("reviewed, it is in the inbox still")
	}
}

func (a activation) extended(t *testing.T) {
	first := a.grant(t, "alice", "db-admin@db1", "50s", "bob")
	shell := a.Begin(t, "alice", append([]string{"ssh", "-tt"}, sshLine("postgres@db1", "exec bash --norc")[1:]...)...)
	shell.Type(t, "echo I am $(id -un)")
	shell.Expect(t, "I am postgres", 10*time.Second)
	got := a.pim(t, "alice", "extend", first, "--for", "30s", "--why", "still copying", "--no-wait", "--quiet").Want(t, 0)
	second := strings.TrimSpace(got.Out)
	a.approve(t, second, "bob")
	ends := func(id string) time.Time {
		at, err := time.Parse(time.RFC3339, fmt.Sprint(a.object(t, "alice", id)["until"]))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	old, end := ends(first), ends(grantOf(second))
	if !end.After(old) {
		t.Fatalf("extended from %v to %v", old, end)
	}
	<-time.After(time.Until(old.Add(3 * time.Second)))
	shell.Type(t, "echo still $(id -un)")
	shell.Expect(t, "still postgres", 5*time.Second)
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	if time.Now().After(end) {
		t.Fatal("this machine is too slow")
	}
	<-time.After(time.Until(end))
	shell.Wait(t, 5*time.Second)
	a.closed(t, "alice", "db1", "postgres")
}

func (a activation) codes(t *testing.T) {
	secret, first, recovery := a.enrol(t, "alice")
	ask := func(broker, scope, code string) []string {
		return []string{"as", "alice", "--", "env", "PIM_SSH_BROKER=" + broker + ":7443", "pim-ssh", "request", "coded@" + scope, "--for", "5m", "--why", t.Name(), "--no-wait", "--quiet", "--totp", code}
	}
	a.pim(t, "alice", "request", "coded@db1", "--for", "5m", "--why", "no code", "--no-wait").Refused(t)
	a.lab(t, ask("b1", "db1", first)...).Want(t, 3) // it has enrolled her, and is used up
	for _, one := range []string{code(t, secret, 1), recovery[0]} {
		scopes := []string{"db1", "web1", "db1,web1"}
		var asking []*labtest.Session
		for i, broker := range brokers {
			asking = append(asking, a.BeginLab(t, ask(broker, scopes[i], one)...))
		}
		accepted := ""
		for i, s := range asking {
			if got := s.Wait(t, 30*time.Second); got.Code == 0 {
				accepted += " " + brokers[i]
				a.pim(t, "alice", "withdraw", strings.TrimSpace(got.Out)).Want(t, 0)
			} else if got.Code != 3 || !strings.Contains(got.Out, "used before") {
				t.Errorf("%s: exit code %d\n%s", brokers[i], got.Code, got.Out)
			}
		}
		if strings.Count(accepted, " ") != 1 {
			t.Errorf("one code, shown to three brokers at once, was accepted by [%s ]", accepted)
		}
		for i, broker := range brokers {
			a.lab(t, ask(broker, scopes[i], one)...).Want(t, 3)
		}
	}
	id := strings.TrimSpace(a.lab(t, ask("b3", "db1", recovery[1])...).Want(t, 0).Out)
	a.approve(t, id, "bob")
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	a.pim(t, "alice", "return", grantOf(id)).Want(t, 0)
}

func (a activation) locked(t *testing.T) {
	secret, _, recovery := a.enrol(t, "erin")
	ask := func(broker, code string) labtest.Result {
		return a.As(t, "erin", "env", "PIM_SSH_BROKER="+broker+":7443", "pim-ssh", "request", "coded@db1", "--for", "5m", "--why", t.Name(), "--no-wait", "--quiet", "--totp", code)
	}
	for i := range 5 {
		if got := ask(brokers[i%3], "000000").Want(t, 3); !strings.Contains(got.Err, "wrong") {
			t.Errorf("wrong code %d: %s", i+1, got.Err)
		}
	}
	isLocked := func(when string) {
		t.Helper()
		for i, right := range []string{code(t, secret, 0), code(t, secret, 1), recovery[0]} {
			if got := ask(brokers[i], right).Want(t, 3); !strings.Contains(got.Err, "locked") {
				t.Errorf("%s, a right code at %s: %s", when, brokers[i], got.Err)
			}
		}
	}
	isLocked("after five wrong ones")
	for _, b := range brokers {
		kill9(t, a.running(t, b, "/usr/sbin/pim-brokerd run"))
	}
	a.back(t)
	isLocked("after all brokers were killed")
	a.pim(t, "erin", "totp", "reset", "erin", "--why", "mine").Want(t, 3)
	a.pim(t, "dave", "totp", "reset", "erin", "--why", "saw her, and her badge").Want(t, 0)
	ask("b1", recovery[0]).Want(t, 3) // there is nothing to check it by
	secret, _, _ = a.enrol(t, "erin")
	ask("b2", code(t, secret, 1)).Want(t, 0)
}

func (a activation) securityKey(t *testing.T) {
	a.pim(t, "alice", "request", "touch@db1", "--for", "5m", "--why", "plain", "--no-wait").Refused(t)
	w := a.world(t, "alice", "bob")
	key := forger.Key(t)
	var body statement.Request
	plain := w.Ask("alice", "touch", "db1", 600, key, func(r *statement.Request) { body = *r })
	locked := w.Untouched(body, a.touch.WithFlags(touched))
	untouched := w.Untouched(body, a.touch.WithFlags(0))
	for sentence, r := range map[string]statement.Proof{"by a plain key": plain, "by a security key that nobody unlocked": locked, "by one that nobody touched": untouched} {
		if status := a.post(t, r); status < 400 || status >= 500 {
			t.Errorf("%s: the broker answers %d", sentence, status)
		}
		s := &stage{a.Lab, w}
		d := with(r, w.Approve("bob", r, nil))
		s.feed(t, "db1", d)
		why := "must be signed by a security key that verified its holder"
		if sentence == "by one that nobody touched" {
			why = "made without touching the security key"
		}
		labtest.WaitFor(t, "the host's word on a request "+sentence, 5*time.Second, func() bool {
			return strings.Contains(a.Journal(t, "db1", "pim-hostd"), "grant="+string(d.Stem().Grant())) && strings.Contains(a.Journal(t, "db1", "pim-hostd"), why)
		})
		a.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Refused(t)
		a.root(t, "db1", "systemctl is-active -q "+d.Stem().Unit()).Refused(t)
	}
	keys := a.hold(t, "alice", a.touch)
	got := a.As(t, "alice", "env", keys, "pim-ssh", "request", "touch@db1", "--for", "10m", "--why", "touched", "--no-wait", "--quiet", "--key", fingerprint(a.touch)).Want(t, 0)
	id := strings.TrimSpace(got.Out)
	a.approve(t, id, "bob")
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	a.pim(t, "alice", "return", grantOf(id)).Want(t, 0)
}

func (a activation) policyChange(t *testing.T) {
	a.grant(t, "alice", "db-admin@db1", "10m", "bob")
	a.works(t, "db1", "alice", "sudo -n -u postgres id")
	a.sleeper(t, "7952")
	begun := a.revise(t, "eligible: [engineers] # of db-admin", "eligible: [erin] # of db-admin")
	a.gone(t, "7952", begun)
	a.closed(t, "alice", "db1", "postgres")
}

func fingerprint(key ssh.Signer) string { return ssh.FingerprintSHA256(key.PublicKey()) }
