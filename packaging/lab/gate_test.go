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

// refusesWithin is how long a refusal may take, whatever state the agent is in: of a login from the first packet, of sudo
// beside the login that it is typed in.
const refusesWithin = 2 * time.Second

// TestElevationInTheSessionSheAlreadyHad: alice's shell was opened before the grant, over plain ssh with no forwarding;
// her next sudo works in it, and stops when the grant is returned.
func TestElevationInTheSessionSheAlreadyHad(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	shell := s.Begin(t, "alice", "ssh", "-a", "-tt", "alice@db1")
	shell.Type(t, "echo ready; tty")
	shell.Expect(t, "/dev/pts", 10*time.Second)
	shell.Type(t, "sudo -n -u postgres id; echo first=$?")
	shell.Expect(t, "first=1", 10*time.Second)
	if strings.Contains(shell.Output(), "uid=") {
		t.Fatalf("sudo ran without a grant:\n%s", shell.Output())
	}
	d := s.w.Granted("alice", "db-admin", "db1", 300, newKey(t), "bob")
	s.opened(t, "db1", s.feed(t, "db1", d))
	shell.Type(t, "sudo -n -u postgres id -un; sudo -n /usr/bin/systemctl restart postgresql; echo second=$?")
	shell.Expect(t, "postgres\r\nsecond=0", 10*time.Second)
	shell.Type(t, "sudo -n systemctl restart ssh; echo other=$?; sudo -n id; echo root=$?")
	shell.Expect(t, "root=1", 10*time.Second)
	shell.Expect(t, "other=1", time.Second)
}

// TestStandingSudo: a rule that stood before gives nothing on an enforcing host, with and without a live grant, with the
// agent alive and dead.
func TestStandingSudo(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	for file, rule := range map[string]string{"/etc/sudoers.d/aa-standing": "alice ALL=(ALL) NOPASSWD: ALL\n", "/etc/sudoers.d/zy-standing": "%alice ALL=(ALL) NOPASSWD: ALL\n"} {
		s.Put(t, "db1", file, 0o440, []byte(rule))
	}
	s.root(t, "db1", "visudo -cq").Want(t, 0)
	refused := func(when string, commands ...string) {
		for _, c := range commands {
			if got := s.ExecAs(t, "db1", "alice", "sh", "-c", c); got.Code != 1 || strings.Contains(got.Out, "uid=") {
				t.Errorf("%s: %s: exit %d\n%s%s", when, c, got.Code, got.Out, got.Err)
			}
		}
	}
	refused("without a grant", "sudo -n id", "sudo -n -u postgres id", "sudo -n -i id")
	d := s.w.Granted("alice", "db-admin", "db1", 300, newKey(t), "bob")
	s.opened(t, "db1", s.feed(t, "db1", d))
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "id").Want(t, 0)
	refused("beside a live grant", "sudo -n id", "sudo -n -u mallory id", "sudo -n -i id")
	s.Kill(t, "db1")
	refused("beside a live grant, agent dead", "sudo -n id", "sudo -n -u postgres id", "sudo -n -i id")
	s.Exec(t, "db1", "sudo", "-n", "id").Want(t, 0) // root itself is not locked out
}

// TestDeadAgent: dead, stopped, or replaced by something that answers garbage, the agent lets nobody in and keeps nobody
// out who is not governed.
func TestDeadAgent(t *testing.T) {
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	key := newKey(t)
	d := s.w.Granted("alice", "db-admin", "db1", 600, key, "bob")
	s.opened(t, "db1", s.feed(t, "db1", d))
	login := append(append([]string{"ssh"}, s.carry(t, "desk", "k", key, s.w.Certificate(d, key, nil))...), "postgres@db1", "id", "-un")
	s.As(t, "alice", login...).Want(t, 0)

	pid := strings.TrimSpace(s.root(t, "db1", "systemctl show -p MainPID --value pim-hostd").Out)
	states := []struct{ name, enter, leave string }{
		{"stopped", "kill -STOP " + pid, "kill -CONT " + pid},
		{"dead", "systemctl mask --runtime --now pim-hostd.socket pim-hostd.service 2>/dev/null; pkill -KILL -x pim-hostd; true", ""},
		{"garbage", garbage, ""},
	}
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			s.root(t, "db1", state.enter)
			plain := s.As(t, "alice", "ssh", "alice@db1", "true").Want(t, 0).Took
			for _, c := range []struct {
				command []string
				within  time.Duration
			}{{login, refusesWithin}, {[]string{"ssh", "alice@db1", "sudo -n -u postgres id"}, plain + refusesWithin}} {
				got := s.As(t, "alice", c.command...)
				if got.Code == 0 || strings.Contains(got.Out, "postgres") {
					t.Errorf("let in: %v\n%s", c.command, got.Out)
				}
				if got.Took > c.within {
					t.Errorf("%v took %v to refuse, and a plain login %v", c.command, got.Took, plain)
				}
				t.Logf("%s refused in %v; a plain login takes %v", c.command[len(c.command)-1], got.Took.Round(time.Millisecond), plain.Round(time.Millisecond))
			}
			s.As(t, "alice", "ssh", "alice@db1", "true").Want(t, 0)
			s.As(t, "mallory", "ssh", "mallory@db1", "true").Want(t, 0)
			if state.leave != "" {
				s.root(t, "db1", state.leave).Want(t, 0)
				s.As(t, "alice", login...).Want(t, 0)
			}
		})
	}
}

// garbage puts a listener that answers rubbish in the place of both sockets.
const garbage = `rm -f /run/pim-ssh/*.sock; systemd-run -q --unit lab-garbage perl -MIO::Socket::UNIX -e '
for my $p ("/run/pim-ssh/pam.sock", "/run/pim-ssh/principals.sock") { if (!fork) { my $l = IO::Socket::UNIX->new(Local => $p, Listen => 5); chmod 0666, $p;
while (my $c = $l->accept) { sysread $c, my $q, 65536; print $c "\x0c\x00\x00\x00PIM2\x01\xff\xff\xff\xff\x00\x00\x00\x00"; close $c } } } sleep 600'
until [ -S /run/pim-ssh/pam.sock ] && [ -S /run/pim-ssh/principals.sock ]; do :; done`

// TestEndOnTheHost: an end that reaches the host ends exactly the sessions of that grant, at once, and the same proofs
// shown again open nothing.
func TestEndOnTheHost(t *testing.T) {
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	key := newKey(t)
	d := s.w.Granted("alice", "db-admin", "db1", 600, key, "bob")
	kept := s.w.Granted("erin", "db-admin", "db1", 600, newKey(t), "carol")
	stem := s.feed(t, "db1", d)
	s.opened(t, "db1", stem)
	s.opened(t, "db1", s.feed(t, "db1", kept))
	options := s.carry(t, "desk", "k", key, s.w.Certificate(d, key, nil))
	login := append(append([]string{"as", "alice", "--", "ssh"}, options...), "postgres@db1")
	s.BeginLab(t, append(login, "trap '' TERM HUP; sleep 7801; true")...)
	s.BeginLab(t, "exec", "db1", "--as", "alice", "--", "sudo", "-n", "-u", "postgres", "sleep", "7802")
	s.BeginLab(t, "exec", "db1", "--as", "erin", "--", "sudo", "-n", "-u", "postgres", "sleep", "7803")
	for _, marker := range []string{"sleep 7801", "postgres .*sleep 7802", "postgres .*sleep 7803"} {
		labtest.WaitFor(t, marker, 10*time.Second, func() bool { return s.alive(t, "db1", marker) != "" })
	}
	ended := d
	ended.Ended = &broker.Ended{How: broker.EndedByRevoke, At: forger.Now()}
	begun := time.Now()
	s.feed(t, "db1", ended)
	labtest.WaitFor(t, "the ended grant's processes gone", 2*time.Second, func() bool { return s.alive(t, "db1", "sleep 780[12]") == "" })
	t.Logf("ended %v after the word reached the spool", time.Since(begun).Round(time.Millisecond))
	if s.alive(t, "db1", "postgres .*sleep 7803") == "" {
		t.Error("erin's session went with alice's grant")
	}
	s.feed(t, "db1", d) // an owned broker shows it again, without the end
	for _, command := range [][]string{login[3:], {"ssh", "alice@db1", "sudo -n -u postgres id"}} {
		s.As(t, "alice", append(command, "id")...).Refused(t)
	}
	s.root(t, "db1", "systemctl restart pim-hostd").Want(t, 0)
	s.feed(t, "db1", d)
	s.As(t, "alice", append(append([]string{}, login[3:]...), "id")...).Refused(t)
	s.root(t, "db1", "systemctl is-active -q "+stem.Unit()).Refused(t)
}
