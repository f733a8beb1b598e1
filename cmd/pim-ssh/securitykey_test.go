package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// TestASecurityKeyInTheHomeDirectoryIsFound where no ssh-agent holds it: ssh-keygen is to sign with it.
func TestASecurityKeyInTheHomeDirectoryIsFound(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	token := signtest.SecurityEd25519("alice")
	public, err := statement.KeyOf(token.PublicKey())
	s.must(err)
	s.chain, err = s.chain.Advance(s.revise(s.chain, func(doc *policy.Document) {
		people := map[statement.Person]policy.PersonEntry{}
		for person, entry := range doc.People {
			people[person] = entry
		}
		people["alice"] = policy.PersonEntry{Keys: append([]statement.Key{public}, doc.People["alice"].Keys...), Account: "alice"}
		doc.People = people
	}))
	s.must(err)
	alice := newSeat(t, t.TempDir())
	alice.env["SSH_AUTH_SOCK"] = startSSHAgent(t, s.keys["alice"])
	c := &contact{desk: alice.desk("--no-input"), pin: s.pinned("alice")}
	if _, err := c.pen(t.Context(), hand{touch: verified}); exitCode(err) != 3 {
		t.Errorf("without one: %v", err)
	}
	dir := filepath.Join(alice.dir, "home", ".ssh")
	s.must(os.Mkdir(dir, 0o700))
	s.must(os.WriteFile(filepath.Join(dir, "id_ed25519_sk.pub"), ssh.MarshalAuthorizedKey(token.PublicKey()), 0o644))
	signer, err := c.pen(t.Context(), hand{touch: verified})
	s.must(err)
	if file, isFile := signer.(*keyFile); !isFile || file.path != filepath.Join(dir, "id_ed25519_sk") {
		t.Errorf("found %#v", signer)
	}
}

// TestSSHKeygenSignsStatements as security keys in files need it; with a plain key, which needs no hardware.
func TestSSHKeygenSignsStatements(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	seat := newSeat(t, t.TempDir())
	file := &keyFile{path: s.keyfile(seat.dir, s.keys["alice"], ""), public: s.signer(s.keys["alice"]).PublicKey()}
	proof, err := file.signStatement(t.Context(), seat.desk("--no-input"), s.body(s.ask("alice", func(*statement.Request) {})))
	s.must(err)
	opened, err := statement.Open(proof)
	s.must(err)
	if opened.Signers[0].Key != s.public(s.keys["alice"]) {
		t.Errorf("signed by %s", opened.Signers[0].Key)
	}
	if err := verified.shows(proof); exitCode(err) != 3 {
		t.Errorf("a plain key shows no touch, and is taken: %v", err)
	}
	sealed := &keyFile{path: s.keyfile(t.TempDir(), s.keys["alice"], "secret"), public: file.public}
	if _, err := sealed.signStatement(t.Context(), seat.desk("--no-input"), opened.Body); exitCode(err) != 3 {
		t.Errorf("a sealed file with nobody to ask: %v", err)
	}
}
