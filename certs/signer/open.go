package signer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// maxFile is the longest private key file in bytes that is read: rsa of 8192 bits takes 7 KiB.
const maxFile = 16 << 10

// Open returns the signer at a place: the path of a private key file in OpenSSH format without passphrase, readable
// by its owner only, or "agent:SOCKET#SHA256:FINGERPRINT" for a key an ssh-agent holds. Keys that statements do not
// take (dss, p384, rsa below 3072 bits) are refused. The file is read now; the socket is dialled now, to see that
// the key is there, and again for every signature.
func Open(place string) (ssh.Signer, error) {
	if rest, ok := strings.CutPrefix(place, "agent:"); ok {
		socket, fingerprint, ok := strings.Cut(rest, "#")
		if !ok || socket == "" || !strings.HasPrefix(fingerprint, "SHA256:") {
			return nil, fmt.Errorf("ca key %q: want agent:SOCKET#SHA256:FINGERPRINT (ssh-add -l shows it)", place)
		}
		return openAgent(socket, fingerprint)
	}
	return openFile(place)
}

func openFile(path string) (ssh.Signer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ca key: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("ca key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("ca key %s: not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("ca key %s: mode %04o lets others at it: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("ca key: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("ca key %s: longer than %d bytes", path, maxFile)
	}
	return parse(path, text)
}

func parse(path string, text []byte) (ssh.Signer, error) {
	s, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("ca key %s: has a passphrase: load it into an ssh-agent and write agent:SOCKET#SHA256:FINGERPRINT", path)
	}
	if err != nil {
		return nil, fmt.Errorf("ca key %s: %w", path, err)
	}
	if _, err := statement.KeyOf(s.PublicKey()); err != nil {
		return nil, fmt.Errorf("ca key %s: %w", path, err)
	}
	return s, nil
}
