package signer

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// Generate writes a new ed25519 key, without passphrase and readable by its owner only, to a path where nothing
// stands yet, and returns its public half once both file and directory are on disk.
func Generate(rand io.Reader, path, comment string) (statement.Key, error) {
	public, private, err := ed25519.GenerateKey(rand)
	if err != nil {
		return "", fmt.Errorf("new key %s: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return "", fmt.Errorf("new key %s: %w", path, err)
	}
	converted, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("new key %s: %w", path, err)
	}
	key, err := statement.KeyOf(converted)
	if err != nil {
		return "", fmt.Errorf("new key %s: %w", path, err)
	}
	if err := writeNew(path, pem.EncodeToMemory(block)); err != nil {
		return "", fmt.Errorf("new key: %w", err)
	}
	return key, nil
}

// writeNew never follows or replaces what is there; a file cut short by a failure is removed again.
func writeNew(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
