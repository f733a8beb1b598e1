//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// An otherDoor is a way into what is governed that goes past our own. It must open while the host only observes, or the row
// proves nothing; on an enforcing host it must not open, and where that hangs on one defence alone, enforce must refuse.
type otherDoor struct {
	sentence string
	plant    string // as root; what the machine's files were comes back after the row
	try      string // as alice; "uid=" in its output is an open door. Empty: what the door opens is not tried
	refused  []string
}

const (
	byKey       = "ssh $O -i /home/alice/door postgres@localhost id"
	byPassword  = `printf '#!/bin/sh\necho pw\n' >/tmp/askpass && chmod 755 /tmp/askpass; SSH_ASKPASS=/tmp/askpass SSH_ASKPASS_REQUIRE=force ssh $P postgres@localhost id`
	keyOfAlice  = "install -d -m 700 -o postgres ~postgres/.ssh && install -m 600 -o postgres /home/alice/door.pub ~postgres/.ssh/authorized_keys"
	aRule       = "echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/aa && chmod 440 /etc/sudoers.d/aa"
	ownKeysFile = "AuthorizedKeysFile .ssh/authorized_keys"
)

var otherDoors = []otherDoor{
	{sentence: "a key in authorized_keys", plant: keyOfAlice, try: byKey},
	{sentence: "a password, by ssh", plant: "echo postgres:pw | chpasswd", try: byPassword},
	{sentence: "a password, by su", plant: "echo postgres:pw | chpasswd", try: "echo pw | su postgres -c id"},
	{sentence: "hostbased", try: "ssh $O -o PreferredAuthentications=hostbased -o HostbasedAuthentication=yes postgres@localhost id",
		plant: `echo localhost alice >/etc/ssh/shosts.equiv; sed 's/^/localhost /' /etc/ssh/ssh_host_ed25519_key.pub >/etc/ssh/ssh_known_hosts; echo EnableSSHKeysign yes >>/etc/ssh/ssh_config
			printf 'HostbasedAuthentication yes\nHostbasedUsesNameFromPacketOnly yes\n' >/etc/ssh/sshd_config.d/50-hosts.conf`},
	{sentence: "a later Match", plant: keyOfAlice + "; printf 'Match User postgres\n" + ownKeysFile + "\n' >/etc/ssh/sshd_config.d/zz.conf", try: byKey},
	{sentence: "an earlier Match", plant: keyOfAlice + "; printf 'Match User postgres\n" + ownKeysFile + "\n' >/etc/ssh/sshd_config.d/00-a.conf", try: byKey,
		refused: []string{"/etc/ssh/sshd_config.d/00-a.conf line 2: authorizedkeysfile .ssh/authorized_keys, in Match User postgres, is read before", "try: take the line out of /etc/ssh/sshd_config.d/00-a.conf"}},
	{sentence: "an earlier Match that speaks of connections from elsewhere", plant: "printf 'Match Address 10.0.0.0/8\nChallengeResponseAuthentication=yes\n' >/etc/ssh/sshd_config.d/00-a.conf",
		refused: []string{"/etc/ssh/sshd_config.d/00-a.conf line 2: kbdinteractiveauthentication yes"}},
	{sentence: "a line above Include", plant: keyOfAlice + "; sed -i '1i " + ownKeysFile + "' /etc/ssh/sshd_config", try: byKey},
	{sentence: "Include for some connections only", plant: "sed -i '1i Match Address 127.0.0.1' /etc/ssh/sshd_config && sed -i 's/^UsePAM/Match all\\n&/; s/^Kbd.*\\|^Print.*\\|^X11.*\\|^Subsystem.*//' /etc/ssh/sshd_config",
		refused: []string{"/etc/ssh/sshd_config includes /etc/ssh/sshd_config.d/00-pim-ssh.conf for some connections only", "before the first Match"}},
	{sentence: "no Include", plant: keyOfAlice + "; sed -i /^Include/d /etc/ssh/sshd_config", try: byKey, refused: []string{"/etc/ssh/sshd_config does not include", "try: make this the first line of /etc/ssh/sshd_config: Include /etc/ssh/sshd_config.d/*.conf"}},
	{sentence: "a second sshd that asks PAM nothing", plant: keyOfAlice + "; printf 'Port 2222\nUsePAM no\n' >/etc/ssh/two; systemd-run -q --collect --unit=other-two /usr/sbin/sshd -D -f /etc/ssh/two",
		refused: []string{"/etc/ssh/two does not include", "first line of /etc/ssh/two"}},
	{sentence: "a second sshd that reads our file and asks PAM nothing", plant: "printf 'Include /etc/ssh/sshd_config.d/*.conf\nPort 2222\nUsePAM no\n' >/etc/ssh/two; systemd-run -q --collect --unit=other-two /usr/sbin/sshd -D -f /etc/ssh/two",
		refused: []string{"sshd -f /etc/ssh/two: UsePAM is off", "write UsePAM yes into /etc/ssh/two"}},
	{sentence: "a second sshd that nobody started by a unit", plant: "printf 'Port 2222\nUsePAM no\n' >/etc/ssh/two; systemd-run -q --collect --unit=other-two sh -c '/usr/sbin/sshd -f/etc/ssh/two; sleep infinity'",
		refused: []string{"/etc/ssh/two does not include"}},
	{sentence: "a second sshd that starts with the machine", plant: `printf 'Port 2222\nUsePAM no\n' >/etc/ssh/two; printf '[Service]\nExecStart=/usr/sbin/sshd -D -f /etc/ssh/two\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/other-two.service
		systemctl enable -q other-two`, refused: []string{"/etc/ssh/two does not include"}},
	{sentence: "an option of the one sshd", plant: onlyWith(strings.ReplaceAll(ownKeysFile, " ", "=")) + "; " + keyOfAlice, try: byKey},
	{sentence: "an option of the one sshd, which then asks PAM nothing", plant: onlyWith("UsePAM=no"), refused: []string{"sshd -o UsePAM=no: UsePAM is off", "command line"}},
	{sentence: "our CA for everybody", plant: "echo TrustedUserCAKeys /etc/ssh/pim-ssh-ca.pub >/etc/ssh/sshd_config.d/50-ca.conf",
		refused: []string{"/etc/ssh/sshd_config.d/50-ca.conf line 1: TrustedUserCAKeys /etc/ssh/pim-ssh-ca.pub lets certificates of our CA into accounts"}},
	{sentence: "a copy of our CA, for connections from elsewhere", plant: "cp /etc/ssh/pim-ssh-ca.pub /etc/ssh/cas.pub; printf 'Match Address 10.0.0.0/8\nTrustedUserCAKeys /etc/ssh/cas.pub\n' >/etc/ssh/sshd_config.d/50-ca.conf",
		refused: []string{"/etc/ssh/sshd_config.d/50-ca.conf line 2: TrustedUserCAKeys /etc/ssh/cas.pub", "our key out of /etc/ssh/cas.pub"}},
	{sentence: "a sudoers file behind ours", plant: aRule + "; mv /etc/sudoers.d/aa /etc/sudoers.d/zzz", try: "sudo -n id", refused: []string{"/etc/sudoers.d/zzz is read after ours", "try: rename it"}},
	{sentence: "an alias of a name that was ours", plant: aRule + "; echo 'User_Alias PIM_EXEMPT = alice' >>/etc/sudoers.d/aa", try: "sudo -n id"},
	{sentence: "sudo without PAM for a command", plant: aRule + "; echo 'Defaults!/usr/bin/id !pam_acct_mgmt, !pam_session' >>/etc/sudoers.d/aa", try: "sudo -n id"},
	{sentence: "another PAM service for sudo -A", plant: aRule + "; echo 'Defaults pam_askpass_service=lax' >>/etc/sudoers.d/aa; printf 'account required pam_permit.so\nsession required pam_permit.so\n' >/etc/pam.d/lax", try: "sudo -nA id"},
	{sentence: "rules from elsewhere", plant: "echo sudoers: files sss >>/etc/nsswitch.conf", refused: []string{`/etc/nsswitch.conf: "sudoers: files sss"`, "sudoers: files"}},
	{sentence: "another sudoers", plant: aRule + "; mv /etc/sudoers.d/aa /etc/sudoers-too; echo Plugin sudoers_policy sudoers.so sudoers_file=/etc/sudoers-too >>/etc/sudo.conf", try: "sudo -n id",
		refused: []string{"/etc/sudo.conf: ", "try: write into /etc/sudo.conf"}},
	{sentence: "sudo's stack without common-account", plant: aRule + "; sed -i s/^@include.common-account/account\\ required\\ pam_permit.so/ /etc/pam.d/sudo", try: "sudo -n id",
		refused: []string{"/etc/pam.d/sudo does not call pam_pim.so in its account phase", "put this line back into /etc/pam.d/sudo: @include common-account"}},
	{sentence: "sudo's stack without common-session", plant: "sed -i /common-session/d /etc/pam.d/sudo", refused: []string{"/etc/pam.d/sudo does not call pam_pim.so in its session phase"}},
	{sentence: "sshd's stack that ends before us", plant: "sed -i '1i account sufficient pam_permit.so' /etc/pam.d/sshd", refused: []string{`/etc/pam.d/sshd: "account sufficient pam_permit.so" may end sshd's account phase before`}},
	{sentence: "su's stack that jumps over us", plant: "sed -i '1i account [success=9 default=ignore] pam_permit.so' /etc/pam.d/su", refused: []string{`/etc/pam.d/su: "account [success=9 default=ignore] pam_permit.so" may end su's account phase`}},
	{sentence: "a session stack that ends before us", plant: "sed -i '0,/pam_pim.so/s/^.*pam_pim.so/session sufficient pam_permit.so\\n&/' /etc/pam.d/common-session", refused: []string{"/etc/pam.d/common-session: \"session sufficient pam_permit.so\" may end"}},
	{sentence: "an account stack that asks us last", plant: "sed -i '0,/pam_pim.so/s/^.*pam_pim.so/account sufficient pam_unix.so\\n&/' /etc/pam.d/common-account", refused: []string{"/etc/pam.d/common-account does not call pam_pim.so first"}},
}

// onlyWith starts the machine's one sshd with an option that goes before its file.
func onlyWith(option string) string {
	return "systemctl stop ssh; mkdir -p /run/sshd; systemd-run -q --collect --unit=other-two /usr/sbin/sshd -D -o " + option
}

// TestOtherDoors plants each way past us on a host that enforces: either it does not open, or enforce refuses and names the
// file and what to do.
func TestOtherDoors(t *testing.T) {
	t.Parallel()
	hosts := []string{"db1", "web1", "h3"} // side by side, each with its share of the doors
	s := newStage(t, forger.New(t, nil), hosts)
	for i, host := range hosts {
		t.Run("on "+host, func(t *testing.T) {
			t.Parallel()
			s.root(t, host, "ssh-keygen -q -t ed25519 -N '' -f /home/alice/door && chown alice: /home/alice/door*; tar -C / -cf /root/before etc").Want(t, 0)
			for j := i; j < len(otherDoors); j += len(hosts) {
				d := otherDoors[j]
				t.Run(d.sentence, func(t *testing.T) { s.otherDoor(t, host, d) })
			}
			s.root(t, host, "pim-hostd enforce").Want(t, 0)
		})
	}
}

func (s *stage) otherDoor(t *testing.T, host string, d otherDoor) {
	defer s.asBefore(t, host)
	if d.try != "" {
		s.root(t, host, "pim-hostd observe").Want(t, 0)
		s.plant(t, host, d)
		labtest.WaitFor(t, "the door to open on a host that observes", 5*time.Second, func() bool { return s.stands(t, host, d) })
		s.asBefore(t, host)
	}
	s.plant(t, host, d)
	if d.try != "" && s.stands(t, host, d) {
		t.Error("it opens, and nobody was asked")
	}
	if len(d.refused) == 0 {
		s.root(t, host, "pim-hostd enforce").Want(t, 0)
		if s.stands(t, host, d) {
			t.Error("it opens after another enforce")
		}
		return
	}
	var got labtest.Result
	labtest.WaitFor(t, "enforce to refuse", 5*time.Second, func() bool {
		got = s.root(t, host, "pim-hostd enforce")
		return got.Code == 1
	})
	for _, want := range d.refused {
		if !strings.Contains(got.Err, want) {
			t.Errorf("want %q in\n%s", want, got.Err)
		}
	}
}

func (s *stage) plant(t *testing.T, host string, d otherDoor) {
	t.Helper()
	s.root(t, host, "("+d.plant+"); systemctl daemon-reload; systemctl try-reload-or-restart ssh").Want(t, 0)
}

func (s *stage) stands(t *testing.T, host string, d otherDoor) bool {
	t.Helper()
	const options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5 -o IdentityAgent=none"
	got := s.ExecAs(t, host, "alice", "sh", "-c", "P='"+options+" -o PreferredAuthentications=password,keyboard-interactive'; O='-o BatchMode=yes "+options+"'; "+d.try)
	return strings.Contains(got.Out, "uid=")
}

// asBefore gives the machine back as it was when it enforced, and only that: what enforce says afterwards is the next row's.
func (s *stage) asBefore(t *testing.T, host string) {
	t.Helper()
	s.root(t, host, `systemctl stop other-two 2>/dev/null; rm -rf /etc/ssh /etc/pam.d /etc/sudoers.d /etc/systemd/system/other-two.service /etc/systemd/system/*/other-two.service /etc/sudoers-too ~postgres/.ssh
		tar -C / -xpf /root/before && systemctl daemon-reload && systemctl restart ssh && pim-hostd enforce`).Want(t, 0)
}

// TestSudoIsPlacedWhateverSudoersSays: a run under a grant sits in the grant's unit also where sudoers tells sudo, for that
// command or that person, to leave PAM out.
func TestSudoIsPlacedWhateverSudoersSays(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	s.opened(t, "db1", s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 600, newKey(t), "bob")))
	for _, scope := range []string{"!/usr/bin/cat", "!ALL", ":alice", ">postgres", "@ALL", ""} {
		s.Put(t, "db1", "/etc/sudoers.d/aa", 0o440, []byte("Defaults"+scope+" !pam_acct_mgmt, !pam_session, !pam_setcred, pam_service=lax\n"))
		s.root(t, "db1", "visudo -cq").Want(t, 0)
		if got := s.ExecAs(t, "db1", "alice", "sudo", "-n", "-u", "postgres", "cat", "/proc/self/cgroup"); !strings.Contains(got.Out, "/pim-g-") {
			t.Errorf("Defaults%s: outside every grant's unit, exit %d: %s%s", scope, got.Code, got.Out, got.Err)
		}
	}
}
