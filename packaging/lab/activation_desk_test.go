//go:build lab

package lab

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// activation is a lab whose policy has roles that demand something, and the security key that it says is alice's.
type activation struct {
	settled
	touch signtest.SecurityKey
}

// withLimits is the lab's policy with such roles, on every host.
func withLimits(t *testing.T, touch ssh.Signer) string {
	t.Helper()
	text, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for old, now := range map[string]string{
		`alice: {keys: ["@alice@"]}`:     fmt.Sprintf("alice: {keys: [\"@alice@\", %q]}", signtest.Public(touch)),
		"approvers: [bob, carol, gwen]}": "approvers: [bob, carol, gwen], sre: [bob, carol], security: [carol, gwen]}",
		"    eligible: [engineers]\n    approvals: {count: 1, from: [approvers]}\n": "    eligible: [engineers] # of db-admin\n    approvals: {count: 1, from: [approvers]}\n",
	} {
		if strings.Count(changed, old) != 1 {
			t.Fatalf("policy.yaml does not say %q once", old)
		}
		changed = strings.Replace(changed, old, now, 1)
	}
	for role, says := range map[string]string{
		"vault": "approvals: [{count: 1, from: [sre]}, {count: 1, from: [security]}]",
		"glass": "approvals: {count: 1, from: [approvers]}\n    emergency: true",
		"coded": "approvals: {count: 1, from: [approvers]}\n    second_factor: {ask: totp, approve: none}",
		"touch": "approvals: {count: 1, from: [approvers]}\n    second_factor: {ask: security-key, approve: none}",
	} {
		changed += fmt.Sprintf("  %s:\n    hosts: any\n    accounts: [postgres]\n    sudo: [{as: postgres, commands: [ALL]}]\n    eligible: [engineers]\n    longest: 1h\n    %s\n", role, says)
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// root runs a shell line on a machine as root.
func (a activation) root(t testing.TB, machine, line string) labtest.Result {
	t.Helper()
	return a.Exec(t, machine, "sh", "-c", line)
}

// lab runs the lab program to its end.
func (a activation) lab(t *testing.T, args ...string) labtest.Result {
	t.Helper()
	return a.BeginLab(t, args...).Wait(t, 30*time.Second)
}

// revise has dave change words of the policy, sign it and publish it, and returns when the brokers had it.
func (a activation) revise(t *testing.T, old, now string) time.Time {
	t.Helper()
	text := string(a.Get(t, "desk", "/home/dave/policy.yaml"))
	if strings.Count(text, old) != 1 {
		t.Fatalf("dave's policy.yaml does not say %q once:\n%s", old, text)
	}
	a.Put(t, "desk", "/home/dave/policy.yaml", 0o644, []byte(strings.Replace(text, old, now, 1)))
	a.pim(t, "dave", "policy", "sign", "policy.yaml", "--yes", "-o", "next").Want(t, 0)
	a.pim(t, "dave", "policy", "apply", "next").Want(t, 0)
	return time.Now()
}

// sleeper starts a sudo run of alice's on db1, and waits until it runs.
func (a activation) sleeper(t *testing.T, marker string) {
	t.Helper()
	a.BeginLab(t, "exec", "db1", "--as", "alice", "--", "sudo", "-n", "-u", "postgres", "sh", "-c", "trap '' TERM HUP; sleep "+marker+"; true")
	a.starts(t, "db1", "sleep "+marker)
}

// gone wants it dead within 2 s of a moment.
func (a activation) gone(t *testing.T, marker string, begun time.Time) {
	t.Helper()
	labtest.WaitFor(t, "sleep "+marker+" dead", 2*time.Second-time.Since(begun), func() bool { return len(a.running(t, "db1", "sleep "+marker)) == 0 })
	t.Logf("what ran was dead after %v", time.Since(begun).Round(time.Millisecond))
}

// hold serves a key to a person at desk as an ssh-agent would, beside the one they have, and returns SSH_AUTH_SOCK=….
func (a activation) hold(t *testing.T, person string, keys ...ssh.Signer) string {
	t.Helper()
	behind := signtest.Agent(t, append(keys, a.private(t, person))...)
	dir, err := os.Open(filepath.Join(a.Tree(t, "desk"), "srv"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	name := "agent-" + forger.Nonce()[:8]
	here := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name) // the whole path is too long for a socket's
	l, err := net.Listen("unix", here)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(here, 0o666); err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go relay(conn, behind)
		}
	}()
	return "SSH_AUTH_SOCK=/srv/" + name
}

// relay joins a connection with a socket, until either ends.
func relay(conn net.Conn, socket string) {
	defer conn.Close()
	agent, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer agent.Close()
	go func() {
		_, _ = io.Copy(agent, conn)
		_ = agent.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, agent)
}

// private is a person's own key, off desk's disk.
func (a activation) private(t *testing.T, person string) ssh.Signer {
	t.Helper()
	text := a.Get(t, "desk", "/home/"+person+"/.ssh/id_ed25519")
	if block, _ := pem.Decode(text); block == nil {
		t.Fatalf("no key: %s", text)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// world is the lab's deployment with the keys of some of its people: what they sign here, their own pim-ssh would not.
func (a activation) world(t *testing.T, people ...string) *forger.World {
	t.Helper()
	w := &forger.World{T: t, People: map[statement.Person]ssh.Signer{}}
	for line := range bytes.Lines(a.Get(t, "desk", "/srv/chain")) {
		proof, err := statement.ParseProof(bytes.TrimSpace(line))
		if err == nil {
			w.Chain, err = policy.Genesis(proof)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, person := range people {
		w.People[statement.Person(person)] = a.private(t, person)
	}
	return w
}

var (
	otpauth  = regexp.MustCompile(`secret=([A-Z2-7]+)`)
	recovers = regexp.MustCompile(`(?m)^([a-z2-7]{5}-[a-z2-7]{5})\r?$`)
)

// enrol gives a person a second factor, and returns its secret, the code that enrolled it, and its recovery codes.
func (a activation) enrol(t *testing.T, person string) (secret, first string, recovery []string) {
	t.Helper()
	s := a.Begin(t, person, "pim-ssh", "totp", "enrol")
	s.Expect(t, "the code that it shows now", 10*time.Second)
	found := otpauth.FindStringSubmatch(s.Output())
	if found == nil {
		t.Fatalf("no secret in\n%s", s.Output())
	}
	first = code(t, found[1], 0)
	s.Type(t, first)
	got := s.Wait(t, 15*time.Second).Want(t, 0)
	for _, line := range recovers.FindAllStringSubmatch(got.Out, -1) {
		recovery = append(recovery, line[1])
	}
	if len(recovery) != 10 {
		t.Fatalf("%d recovery codes in\n%s", len(recovery), got.Out)
	}
	return found[1], first, recovery
}

// code is oathtool's code of the step of 30 s that is so many away from now.
func code(t *testing.T, secret string, step int) string {
	t.Helper()
	at := time.Now().Add(time.Duration(step) * 30 * time.Second).UTC().Format("2006-01-02 15:04:05 UTC")
	out, err := exec.Command("oathtool", "--totp", "-b", "-N", at, secret).Output()
	if err != nil {
		t.Fatalf("oathtool: %v", err)
	}
	return strings.TrimSpace(string(out))
}
