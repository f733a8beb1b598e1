package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
)

// initCommand makes this broker's keys, once, and prints its lines for policy.yaml, as often as asked.
func initCommand(words *flag.FlagSet, args []string) error {
	name := words.String("name", "", "")
	address := words.String("address", "", "")
	dir := words.String("dir", brokerDir, "")
	if _, err := parse(words, args, 0); err != nil {
		return err
	}
	if *name == "" || *address == "" {
		return errUsage
	}
	return initialise(os.Stdout, *dir, *name, *address)
}

func initialise(out io.Writer, dir, written, address string) error {
	name, err := statement.ParseBrokerName(written)
	if err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return fmt.Errorf("address %q: want HOST:PORT", address)
	}
	listed, err := makeKeys(dir, name)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "brokers:\n  %s: {address: %q, identity: %q, ca: %q, log: %q}\n", name, address, string(listed.Identity), string(listed.CA), string(listed.Log))
	return nil
}

// makeKeys makes what is missing of name, identity, CA and log key, and returns the public halves.
func makeKeys(dir string, name statement.BrokerName) (listed policy.Broker, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return listed, err
	}
	switch known, err := readName(dir); {
	case err == nil && known != name:
		return listed, fmt.Errorf("%s belongs to broker %s already", dir, known)
	case err != nil:
		if err := os.WriteFile(filepath.Join(dir, nameFile), []byte(name+"\n"), 0o600); err != nil {
			return listed, err
		}
	}
	for file, key := range map[string]*statement.Key{identityFile: &listed.Identity, caFile: &listed.CA, logFile: &listed.Log} {
		if *key, err = makeKey(filepath.Join(dir, file), string(name)+" "+file); err != nil {
			return listed, err
		}
	}
	return listed, nil
}

func makeKey(path, comment string) (statement.Key, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return signer.Generate(rand.Reader, path, comment)
	}
	held, err := signer.Open(path)
	if err != nil {
		return "", err
	}
	return statement.KeyOf(held.PublicKey())
}

// readIdentity reads an ed25519 private key that nobody but its owner can read.
func readIdentity(path string) (ed25519.PrivateKey, statement.Key, error) {
	held, err := signer.Open(path)
	if err != nil {
		return nil, "", err
	}
	public, err := statement.KeyOf(held.PublicKey())
	if err != nil {
		return nil, "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	private, isEd25519 := raw.(*ed25519.PrivateKey)
	if !isEd25519 {
		return nil, "", fmt.Errorf("%s: a broker's identity is an ed25519 key", path)
	}
	return *private, public, nil
}
