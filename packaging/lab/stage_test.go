//go:build lab

package lab

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// stage is a lab whose hosts run the agent and no broker: every proof reaches them through their spool, from a world
// whose every key the test holds.
type stage struct {
	*labtest.Lab
	w *forger.World
}

// newStage boots machines that have the package and makes each named one an enforcing host of the world.
func newStage(t *testing.T, w *forger.World, hosts []string, flags ...string) *stage {
	t.Helper()
	s := &stage{labtest.Up(t, append([]string{"--brokers", "0", "--hosts", fmt.Sprint(max(1, len(hosts)))}, flags...)...), w}
	for _, h := range hosts {
		s.enrol(t, h, map[string]string{"tier": "db"})
		s.root(t, h, "pim-hostd enforce").Want(t, 0)
	}
	return s
}

// enrol enrols and starts the agent; the host observes.
func (s *stage) enrol(t *testing.T, machine string, labels map[string]string) {
	t.Helper()
	s.Put(t, machine, "/root/token", 0o600, s.w.Token(statement.HostName(machine), labels))
	s.root(t, machine, "id postgres >/dev/null 2>&1 || useradd -m -s /bin/bash postgres").Want(t, 0)
	s.root(t, machine, "pim-hostd enrol /root/token && systemctl enable --now pim-hostd.socket pim-hostd.service").Want(t, 0)
}

// root runs a shell line on a machine as root.
func (s *stage) root(t testing.TB, machine, line string) labtest.Result {
	t.Helper()
	return s.Exec(t, machine, "sh", "-c", line)
}

// feed puts a dossier into a host's spool and has the agent read it.
func (s *stage) feed(t testing.TB, machine string, d broker.Dossier) broker.Stem {
	t.Helper()
	stem := broker.StemOf(d.Request.Hash())
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	s.Put(t, machine, "/var/lib/pim-ssh/host/dossiers/"+string(stem)+".json", 0o600, text)
	s.root(t, machine, "systemctl reload pim-hostd").Want(t, 0)
	return stem
}

// opened waits until the grant's unit runs on the machine.
func (s *stage) opened(t testing.TB, machine string, stem broker.Stem) {
	t.Helper()
	labtest.WaitFor(t, "unit of "+string(stem)+" on "+machine, 5*time.Second, func() bool {
		return s.Exec(t, machine, "systemctl", "is-active", "-q", stem.Unit()).Code == 0 &&
			s.Exec(t, machine, "test", "-e", "/run/pim-ssh/sudoers.d/"+stem.SudoersFile()).Code == 0
	})
}

// carry places a key and its certificate where alice on that machine (desk or a host) can use them, and returns ssh's options:
// ssh finds the certificate beside the key, and naming it too would offer it twice.
func (s *stage) carry(t testing.TB, machine, name string, key forgerKey, cert *ssh.Certificate) []string {
	t.Helper()
	path := "/home/alice/" + name
	s.Put(t, machine, path, 0o600, key.pem(t))
	s.Put(t, machine, path+"-cert.pub", 0o644, ssh.MarshalAuthorizedKey(cert))
	s.root(t, machine, "chown alice: "+path+" "+path+"-cert.pub").Want(t, 0)
	return []string{"-i", path, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5"}
}

// forgerKey is a key whose private half a machine may be given.
type forgerKey struct {
	ssh.Signer
	private any
}

func newKey(t testing.TB) forgerKey {
	t.Helper()
	private, signer := forger.PrivateKey(t)
	return forgerKey{signer, private}
}

func (k forgerKey) pem(t testing.TB) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(k.private, "")
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// alive lists the processes on a machine whose command line holds the marker, outside of the command that looks.
func (s *stage) alive(t testing.TB, machine, pattern string) string {
	t.Helper()
	return strings.TrimSpace(s.root(t, machine, "ps -eo pid,user:12,cgroup:60,args | grep -E -- '"+pattern+"' | grep -v 'grep -E'").Out)
}
