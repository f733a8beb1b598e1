package main

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// keyfile writes a private key and its .pub beside it, and returns its path.
func (s *scene) keyfile(dir string, key ed25519.PrivateKey, passphrase string) string {
	s.t.Helper()
	path := filepath.Join(dir, "id")
	s.must(os.WriteFile(path, pemOf(s.t, key, passphrase), 0o600))
	s.must(os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(s.signer(key).PublicKey()), 0o644))
	return path
}

func TestKeysComeFromTheSSHAgentFirstThenFromAFile(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	mine := s.public(s.keys["alice"])
	for name, c := range map[string]struct {
		inAgent []ed25519.PrivateKey
		wanted  func(dir string) string
		want    string // "" is found, else part of the refusal
	}{
		"any of mine in the ssh-agent":            {[]ed25519.PrivateKey{s.keys["bob"], s.keys["alice"]}, func(string) string { return "" }, ""},
		"by fingerprint":                          {[]ed25519.PrivateKey{s.keys["alice"]}, func(string) string { return mine.Fingerprint() }, ""},
		"a plain file without an ssh-agent":       {nil, func(dir string) string { return s.keyfile(dir, s.keys["alice"], "") }, ""},
		"named by its .pub":                       {nil, func(dir string) string { return s.keyfile(dir, s.keys["alice"], "") + ".pub" }, ""},
		"a sealed file whose key the agent holds": {[]ed25519.PrivateKey{s.keys["alice"]}, func(dir string) string { return s.keyfile(dir, s.keys["alice"], "secret") }, ""},
		"a sealed file and nobody to ask":         {nil, func(dir string) string { return s.keyfile(dir, s.keys["alice"], "secret") }, "passphrase"},
		"only other people's keys":                {[]ed25519.PrivateKey{s.keys["bob"]}, func(string) string { return "" }, "none of the keys"},
		"another's fingerprint":                   {[]ed25519.PrivateKey{s.keys["bob"]}, func(string) string { return s.public(s.keys["bob"]).Fingerprint() }, "not yours"},
		"another's file":                          {nil, func(dir string) string { return s.keyfile(dir, s.keys["bob"], "") }, "not yours"},
		"no ssh-agent and no file":                {nil, func(string) string { return "" }, "no ssh-agent"},
		"a file that is not there":                {nil, func(dir string) string { return filepath.Join(dir, "nothing") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			seat := newSeat(t, t.TempDir())
			if c.inAgent != nil {
				seat.env["SSH_AUTH_SOCK"] = startSSHAgent(t, c.inAgent...)
			}
			err := seat.sign(c.wanted(seat.dir), []statement.Key{mine})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// sign chooses a key and signs something with it.
func (s *seat) sign(wanted string, accepted []statement.Key) error {
	s.t.Helper()
	d := s.desk("--no-input")
	signer, err := d.chooseKey(s.t.Context(), wanted, accepted)
	if err != nil {
		return err
	}
	_, err = signer.Sign(d.random, []byte("words"))
	return err
}

func TestAPrivateKeyThatDoesNotFitItsPublicFileSignsNothing(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	seat := newSeat(t, t.TempDir())
	path := s.keyfile(seat.dir, s.keys["alice"], "")
	s.must(os.WriteFile(path, pemOf(t, s.keys["mallory"], ""), 0o600))
	if err := seat.sign(path, []statement.Key{s.public(s.keys["alice"])}); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("got %v", err)
	}
}
