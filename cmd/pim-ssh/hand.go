package main

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/certs"
)

// A fresh key is made for every request and lives in memory. It is written, 0600 in the runtime directory and never
// elsewhere, only when this program stops waiting before the certificate is there, or when no ssh-agent takes it: the
// directory is memory on most machines and goes with the login, and an ssh-agent cannot give a bare key back to be
// joined with its certificate later. A key that got lost costs one more signature: `pim-ssh cert` names a new one.

// keyPath is where the fresh key of a request waits for its certificate.
func (d *desk) keyPath(stem broker.Stem) (string, error) {
	dir, err := d.runtimeDir()
	return filepath.Join(dir, string(stem.Grant())), err
}

// keep writes a fresh key for a later command to find.
func (d *desk) keep(stem broker.Stem, private ed25519.PrivateKey) error {
	path, err := d.keyPath(stem)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "pim-ssh "+string(stem.Grant()))
	if err != nil {
		return fmt.Errorf("encoding the fresh key: %w", err)
	}
	return writeFile(path, pem.EncodeToMemory(block), 0o600)
}

// kept reads a key that keep wrote; nil without error when there is none.
func (d *desk) kept(stem broker.Stem) (ed25519.PrivateKey, error) {
	path, err := d.keyPath(stem)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parsed, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	private, fits := parsed.(*ed25519.PrivateKey)
	if !fits {
		return nil, fmt.Errorf("key %s: not of ours", path)
	}
	return *private, nil
}

// dropKey removes a private key that is in the ssh-agent now.
func (d *desk) dropKey(stem broker.Stem) error {
	path, err := d.keyPath(stem)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// drop removes everything in the runtime directory that belongs to a grant.
func (d *desk) drop(stem broker.Stem) error {
	path, err := d.keyPath(stem)
	if err != nil {
		return err
	}
	var problems error
	for _, suffix := range []string{"", "-cert.pub", dossierSuffix} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = errors.Join(problems, err)
		}
	}
	return problems
}

// checked finds the certificate for the key among those a broker showed, and holds it to the grant that this program
// computed: principal, key, window, signed by a CA of the policy, nothing added. Anything else is not used.
func (p pin) checked(grant broker.Grant, shown []api.CertificateView, key statement.Key, now statement.Time) (*ssh.Certificate, error) {
	for _, view := range shown {
		if view.Key != key {
			continue
		}
		certificate, err := certs.Parse([]byte(view.Certificate))
		if err == nil {
			err = certs.Check(certificate, certs.Want{
				Principal: grant.Stem.Principal(), Keys: []statement.Key{key}, From: grant.From, Until: grant.Until,
				CAs: p.chain.Current().CAKeys(),
			}, max(now, grant.From))
		}
		if err != nil {
			return nil, denied("do not use it; tell an operator", "the broker's certificate for %s is not what was granted: %v", grant.ID, err)
		}
		return certificate, nil
	}
	return nil, missing("pim-ssh cert "+short(grant.ID), "the broker has no certificate for this key under %s", grant.ID)
}

// hand puts key and certificate where ssh finds them: into the ssh-agent until the window's end, else into the
// runtime directory. It says where.
func (d *desk) hand(grant broker.Grant, private ed25519.PrivateKey, certificate *ssh.Certificate) (string, error) {
	agent, err := d.dialSSHAgent()
	if err == nil {
		defer agent.Close()
		comment := fmt.Sprintf("pim-ssh %s %s", grant.ID, grant.Role)
		if err = agent.load(private, certificate, comment, d.clock()); err == nil {
			return "ssh-agent", d.dropKey(grant.Stem)
		}
	}
	if err := d.keep(grant.Stem, private); err != nil {
		return "", err
	}
	path, err := d.keyPath(grant.Stem)
	if err != nil {
		return "", err
	}
	return path, writeFile(path+"-cert.pub", ssh.MarshalAuthorizedKey(certificate), 0o600)
}

// inHand returns a certificate of the grant that ssh can use now, and where it is: "ssh-agent" or the key's path.
func (d *desk) inHand(p pin, grant broker.Grant) (*ssh.Certificate, string) {
	now := max(d.clock(), grant.From)
	good := func(certificate *ssh.Certificate) bool {
		return certs.Check(certificate, certs.Want{
			Principal: grant.Stem.Principal(), Keys: grant.Keys, From: grant.From, Until: grant.Until, CAs: p.chain.Current().CAKeys(),
		}, now) == nil
	}
	if agent, err := d.dialSSHAgent(); err == nil {
		defer agent.Close()
		held, _ := agent.certificates(grant.Stem.Principal())
		for _, certificate := range held {
			if good(certificate) {
				return certificate, "ssh-agent"
			}
		}
	}
	path, err := d.keyPath(grant.Stem)
	if err != nil {
		return nil, ""
	}
	line, err := os.ReadFile(path + "-cert.pub")
	if err != nil {
		return nil, ""
	}
	certificate, err := certs.Parse([]byte(strings.TrimSpace(string(line))))
	if err != nil || !good(certificate) {
		return nil, ""
	}
	if _, err := os.Stat(path); err != nil {
		return nil, ""
	}
	return certificate, path
}

// tidy takes certificates out of the ssh-agent whose grants are over by a broker's word: ssh offers every one it finds,
// and a server hears only so many. A word that is not true costs a `pim-ssh cert`.
func (c *contact) tidy(ctx context.Context) error {
	agent, err := c.dialSSHAgent()
	if err != nil {
		return nil // nothing is kept there
	}
	defer agent.Close()
	held, err := agent.grants(c.chain)
	if err != nil || len(held) == 0 {
		return err
	}
	client, err := c.as(ctx)
	if err != nil {
		return err
	}
	views, err := client.Grants(ctx)
	if err != nil {
		return err
	}
	for _, view := range views {
		if view.Phase == broker.PhaseWaiting || view.Phase == broker.PhaseActive {
			delete(held, "pim-"+string(view.ID))
		}
	}
	for principal := range held {
		err = errors.Join(err, agent.forget(principal))
	}
	return err
}

// letGo removes a grant's key and certificate from the ssh-agent and the runtime directory.
func (d *desk) letGo(stem broker.Stem) error {
	var problems error
	if agent, err := d.dialSSHAgent(); err == nil {
		defer agent.Close()
		problems = agent.forget(stem.Principal())
	}
	return errors.Join(problems, d.drop(stem))
}
