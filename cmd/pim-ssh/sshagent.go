package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// sshAgent is a connection to the person's ssh-agent.
type sshAgent struct {
	agent.ExtendedAgent
	connection net.Conn
}

var errNoSSHAgent = errors.New("no ssh-agent is running here")

// dialSSHAgent connects to SSH_AUTH_SOCK; without one it fails with errNoSSHAgent. The caller closes it.
func (d *desk) dialSSHAgent() (*sshAgent, error) {
	socket := d.env("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errNoSSHAgent
	}
	connection, err := net.DialTimeout("unix", socket, 3*time.Second)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoSSHAgent, err)
	}
	return &sshAgent{agent.NewClient(connection), connection}, nil
}

func (a *sshAgent) Close() error { return a.connection.Close() }

// signers returns the plain keys in the ssh-agent of types that may sign statements; certificates and others are left out.
func (a *sshAgent) signers() (map[statement.Key]ssh.Signer, error) {
	listed, err := a.Signers()
	if err != nil {
		return nil, fmt.Errorf("listing the ssh-agent's keys: %w", err)
	}
	found := map[statement.Key]ssh.Signer{}
	for _, signer := range listed {
		algorithmic, isAlgorithmic := signer.(ssh.AlgorithmSigner)
		public, err := ssh.ParsePublicKey(signer.PublicKey().Marshal())
		if err != nil || !isAlgorithmic {
			continue
		}
		if key, err := statement.KeyOf(public); err == nil {
			found[key] = agentSigner{algorithmic, public}
		}
	}
	return found, nil
}

// agentSigner is a signer of the ssh-agent whose public key is the parsed one: the library hands out a blob.
type agentSigner struct {
	ssh.AlgorithmSigner
	public ssh.PublicKey
}

func (s agentSigner) PublicKey() ssh.PublicKey { return s.public }

// Sign signs with the algorithm that fits the key.
func (s agentSigner) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(random, data, "")
}

// SignWithAlgorithm has the ssh-agent sign; its refusal keeps its own words through whatever else fails because of it.
func (s agentSigner) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signature, err := s.AlgorithmSigner.SignWithAlgorithm(random, data, algorithm)
	if err != nil {
		return nil, &unwilling{s.public, err}
	}
	return signature, nil
}

// unwilling is an ssh-agent that holds a key and does not sign with it: locked, or its person said no.
type unwilling struct {
	key ssh.PublicKey
	err error
}

func (e *unwilling) Error() string {
	return fmt.Sprintf("the ssh-agent does not sign with %s: %v", ssh.FingerprintSHA256(e.key), e.err)
}

func (e *unwilling) Unwrap() error { return e.err }

// load adds a private key with its certificate until the certificate's end.
func (a *sshAgent) load(private ed25519.PrivateKey, certificate *ssh.Certificate, comment string, now statement.Time) error {
	left := statement.Time(certificate.ValidBefore).Sub(now)
	if left <= 0 {
		return errors.New("the certificate is already over")
	}
	err := a.Add(agent.AddedKey{PrivateKey: private, Certificate: certificate, Comment: comment, LifetimeSecs: uint32(left)})
	if err != nil {
		return fmt.Errorf("loading the certificate into the ssh-agent: %w", err)
	}
	return nil
}

// certificates returns the certificates in the ssh-agent that name the principal.
func (a *sshAgent) certificates(principal string) ([]*ssh.Certificate, error) {
	held, err := a.everyCertificate()
	return slices.DeleteFunc(held, func(c *ssh.Certificate) bool { return c.ValidPrincipals[0] != principal }), err
}

// grants returns the principals of the certificates in the ssh-agent that a CA of the policy, current or past, signed.
func (a *sshAgent) grants(chain policy.Chain) (map[string]bool, error) {
	held, err := a.everyCertificate()
	found := map[string]bool{}
	for _, certificate := range held {
		ca, unfit := statement.KeyOf(certificate.SignatureKey)
		for revision := uint64(1); unfit == nil && revision <= chain.Ref().Revision; revision++ {
			doc, _ := chain.At(revision)
			if slices.Contains(doc.CAKeys(), ca) {
				found[certificate.ValidPrincipals[0]] = true
			}
		}
	}
	return found, err
}

// everyCertificate returns the certificates in the ssh-agent that name one principal, as all of ours do.
func (a *sshAgent) everyCertificate() ([]*ssh.Certificate, error) {
	listed, err := a.List()
	if err != nil {
		return nil, fmt.Errorf("listing the ssh-agent's keys: %w", err)
	}
	var found []*ssh.Certificate
	for _, held := range listed {
		public, err := ssh.ParsePublicKey(held.Blob)
		if err != nil {
			continue
		}
		certificate, isCertificate := public.(*ssh.Certificate)
		if isCertificate && len(certificate.ValidPrincipals) == 1 {
			found = append(found, certificate)
		}
	}
	return found, nil
}

// forget removes every certificate of the principal.
func (a *sshAgent) forget(principal string) error {
	held, err := a.certificates(principal)
	for _, certificate := range held {
		err = errors.Join(err, a.Remove(certificate))
	}
	return err
}

var _ io.Closer = (*sshAgent)(nil)
