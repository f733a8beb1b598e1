//go:build lab

package lab

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// bare boots hosts without pim-ssh that have what a host of some age has: a standing sudo rule, an account that lingers.
func bare(t *testing.T, hosts ...string) *stage {
	t.Helper()
	s := &stage{labtest.Up(t, "--bare", "--brokers", "0", "--hosts", fmt.Sprint(len(hosts))), forger.New(t, nil)}
	for _, h := range hosts {
		s.Put(t, h, "/etc/sudoers.d/mallory", 0o440, []byte("mallory ALL=(ALL:ALL) NOPASSWD: ALL\n"))
		s.Put(t, h, "/var/lib/systemd/linger/postgres", 0o644, nil)
		s.Put(t, h, "/etc/cron.deny", 0o600, []byte("guest")) // no newline at its end
	}
	return s
}

// apt puts a package on a machine and installs it, as a person with the file in hand would, with no network and no lists.
func (s *stage) apt(t *testing.T, machine, deb string) labtest.Result {
	t.Helper()
	s.Put(t, machine, "/root/package.deb", 0o644, read(t, deb))
	return s.root(t, machine, "cd /root && apt-get install -y ./package.deb && rm package.deb").Want(t, 0)
}

// listing is of a machine's /etc: every file's type, mode, owner, and digest or target. What passwd's own tools keep of a file
// before its last change is not looked at.
func (s *stage) listing(t *testing.T, machine string) string {
	t.Helper()
	return s.root(t, machine, `cd /etc && find . ! -name passwd- ! -name group- ! -name shadow- ! -name gshadow- ! -name .pwd.lock \
		-printf '%P %y %m %u:%g %l\n' | sort
		find . -type f ! -name passwd- ! -name group- ! -name shadow- ! -name gshadow- | sort | xargs sha256sum`).Want(t, 0).Out
}

// access is who may do what, as sshd, sudo, PAM, cron, at and systemd themselves understand it.
func (s *stage) access(t *testing.T, machine string) string {
	t.Helper()
	return s.root(t, machine, `for a in root alice mallory postgres deploy; do
		echo "== $a"
		sshd -T -C user=$a,host=desk,addr=10.77.0.200,laddr=10.77.0.21,lport=22
		sudo -l -U $a
	done
	grep -rv '^#' /etc/pam.d /etc/cron.deny /etc/at.deny
	ls /var/lib/systemd/linger
	systemctl list-unit-files --no-legend --state=enabled,masked,static,enabled-runtime | grep -v ' pim-'`).Want(t, 0).Out
}

// logins tries the doors that were open before, and one that was not.
func (s *stage) logins(t *testing.T, machine string) {
	t.Helper()
	s.As(t, "alice", "ssh", "-o", "BatchMode=yes", machine, "true").Want(t, 0)
	if got := s.As(t, "mallory", "ssh", "-o", "BatchMode=yes", machine, "sudo -n id -un").Want(t, 0).Out; got != "root\n" {
		t.Errorf("%s: mallory's standing sudo rule gives %q", machine, got)
	}
	s.As(t, "alice", "ssh", "-o", "BatchMode=yes", machine, "sudo -n id").Refused(t)
	s.As(t, "alice", "ssh", "-o", "BatchMode=yes", "postgres@"+machine, "true").Want(t, 255)
}

// TestInstallingChangesNobodysAccess: nor does removing what was only installed.
func TestInstallingChangesNobodysAccess(t *testing.T) {
	t.Parallel()
	host := packages(t)["pim-ssh-host"]
	s := bare(t, "db1")
	before, access := s.listing(t, "db1"), s.access(t, "db1")
	s.apt(t, "db1", host)
	if diff := cmp.Diff(access, s.access(t, "db1")); diff != "" {
		t.Errorf("access (-before +after):\n%s", diff)
	}
	s.logins(t, "db1")
	account := regexp.MustCompile(`(?m)^[-+]?.*(\./passwd|\./group|\./shadow|\./gshadow)$\n`)
	if diff := cmp.Diff(account.ReplaceAllString(before, ""), account.ReplaceAllString(s.listing(t, "db1"), "")); diff != "" {
		t.Errorf("/etc beyond the agent's account (-before +after):\n%s", diff)
	}
	if got := s.root(t, "db1", "systemctl is-enabled pim-hostd.service pim-hostd.socket; systemctl is-active pim-hostd.service pim-hostd.socket").Out; got != "disabled\ndisabled\ninactive\ninactive\n" {
		t.Errorf("units: %q, want neither enabled nor running", got)
	}
	s.root(t, "db1", "systemd-analyze verify --man=no pim-hostd.service pim-hostd.socket && ! grep -r pam_pim /etc/pam.d").Want(t, 0)
	if got := s.root(t, "db1", "dpkg --verify pim-ssh-host; dpkg --audit").Out; got != "" {
		t.Errorf("dpkg says %s", got)
	}
	s.root(t, "db1", "apt-get purge -y pim-ssh-host").Want(t, 0)
	s.gone(t, "db1", before, access)
}

// gone wants nothing of ours left, and everything else as it was.
func (s *stage) gone(t *testing.T, machine, etc, access string) {
	t.Helper()
	if diff := cmp.Diff(etc, s.listing(t, machine)); diff != "" {
		t.Errorf("%s: /etc (-before +after):\n%s", machine, diff)
	}
	if diff := cmp.Diff(access, s.access(t, machine)); diff != "" {
		t.Errorf("%s: access (-before +after):\n%s", machine, diff)
	}
	left := s.root(t, machine, `ls -d /var/lib/pim-ssh /run/pim-ssh /etc/pim-ssh /usr/lib/pim-ssh 2>/dev/null
		find /usr /var/lib -path /var/lib/systemd/timers -prune -o -name '*pim-*' -print -o -name '*pam_pim*' -print
		dpkg-query -W -f '${Package} ${Status}\n' 'pim-*' 2>/dev/null
		systemctl list-unit-files --no-legend 'pim-[!g]*' ; systemctl list-units --all --no-legend 'pim-[!g]*'
		getent passwd pim-principals ; getent group pim-principals`).Out
	if left != "" {
		t.Errorf("%s: left behind:\n%s", machine, left)
	}
	s.logins(t, machine)
}

// TestPurgeGivesEtcBack from whatever state the host is in.
func TestPurgeGivesEtcBack(t *testing.T) {
	t.Parallel()
	host := packages(t)["pim-ssh-host"]
	s := bare(t, "db1", "web1", "h3", "h4")
	for _, c := range []struct {
		sentence, machine string
		reach             func(t *testing.T, machine string)
		purge             string
	}{
		{"from observing", "db1", func(t *testing.T, h string) { s.root(t, h, "pim-hostd observe").Want(t, 0) }, "apt-get purge -y pim-ssh-host"},
		{"from enforcing", "web1", func(t *testing.T, h string) { s.root(t, h, "pim-hostd enforce").Want(t, 0) }, "apt-get purge -y pim-ssh-host"},
		{"from enforcing with the agent dead, in two steps", "h3", func(t *testing.T, h string) {
			s.root(t, h, "pim-hostd enforce").Want(t, 0)
			s.Kill(t, h)
		}, "apt-get remove -y pim-ssh-host && test -d /var/lib/pim-ssh/host && dpkg --purge pim-ssh-host"},
		{"after enforcing and installing once more", "h4", func(t *testing.T, h string) {
			s.root(t, h, "pim-hostd enforce && pim-hostd observe && pim-hostd enforce").Want(t, 0)
			s.root(t, h, "apt-get remove -y pim-ssh-host").Want(t, 0)
			s.apt(t, h, host)
			s.logins(t, h)
			s.root(t, h, "mkdir -p /etc/pim-ssh && touch /etc/pim-ssh/host.yaml && systemctl enable --now pim-hostd.socket pim-hostd && pim-hostd enforce").Want(t, 0)
		}, "apt-get purge -y pim-ssh-host"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			t.Parallel()
			before, access := s.listing(t, c.machine), s.access(t, c.machine)
			s.apt(t, c.machine, host)
			s.enrol(t, c.machine, map[string]string{"tier": "db"})
			c.reach(t, c.machine)
			if s.root(t, c.machine, "test -d /var/lib/pim-ssh/enforcing").Code == 0 {
				s.As(t, "mallory", "ssh", "-o", "BatchMode=yes", c.machine, "sudo -n id").Refused(t)
			}
			s.root(t, c.machine, c.purge).Want(t, 0)
			s.root(t, c.machine, "rm -f /root/token").Want(t, 0)
			s.gone(t, c.machine, before, access)
		})
	}
}

// TestPurgeInsideAWindow: the window runs to its end, which systemd keeps, and then everything is gone; whoever purges may
// well be root by that very grant.
func TestPurgeInsideAWindow(t *testing.T) {
	t.Parallel()
	host := packages(t)["pim-ssh-host"]
	s := bare(t, "db1")
	before, access := s.listing(t, "db1"), s.access(t, "db1")
	s.apt(t, "db1", host)
	s.enrol(t, "db1", map[string]string{"tier": "db"})
	s.root(t, "db1", "pim-hostd enforce").Want(t, 0)
	d := s.w.Granted("alice", "root", "db1", 30, newKey(t), "bob", "carol")
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	stem := s.feed(t, "db1", d)
	s.opened(t, "db1", stem)
	s.BeginLab(t, "exec", "db1", "--as", "alice", "--", "sudo", "-n", "sh", "-c", "trap '' TERM HUP; sleep 7801; true")
	labtest.WaitFor(t, "sleep 7801", 10*time.Second, func() bool { return s.alive(t, "db1", "root .* sleep 7801$") != "" })
	s.ExecAs(t, "db1", "alice", "sudo", "-n", "apt-get", "purge", "-y", "pim-ssh-host").Want(t, 0)
	if left := time.Until(grant.Until.Std()); left <= 0 || s.alive(t, "db1", " sleep 7801$") == "" {
		t.Errorf("the window has %v left, and what ran in it is gone", left)
	}
	s.gone(t, "db1", before, access)
	<-time.After(time.Until(grant.Until.Std().Add(5 * time.Second)))
	if left := s.alive(t, "db1", " sleep 7801$"); left != "" {
		t.Errorf("alive 5 s after the end:\n%s", left)
	}
	if left := s.root(t, "db1", "systemctl list-units --all --no-legend 'pim-*'; ls -d /run/pim-ssh 2>/dev/null").Out; left != "" {
		t.Errorf("left after the end:\n%s", left)
	}
}

// TestThePackageStaysWhileAStackCallsIt: pam-auth-update leaves a locally changed file alone, and a stack that names a
// module which is gone would refuse everybody (FACTS F13).
func TestThePackageStaysWhileAStackCallsIt(t *testing.T) {
	t.Parallel()
	host := packages(t)["pim-ssh-host"]
	s := bare(t, "db1")
	s.apt(t, "db1", host)
	s.enrol(t, "db1", map[string]string{"tier": "db"})
	s.root(t, "db1", "pim-hostd enforce && sed -i '/^account.*pam_unix.so/i account required pam_nologin.so' /etc/pam.d/common-account").Want(t, 0)
	purge := s.root(t, "db1", "apt-get purge -y pim-ssh-host").Refused(t)
	said := purge.Out + purge.Err
	next := regexp.MustCompile(`try: (sed [^\r\n]*)`).FindStringSubmatch(said)
	if !strings.Contains(said, "/etc/pam.d/common-account ") || next == nil {
		t.Fatalf("it does not say why and what to do:\n%s", said)
	}
	s.root(t, "db1", "test -e /usr/lib/*/security/pam_pim.so && systemctl is-active pim-hostd").Want(t, 0)
	s.logins(t, "db1") // nobody is refused meanwhile
	s.root(t, "db1", next[1]+" && apt-get purge -y pim-ssh-host").Want(t, 0)
	s.root(t, "db1", "! grep -r pam_pim /etc && ! getent passwd pim-principals").Want(t, 0)
	s.logins(t, "db1")
}

// TestTheBrokersPackage starts nothing by itself, shares a machine with the host's, and leaves nothing when it is purged.
func TestTheBrokersPackage(t *testing.T) {
	t.Parallel()
	files := packages(t)
	s := bare(t, "db1")
	before, access := s.listing(t, "db1"), s.access(t, "db1")
	s.apt(t, "db1", files["pim-ssh-host"])
	s.apt(t, "db1", files["pim-ssh-broker"])
	if got := s.root(t, "db1", "systemctl is-enabled pim-brokerd; systemctl is-active pim-brokerd").Out; got != "disabled\ninactive\n" {
		t.Errorf("pim-brokerd: %q, want neither enabled nor running", got)
	}
	said := s.root(t, "db1", "pim-brokerd init --name b1 --address db1:7443 && mkdir -p /etc/pim-ssh && "+
		"cp /usr/share/doc/pim-ssh-broker/examples/broker.yaml /etc/pim-ssh && systemctl enable --now pim-brokerd; journalctl -q -o cat -u pim-brokerd").Out
	if !strings.Contains(said, "pim-brokerd bootstrap") {
		t.Errorf("a broker with no deployment does not say what to type:\n%s", said)
	}
	s.enrol(t, "db1", map[string]string{"tier": "db"})
	s.root(t, "db1", "apt-get purge -y pim-ssh-broker").Want(t, 0)
	s.root(t, "db1", "test ! -e /var/lib/pim-ssh/broker && test ! -e /etc/pim-ssh && systemctl is-active pim-hostd && pim-hostd enforce").Want(t, 0)
	s.root(t, "db1", "apt-get purge -y pim-ssh-host && rm /root/token").Want(t, 0)
	s.gone(t, "db1", before, access)
}

// TestUpgradeInsideAWindow keeps the shell, the grant and the refusal of everything else.
func TestUpgradeInsideAWindow(t *testing.T) {
	t.Parallel()
	host := packages(t)["pim-ssh-host"]
	s := bare(t, "db1")
	s.apt(t, "db1", host)
	s.enrol(t, "db1", map[string]string{"tier": "db"})
	s.root(t, "db1", "pim-hostd enforce").Want(t, 0)
	key := newKey(t)
	d := s.w.Granted("alice", "db-admin", "db1", 600, key, "bob")
	s.opened(t, "db1", s.feed(t, "db1", d))
	ssh := append([]string{"ssh"}, s.carry(t, "desk", "granted", key, s.w.Certificate(d, key, nil))...)
	shell := s.Begin(t, "alice", append(ssh, "postgres@db1")...)
	shell.Type(t, "echo I am $(id -un) on $(hostname)")
	shell.Expect(t, "I am postgres on db1", 10*time.Second)
	s.sleeper(t, "db1", "7802")
	before, agent := s.listing(t, "db1"), s.root(t, "db1", "systemctl show -P MainPID pim-hostd").Out
	for _, deb := range []string{newer(t, host), host} { // and back
		s.Put(t, "db1", "/root/package.deb", 0o644, read(t, deb))
		s.root(t, "db1", "cd /root && apt-get install -y --allow-downgrades ./package.deb").Want(t, 0)
		next := s.root(t, "db1", "systemctl show -P MainPID pim-hostd").Out
		if next == agent || next == "0\n" {
			t.Errorf("the agent was pid %s and is %s: not the new one", agent, next)
		}
		agent = next
		shell.Type(t, "echo still $(id -un), $(pgrep -c -f 'sleep 7802$')")
		shell.Expect(t, "still postgres, ", 10*time.Second)
		s.runs(t, "db1", "7802")
		s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "true").Want(t, 0)
		s.As(t, "alice", append(ssh, "postgres@db1", "true")...).Want(t, 0)
		s.As(t, "mallory", "ssh", "-o", "BatchMode=yes", "db1", "sudo -n id").Refused(t)
		if diff := cmp.Diff(before, s.listing(t, "db1")); diff != "" {
			t.Errorf("/etc (-before +after):\n%s", diff)
		}
	}
}
