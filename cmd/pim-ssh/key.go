package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

const keyHint = "ssh-add YOURKEY, or join again with --key FILE"

// keyOf is the public half of a private key of ours.
func keyOf(private ed25519.PrivateKey) (statement.Key, error) {
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return statement.KeyOf(public)
}

// chooseKey finds the key that speaks for its owner: among accepted, in the ssh-agent first, else in a file. Wanted is
// "" (any), a SHA256 fingerprint, or a path to a private or public key.
func (d *desk) chooseKey(ctx context.Context, wanted string, accepted []statement.Key) (ssh.Signer, error) {
	inAgent, agentErr := d.agentKeys()
	if wanted != "" && !strings.HasPrefix(wanted, "SHA256:") {
		return d.keyFromFile(ctx, wanted, accepted, inAgent)
	}
	for _, key := range accepted {
		signer, held := inAgent[key]
		if held && (wanted == "" || key.Fingerprint() == wanted) {
			return signer, nil
		}
	}
	if agentErr != nil {
		return nil, invalid("eval $(ssh-agent); ssh-add, or join again with --key FILE", "%v", agentErr)
	}
	if wanted != "" {
		return nil, denied(keyHint, "key %s is not in the ssh-agent, or not yours in the policy", wanted)
	}
	return nil, denied(keyHint, "the ssh-agent holds none of the keys that the policy lists for you")
}

// agentKeys are the ssh-agent's signers. The connection lives as long as the program: signers use it.
func (d *desk) agentKeys() (map[statement.Key]ssh.Signer, error) {
	connected, err := d.dialSSHAgent()
	if err != nil {
		return nil, err
	}
	return connected.signers()
}

func (d *desk) keyFromFile(ctx context.Context, path string, accepted []statement.Key, inAgent map[statement.Key]ssh.Signer) (ssh.Signer, error) {
	sealed := &sealedKey{desk: d, path: strings.TrimSuffix(path, ".pub"), ctx: func() context.Context { return ctx }}
	key, err := sealed.readPublic(path)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(accepted, key) {
		return nil, denied("ask a steward to add it to the policy", "key %s in %s is not yours in the policy", key.Fingerprint(), path)
	}
	if signer, held := inAgent[key]; held {
		return signer, nil
	}
	if key.SecurityKey() {
		return &keyFile{path: sealed.path, public: sealed.public}, nil
	}
	return sealed, nil
}

// sealedKey is a private key in a file. Its passphrase is asked for at the first signature, not before.
type sealedKey struct {
	desk   *desk
	path   string
	ctx    func() context.Context
	public ssh.PublicKey
	signer ssh.AlgorithmSigner // nil until the first signature
}

// readPublic learns the public key from a .pub file beside the private one, or from the private file itself.
func (k *sealedKey) readPublic(path string) (statement.Key, error) {
	for _, candidate := range []string{k.path + ".pub", path} {
		data, err := os.ReadFile(candidate)
		if err != nil {
			continue
		}
		if public, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
			k.public = public
			return statement.KeyOf(public)
		}
	}
	data, err := os.ReadFile(k.path)
	if err != nil {
		return "", invalid("pim-ssh join CHAINFILE --key FILE", "reading the key: %v", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		k.public = signer.PublicKey()
	case errors.As(err, &locked) && locked.PublicKey != nil:
		k.public = locked.PublicKey
	default:
		return "", invalid("ssh-add "+k.path, "key %s: %v", k.path, err)
	}
	return statement.KeyOf(k.public)
}

// PublicKey returns the public half, which needs no passphrase.
func (k *sealedKey) PublicKey() ssh.PublicKey { return k.public }

// Sign signs with the algorithm that fits the key.
func (k *sealedKey) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(random, data, "")
}

// SignWithAlgorithm opens the key if that has not happened yet, and signs.
func (k *sealedKey) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if k.signer == nil {
		if err := k.unlock(); err != nil {
			return nil, err
		}
	}
	return k.signer.SignWithAlgorithm(random, data, algorithm)
}

func (k *sealedKey) unlock() error {
	data, err := os.ReadFile(k.path)
	if err != nil {
		return invalid(keyHint, "reading the key: %v", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		signer, err = k.askAndParse(data)
	}
	if err != nil {
		return err
	}
	algorithmic, fits := signer.(ssh.AlgorithmSigner)
	if !fits || string(signer.PublicKey().Marshal()) != string(k.public.Marshal()) {
		return invalid(keyHint, "key %s does not match its .pub file, or cannot sign here", k.path)
	}
	k.signer = algorithmic
	return nil
}

func (k *sealedKey) askAndParse(data []byte) (ssh.Signer, error) {
	passphrase, err := k.desk.term.Passphrase(k.ctx(), "passphrase for "+k.path)
	if errors.Is(err, term.ErrNoInput) {
		return nil, usage("ssh-add "+k.path, "key %s needs its passphrase: %v", k.path, err)
	}
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKeyWithPassphrase(data, passphrase)
	if err != nil {
		return nil, invalid("try again, or ssh-add "+k.path, "that is not the passphrase of %s", k.path)
	}
	return signer, nil
}
