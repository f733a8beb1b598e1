package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/agent"

	"pim-ssh/broker/statement"
)

// TestUnwillingSSHAgentIsNotADeadBroker: the ssh-agent asks before each use, and nobody is there to say yes.
func TestUnwillingSSHAgentIsNotADeadBroker(t *testing.T) {
	o := startOwned(t, realIdentity)
	alice := newSeat(t, t.TempDir())
	alice.env["SSH_AUTH_SOCK"] = startSSHAgent(t)
	connection, err := dialSoon(alice.env["SSH_AUTH_SOCK"])
	o.must(err)
	defer connection.Close()
	o.must(agent.NewClient(connection).Add(agent.AddedKey{PrivateKey: o.keys["alice"], ConfirmBeforeUse: true}))
	o.join(alice, "alice")
	_, talk, code := alice.run("host", "list")
	if code != 3 || !strings.Contains(talk, "the ssh-agent does not sign with SHA256:") || strings.Contains(talk, "no broker") {
		t.Errorf("exit %d\n%s", code, talk)
	}
}

// TestEveryKindOfKeySignsStatementsThroughARealSSHAgent: rsa must come out as rsa-sha2-512, never as ssh-rsa.
func TestEveryKindOfKeySignsStatementsThroughARealSSHAgent(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	body := s.body(s.ask("alice", func(*statement.Request) {}))
	for name, arguments := range map[string][]string{
		"ed25519": {"-t", "ed25519"}, "ecdsa": {"-t", "ecdsa", "-b", "256"}, "rsa": {"-t", "rsa", "-b", "3072"},
	} {
		t.Run(name, func(t *testing.T) {
			seat := newSeat(t, t.TempDir())
			seat.env["SSH_AUTH_SOCK"] = startSSHAgent(t)
			path := filepath.Join(seat.dir, "id")
			for _, command := range []*exec.Cmd{
				exec.Command("ssh-keygen", append(arguments, "-q", "-N", "", "-f", path)...), exec.Command("ssh-add", "-q", path),
			} {
				command.Env = append(os.Environ(), "SSH_AUTH_SOCK="+seat.env["SSH_AUTH_SOCK"])
				if out, err := command.CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", command.Args, err, out)
				}
			}
			held, err := seat.desk().agentKeys()
			s.must(err)
			for _, signer := range held {
				if _, err := statement.Sign(body, signer); err != nil {
					t.Error(err)
				}
			}
			if len(held) != 1 {
				t.Errorf("%d keys, want 1", len(held))
			}
		})
	}
}
