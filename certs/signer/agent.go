package signer

import (
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"pim-ssh/broker/statement"
)

// patience is how long one ssh-agent answer may take: long enough for a touch, short enough that a hung socket
// does not hold up the broker for ever.
const patience = 15 * time.Second

// remote signs with a key that an ssh-agent holds. It dials for every signature, so an ssh-agent that was
// restarted is simply found again. Safe for concurrent use.
type remote struct {
	socket string
	public ssh.PublicKey
}

func openAgent(socket, fingerprint string) (ssh.Signer, error) {
	var found ssh.PublicKey
	err := ask(socket, func(client agent.ExtendedAgent) error {
		keys, err := client.List()
		if err != nil {
			return err
		}
		for _, k := range keys {
			public, err := ssh.ParsePublicKey(k.Blob)
			if err == nil && ssh.FingerprintSHA256(public) == fingerprint {
				found = public
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ca key: %w", err)
	}
	if found == nil {
		return nil, fmt.Errorf("ca key: ssh-agent at %s holds no %s: load it with ssh-add", socket, fingerprint)
	}
	if _, err := statement.KeyOf(found); err != nil {
		return nil, fmt.Errorf("ca key: %w", err)
	}
	return remote{socket, found}, nil
}

// PublicKey returns the public half as the ssh-agent showed it when opened.
func (r remote) PublicKey() ssh.PublicKey { return r.public }

// Sign signs with the key's default algorithm: for rsa that is rsa-sha2-512, never sha1.
func (r remote) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return r.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm signs with one of the algorithms of Algorithms, or with the default for "".
func (r remote) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	want := r.Algorithms()[0]
	if algorithm != "" && algorithm != want {
		return nil, fmt.Errorf("ca key: algorithm %s: want %s", algorithm, want)
	}
	var flags agent.SignatureFlags
	if want == ssh.KeyAlgoRSASHA512 {
		flags = agent.SignatureFlagRsaSha512
	}
	var sig *ssh.Signature
	err := ask(r.socket, func(client agent.ExtendedAgent) (err error) {
		sig, err = client.SignWithFlags(r.public, data, flags)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ca key: %w", err)
	}
	return sig, nil
}

// Algorithms returns the one signature algorithm this signer uses.
func (r remote) Algorithms() []string {
	if r.public.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512}
	}
	return []string{r.public.Type()}
}

func ask(socket string, question func(agent.ExtendedAgent) error) error {
	conn, err := net.DialTimeout("unix", socket, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := question(agent.NewClient(conn)); err != nil {
		return fmt.Errorf("ssh-agent at %s: %w", socket, err)
	}
	return nil
}
