package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// readingFor is how long one touch of a security key, or one passphrase, lets this login read.
const readingFor statement.Seconds = 12 * 60 * 60

// readKey is the file "session" in the runtime directory: a key that may sign reads and nothing else.
type readKey struct {
	Seed    []byte          `json:"seed"`
	Session statement.Proof `json:"session"`
}

// reader signs reads with the person's key; with a session's key where each signature of the person's costs a touch or a
// passphrase.
func (c *contact) reader(ctx context.Context) (*api.Reader, error) {
	signer, err := c.keyOfPerson(ctx)
	if err != nil {
		return nil, err
	}
	reader := &api.Reader{
		Person: c.person, Deployment: c.chain.Deployment(), Policy: c.chain.Ref, Signer: signer,
		Now: c.clock, Random: c.random,
	}
	key, err := statement.KeyOf(signer.PublicKey())
	if err != nil {
		return nil, err
	}
	if _, sealed := signer.(*sealedKey); !sealed && !key.SecurityKey() {
		return reader, nil
	}
	session, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	reader.Session = &session.Session
	reader.Signer, err = ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(session.Seed))
	return reader, err
}

// session returns the one in the runtime directory while it is good, else makes a new one.
func (c *contact) session(ctx context.Context) (readKey, error) {
	dir, err := c.runtimeDir()
	if err != nil {
		return readKey{}, err
	}
	path := filepath.Join(dir, "session")
	if kept, err := c.keptSession(path); err == nil {
		return kept, nil
	}
	head, err := c.head(statement.KindSession, readingFor)
	if err != nil {
		return readKey{}, err
	}
	private, key, err := c.freshKey()
	if err != nil {
		return readKey{}, err
	}
	proof, err := c.sign(ctx, statement.Session{Head: head, Key: key, Until: head.Created.Add(readingFor)}, hand{})
	if err != nil {
		return readKey{}, err
	}
	fresh := readKey{Seed: private.Seed(), Session: proof}
	data, err := json.Marshal(fresh)
	if err != nil {
		return readKey{}, err
	}
	return fresh, writeFile(path, data, 0o600)
}

var errStaleSession = errors.New("the session is over or somebody else's")

// keptSession reads the file and holds it to this person, deployment and moment.
func (c *contact) keptSession(path string) (readKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return readKey{}, err
	}
	var kept readKey
	if err := statement.DecodeStrict(data, &kept); err != nil {
		return readKey{}, err
	}
	opened, err := statement.Open(kept.Session)
	if err != nil {
		return readKey{}, err
	}
	session, fits := opened.Body.(statement.Session)
	if !fits || len(kept.Seed) != ed25519.SeedSize {
		return readKey{}, errStaleSession
	}
	key, err := keyOf(ed25519.NewKeyFromSeed(kept.Seed))
	if err != nil || key != session.Key || session.Person != c.person || session.Deployment != c.chain.Deployment() {
		return readKey{}, errStaleSession
	}
	if !c.chain.Current().HoldsKey(c.person, opened.Signers[0].Key) || c.clock().Add(60) >= session.Until {
		return readKey{}, errStaleSession
	}
	return kept, nil
}
