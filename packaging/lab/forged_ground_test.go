//go:build lab

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

type forgerSigner = ssh.Signer

// ground is one host under attack: a root shell on it that stays open, its journal as it comes, and every door.
type ground struct {
	*siege
	host     string
	listens  hearing
	shell    *labtest.Session
	commands int
	journal  string // as far as it was read
}

// look opens the shell of a host. Its journal counts from here.
func (s *siege) look(t *testing.T, host string) *ground {
	t.Helper()
	g := &ground{siege: s, host: host, shell: s.BeginLab(t, "exec", host, "--", "bash")}
	g.do(t, "logger -t forged here begins the siege")
	g.said(t, 0, "here begins the siege")
	return g
}

// do runs a line in the shell and returns what it said.
func (g *ground) do(t testing.TB, line string) string {
	t.Helper()
	g.commands++
	from, end := len(g.shell.Output()), fmt.Sprintf("<end of %d>", g.commands)
	g.shell.Type(t, "{ "+line+"\n} </dev/null; echo '"+end+"'")
	if !labtest.Poll(20*time.Second, func() bool { return strings.Contains(g.shell.Output()[from:], end) }) {
		t.Fatalf("%s: %s: does not end\n%s", g.host, line, g.shell.Output()[from:])
	}
	out, _, _ := strings.Cut(g.shell.Output()[from:], end)
	return out
}

// read takes what is new in the journal. It asks journald, which tells those who follow four times a second only.
func (g *ground) read(t testing.TB) string {
	t.Helper()
	g.journal += g.do(t, "journalctl -q -o cat --no-pager --cursor-file=/run/forged _SYSTEMD_UNIT=pim-hostd.service + SYSLOG_IDENTIFIER=sshd + SYSLOG_IDENTIFIER=forged")
	return g.journal
}

// since is where the journal stands now.
func (g *ground) since(t testing.TB) int { return len(g.read(t)) }

// said wants words in the journal since a moment.
func (g *ground) said(t testing.TB, since int, why string) {
	t.Helper()
	if !strings.Contains(g.journal[since:], why) && !labtest.Poll(4*time.Second, func() bool { return strings.Contains(g.read(t)[since:], why) }) {
		t.Errorf("%s: the journal does not say %q, but:\n%s", g.host, why, g.journal[since:])
	}
}

// show puts a dossier before the host: into its spool, or down the wire it listens to.
func (g *ground) show(t testing.TB, d broker.Dossier) {
	t.Helper()
	if g.listens {
		g.wire.Show(d)
		return
	}
	g.putJSON(t, d, "dossiers", string(d.Stem())+".json")
	g.do(t, "systemctl reload pim-hostd")
}

func (g *ground) putJSON(t testing.TB, v any, name ...string) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	g.put(t, text, name...)
}

// login tries an account with an attacker's own client. A moment in which nobody listens is sshd reading its files again,
// which enforce has it do after each policy.
func (g *ground) login(t testing.TB, account string, offers ...ssh.Signer) (string, error) {
	t.Helper()
	var conn net.Conn
	g.Inside(t, func() (err error) {
		labtest.Poll(2*time.Second, func() bool {
			conn, err = net.Dial("tcp4", addresses[g.host]+":22")
			return !errors.Is(err, syscall.ECONNREFUSED)
		})
		return err
	})
	return forger.Login(conn, account, offers...)
}

// addresses of the lab's hosts.
var addresses = map[string]string{"db1": "10.77.0.21", "web1": "10.77.0.22", "h3": "10.77.0.23", "h4": "10.77.0.24"}

// entered tries a login and stops the test unless it was let in.
func (g *ground) entered(t testing.TB, account string, offer ssh.Signer) {
	t.Helper()
	if out, err := g.login(t, account, offer); err != nil || !strings.Contains(out, "("+account+")") {
		t.Fatalf("%s: %s, who is meant to enter, does not: %v\n%s\n%s", g.host, account, err, out, g.read(t))
	}
}

// turnedAway tries a login and wants it refused.
func (g *ground) turnedAway(t testing.TB, account string, offers ...ssh.Signer) {
	t.Helper()
	if out, err := g.login(t, account, offers...); err == nil || strings.Contains(out, "uid=") {
		t.Errorf("%s: ENTERED as %s: %v\n%s", g.host, account, err, out)
	}
}

// sudo runs id as each account as far as a person's sudo allows.
func (g *ground) sudo(t testing.TB, person statement.Person, accounts ...string) string {
	t.Helper()
	as := fmt.Sprintf("setpriv --reuid=%[1]s --regid=%[1]s --init-groups --reset-env sudo -n", person)
	line := as + " -i id"
	for _, account := range accounts {
		line += "; " + as + " -u " + account + " id"
	}
	return g.do(t, line)
}

// standing lists what stands on the host for a grant: its unit, its reaper, its sudo rules, its record.
func (g *ground) standing(t testing.TB, stem broker.Stem) string {
	t.Helper()
	return strings.TrimSpace(g.do(t, fmt.Sprintf("systemctl list-units --all --no-legend --plain 'pim-g-%[1]s*'; ls -d /run/pim-ssh/*/*%[1]s* 2>/dev/null", stem)))
}

// opens waits until a dossier's grant stands whole.
func (g *ground) opens(t testing.TB, d broker.Dossier) {
	t.Helper()
	g.said(t, 0, "grant open\" grant="+string(d.Stem().Grant()))
}

// closed waits until nothing of a dossier's grant stands.
func (g *ground) closed(t testing.TB, d broker.Dossier) {
	t.Helper()
	labtest.WaitFor(t, "nothing stands for "+string(d.Stem().Grant()), 5*time.Second, func() bool { return g.standing(t, d.Stem()) == "" })
}

// nothingStarts tries every door with a dossier in place and a certificate for it from the real CA.
func (g *ground) nothingStarts(t testing.TB, d broker.Dossier, person statement.Person, account string, offers ...ssh.Signer) {
	t.Helper()
	g.turnedAway(t, account, offers...)
	if out := g.sudo(t, person, "postgres", "root"); strings.Contains(out, "uid=") {
		t.Errorf("%s: SUDO for %s:\n%s", g.host, person, out)
	}
	if left := g.standing(t, d.Stem()); left != "" {
		t.Errorf("%s: STANDS for the forgery:\n%s", g.host, left)
	}
}

// honest proves that the host serves what people really signed, so that every refusal around it means something. What it
// opened is over when it returns.
func (g *ground) honest(t testing.TB) {
	t.Helper()
	key := forger.Key(t)
	d := g.w.Granted("erin", "keeper", hostName(g.host), 300, key, "gwen")
	g.show(t, d)
	g.opens(t, d)
	g.entered(t, "postgres", forger.Offer(t, g.w.Certificate(d, key, nil), key))
	if out := g.sudo(t, "erin", "postgres"); !strings.Contains(out, "(postgres)") {
		t.Fatalf("%s: erin's sudo, which was granted, does not work:\n%s", g.host, out)
	}
	d.Ended = &broker.Ended{How: broker.EndedByReturn, At: forger.Now()}
	g.show(t, d)
	g.closed(t, d)
}
