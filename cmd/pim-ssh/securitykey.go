package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// touch is what a statement's signature must show beside the key.
type touch int

// The closed set of touches, each showing what those before it show.
const (
	noTouch  touch = iota
	present        // a security key's, touched
	verified       // and its holder verified by PIN or finger
)

// touchToCertify is what the role demands of the signature that names one more key for a certificate.
func touchToCertify(doc *policy.Document, r statement.Request) touch {
	if doc.Roles[r.Role].Factors.Ask == policy.SecurityKey {
		return verified
	}
	return touchToAsk(doc, r)
}

// touchToAsk is what the role demands of the signature on a request.
func touchToAsk(doc *policy.Document, r statement.Request) touch {
	role := doc.Roles[r.Role]
	switch {
	case doc.ActiveFor(r.Person, r.Role, r.Hosts, max(r.Created, r.At)):
		return noTouch
	case role.Factors.Ask == policy.SecurityKey:
		return verified
	case doc.V > 1 && role.Unapproved() && !role.PlainKey:
		return present
	}
	return noTouch
}

// pen finds the person's key to sign with: the one that was named, else one that can show the touch, else any.
func (c *contact) pen(ctx context.Context, by hand) (ssh.Signer, error) {
	if by == (hand{}) {
		return c.keyOfPerson(ctx)
	}
	entry, known := c.chain.Current().People[c.person]
	if !known {
		return nil, denied("ask a steward, or join again", "the policy no longer knows %s", c.person)
	}
	if by.key == "" {
		return c.securityKey(ctx, entry.Keys)
	}
	signer, err := c.chooseKey(ctx, by.key, entry.Keys)
	if err == nil && by.touch != noTouch && !isSecurityKey(signer.PublicKey()) {
		return nil, denied("ssh-add YOUR-SECURITY-KEY", "a security key must sign this, and %s is none", by.key)
	}
	return signer, err
}

// securityKey finds a security key of the person's: the one that was chosen at join, one in the ssh-agent, or one in ~/.ssh.
func (c *contact) securityKey(ctx context.Context, accepted []statement.Key) (ssh.Signer, error) {
	keys := slices.DeleteFunc(slices.Clone(accepted), func(key statement.Key) bool { return !key.SecurityKey() })
	if len(keys) == 0 {
		return nil, denied("ask a steward to add a key made with: ssh-keygen -t ed25519-sk -O verify-required",
			"a security key must sign this, and the policy lists none for you")
	}
	for _, wanted := range []string{c.pin.key, ""} {
		if signer, err := c.chooseKey(ctx, wanted, keys); err == nil {
			return signer, nil
		}
	}
	beside, _ := filepath.Glob(filepath.Join(c.env("HOME"), ".ssh", "*.pub"))
	for _, path := range beside {
		if signer, err := c.chooseKey(ctx, path, keys); err == nil {
			return signer, nil
		}
	}
	return nil, denied("plug it in and: ssh-add FILE, or name the file with --key FILE", "a security key must sign this: neither the ssh-agent nor ~/.ssh has one of yours")
}

func isSecurityKey(public ssh.PublicKey) bool {
	key, err := statement.KeyOf(public)
	return err == nil && key.SecurityKey()
}

// keyFile is a security key that no ssh-agent holds: ssh-keygen signs with it, and asks for PIN and touch.
type keyFile struct {
	path   string
	public ssh.PublicKey
}

// PublicKey returns the public half.
func (k *keyFile) PublicKey() ssh.PublicKey { return k.public }

// Sign fails: ssh-keygen signs whole statements only.
func (k *keyFile) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, denied("ssh-add "+k.path, "the security key %s signs this only from an ssh-agent", k.path)
}

// signStatement has ssh-keygen sign a statement, and opens the result.
func (k *keyFile) signStatement(ctx context.Context, d *desk, body statement.Body) (statement.Proof, error) {
	payload, err := statement.Encode(body)
	if err != nil {
		return statement.Proof{}, err
	}
	var armoured, said bytes.Buffer
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-Y", "sign", "-q", "-f", k.path, "-n", body.Header().Kind.Namespace())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(payload), &armoured, &said
	if d.noInput {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Env = append(os.Environ(), "SSH_ASKPASS_REQUIRE=never")
	}
	d.term.Say("touch the security key %s", k.path)
	if err := cmd.Run(); err != nil {
		return statement.Proof{}, denied("ssh-add "+k.path, "ssh-keygen does not sign with %s: %v: %s", k.path, err, strings.TrimSpace(said.String()))
	}
	signature, err := sshsig.Unarmor(armoured.Bytes())
	if err != nil {
		return statement.Proof{}, fmt.Errorf("the signature of ssh-keygen with %s: %w", k.path, err)
	}
	proof := statement.Proof{Payload: payload, Signatures: [][]byte{signature.Marshal()}}
	_, err = statement.Open(proof)
	return proof, err
}

// shows reports why a signature does not show the touch that a role demands, so that nobody files it in vain.
func (t touch) shows(proof statement.Proof) error {
	if t == noTouch {
		return nil
	}
	opened, err := statement.Open(proof)
	if err != nil {
		return err
	}
	switch signer := opened.Signers[0]; {
	case !signer.Presence:
		return denied("sign with your security key: --key FILE", "a security key must sign this, and %s is none", signer.Key.Fingerprint())
	case t == verified && !signer.Verified:
		return denied("ask a steward to add one made with: ssh-keygen -t ed25519-sk -O verify-required",
			"the security key %s saw a touch, but did not verify whose: this role wants its PIN or your finger", signer.Key.Fingerprint())
	}
	return nil
}
