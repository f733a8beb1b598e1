package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
)

// devHosts are the machines of a dev deployment: enrolled, so that people can ask for them, and that is all. Their
// identity keys lie in DIR/hosts, so that a test can be one of them.
var devHosts = map[statement.HostName]string{"db1": "db", "web1": "web"}

// enrolHosts enrols what is not enrolled yet, over the front door: dave signs tokens, each host its own enrolment.
func (d *deployment) enrolHosts(ctx context.Context) error {
	reader := &api.Reader{Person: "dave", Deployment: d.chain.Deployment(), Policy: d.chain.Ref, Signer: d.people["dave"], Now: clock, Random: rand.Reader}
	client, err := api.NewClient(api.Config{Policy: d.chain.Current(), Reader: reader})
	if err != nil {
		return err
	}
	defer client.Close()
	known, err := client.Hosts(ctx)
	if err != nil {
		return err
	}
	for name, tier := range devHosts {
		if slices.ContainsFunc(known, func(h api.HostView) bool { return h.Name == name }) {
			continue
		}
		proof, err := d.enrolment(name, tier)
		if err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
		if _, err := client.Submit(ctx, proof); err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
	}
	return nil
}

func (d *deployment) enrolment(name statement.HostName, tier string) (statement.Proof, error) {
	_, once, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return statement.Proof{}, err
	}
	onceSigner, err := ssh.NewSignerFromSigner(once)
	if err != nil {
		return statement.Proof{}, err
	}
	onceKey, err := statement.KeyOf(onceSigner.PublicKey())
	if err != nil {
		return statement.Proof{}, err
	}
	identity, public, err := d.hostIdentity(name)
	if err != nil {
		return statement.Proof{}, err
	}
	head, err := d.head(statement.KindHostToken)
	if err != nil {
		return statement.Proof{}, err
	}
	head.Person = "dave"
	token, err := statement.Sign(statement.HostToken{
		Head: head, Name: name, Labels: map[string]string{"tier": tier}, Addresses: []string{string(name)}, Key: onceKey, Expires: head.NotAfter,
	}, d.people["dave"])
	if err != nil {
		return statement.Proof{}, err
	}
	if head, err = d.head(statement.KindEnrolment); err != nil {
		return statement.Proof{}, err
	}
	head.Host = name
	return statement.Sign(statement.Enrolment{
		Head: head, Token: token, MachineID: statement.HashOf([]byte("dev " + name)), Identity: public, HostKeys: []statement.Key{public},
	}, onceSigner, identity)
}

// hostIdentity reads or makes DIR/hosts/NAME.
func (d *deployment) hostIdentity(name statement.HostName) (ssh.Signer, statement.Key, error) {
	path := filepath.Join(d.dir, "hosts", string(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, "", err
	}
	public, err := makeKey(path, string(name))
	if err != nil {
		return nil, "", err
	}
	identity, err := signer.Open(path)
	return identity, public, err
}

func (d *deployment) head(kind statement.Kind) (statement.Head, error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return statement.Head{}, err
	}
	now := clock()
	return statement.Head{
		V: statement.Version, Kind: kind, Deployment: d.chain.Deployment(), Policy: d.chain.Ref(), Nonce: hex.EncodeToString(nonce[:]), Created: now, NotAfter: now + 3600,
	}, nil
}
