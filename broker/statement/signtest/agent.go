package signtest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Agent serves signers, security keys among them, on an ssh-agent socket until the test ends, and returns the
// socket's path for SSH_AUTH_SOCK. It holds no other keys and takes none.
func Agent(t testing.TB, signers ...ssh.Signer) string {
	t.Helper()
	return Serve(t, func(conn net.Conn) { _ = agent.ServeAgent(keyring{signers: signers}, conn) })
}

// Serve has each connection to a socket answered, side by side, until the test ends, and returns the socket's path. Each is
// closed when answer returns.
func Serve(t testing.TB, answer func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // t.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		os.RemoveAll(dir)
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer(conn)
			}()
		}
	}()
	return socket
}

// keyring is an agent.ExtendedAgent that answers List and Sign.
type keyring struct{ signers []ssh.Signer }

var errOnlySigns = errors.New("this ssh-agent only lists and signs")

func (k keyring) List() ([]*agent.Key, error) {
	var keys []*agent.Key
	for _, s := range k.signers {
		keys = append(keys, &agent.Key{Format: s.PublicKey().Type(), Blob: s.PublicKey().Marshal()})
	}
	return keys, nil
}

func (k keyring) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return k.SignWithFlags(key, data, 0)
}

func (k keyring) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	for _, s := range k.signers {
		if !bytes.Equal(s.PublicKey().Marshal(), key.Marshal()) {
			continue
		}
		algorithms, ok := s.(ssh.AlgorithmSigner)
		switch {
		case ok && flags&agent.SignatureFlagRsaSha512 != 0:
			return algorithms.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
		case ok && flags&agent.SignatureFlagRsaSha256 != 0:
			return algorithms.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA256)
		}
		return s.Sign(rand.Reader, data)
	}
	return nil, errors.New("no such key")
}

func (k keyring) Add(agent.AddedKey) error                 { return errOnlySigns }
func (k keyring) Remove(ssh.PublicKey) error               { return errOnlySigns }
func (k keyring) RemoveAll() error                         { return errOnlySigns }
func (k keyring) Lock([]byte) error                        { return errOnlySigns }
func (k keyring) Unlock([]byte) error                      { return errOnlySigns }
func (k keyring) Signers() ([]ssh.Signer, error)           { return k.signers, nil }
func (k keyring) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }
