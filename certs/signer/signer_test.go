package signer_test

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/certs/signer"
)

func keyFile(t *testing.T, text []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGeneratedKeyOpensAndSSHKeygenAgrees(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca")
	key, err := signer.Generate(rand.Reader, path, "ca of b1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := signer.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := statement.KeyOf(s.PublicKey()); err != nil || got != key || key.Type() != "ssh-ed25519" {
		t.Errorf("opened %s, generated %s: %v", got, key, err)
	}
	out, err := exec.Command("ssh-keygen", "-y", "-f", path).Output()
	if want := string(key) + " ca of b1\n"; err != nil || string(out) != want {
		t.Errorf("ssh-keygen says %q (%v), want %q", out, err, want)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestGenerateReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	there, link := filepath.Join(dir, "there"), filepath.Join(dir, "link")
	if err := os.WriteFile(there, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{there, link, dir, filepath.Join(dir, "no", "ca")} {
		if _, err := signer.Generate(rand.Reader, path, ""); err == nil {
			t.Errorf("%s: generated", path)
		}
	}
	if got, err := os.ReadFile(there); err != nil || string(got) != "precious" {
		t.Errorf("now %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("wrote through a symlink")
	}
}

func TestFileThatIsNoFitPlaceIsRefused(t *testing.T) {
	good := signtest.Ed25519("ca").PEM()
	p384, err := ssh.MarshalPrivateKey(signtest.P384("ca"), "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(signtest.P384("ca"), "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"nothing there":         {filepath.Join(t.TempDir(), "ca"), "no such file"},
		"a directory":           {t.TempDir(), "regular file"},
		"a device":              {"/dev/null", "regular file"},
		"readable by the group": {keyFile(t, good, 0o640), "chmod 600"},
		"readable by all":       {keyFile(t, good, 0o604), "chmod 600"},
		"empty":                 {keyFile(t, nil, 0o600), "no key"},
		"a public key":          {keyFile(t, ssh.MarshalAuthorizedKey(signtest.Ed25519("ca").PublicKey()), 0o600), "no key"},
		"too long":              {keyFile(t, bytes.Repeat([]byte("x"), 17<<10), 0o600), "longer than"},
		"locked":                {keyFile(t, pem.EncodeToMemory(locked), 0o600), "passphrase"},
		"a key of ecdsa-p384":   {keyFile(t, pem.EncodeToMemory(p384), 0o600), "not accepted"},
		"a key of rsa 2048":     {keyFile(t, signtest.RSA(2048).PEM(), 0o600), "2048 bits"},
	} {
		s, err := signer.Open(c.path)
		if err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows the file: %v", name, err)
		}
	}
}

func TestReadOnlyCredentialOpens(t *testing.T) {
	for _, mode := range []os.FileMode{0o400, 0o600} {
		if _, err := signer.Open(keyFile(t, signtest.Ed25519("ca").PEM(), mode)); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func place(socket string, s ssh.Signer) string {
	return fmt.Sprintf("agent:%s#%s", socket, ssh.FingerprintSHA256(s.PublicKey()))
}

func TestKeyBehindAnAgentSignsByEveryType(t *testing.T) {
	var all []ssh.Signer
	for _, s := range signtest.Every("ca") {
		all = append(all, s)
	}
	socket := signtest.Agent(t, all...)
	for name, want := range signtest.Every("ca") {
		s, err := signer.Open(place(socket, want))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sig, err := s.Sign(rand.Reader, []byte("data"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := want.PublicKey().Verify([]byte("data"), sig); err != nil || sig.Format == ssh.KeyAlgoRSA {
			t.Errorf("%s: %s: %v", name, sig.Format, err)
		}
		if _, err := s.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte("data"), ssh.KeyAlgoRSA); err == nil {
			t.Errorf("%s: signed with ssh-rsa", name)
		}
	}
}

func TestKeyBehindOpenSSHsOwnAgentSurvivesItsRestart(t *testing.T) {
	ca := signtest.Ed25519("ca")
	file := keyFile(t, ca.PEM(), 0o600)
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "sock")
	first := startAgent(t, socket, file)
	s, err := signer.Open(place(socket, ca))
	if err != nil {
		t.Fatal(err)
	}
	first()
	if _, err := s.Sign(rand.Reader, []byte("data")); err == nil || !strings.Contains(err.Error(), socket) {
		t.Errorf("signed without an ssh-agent, or did not name it: %v", err)
	}
	defer startAgent(t, socket, file)()
	sig, err := s.Sign(rand.Reader, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.PublicKey().Verify([]byte("data"), sig); err != nil {
		t.Error(err)
	}
}

// startAgent runs ssh-agent with one key loaded and returns what ends it: by SIGKILL, after which nothing of it can take
// the next one's socket away.
func startAgent(t *testing.T, socket, file string) func() {
	t.Helper()
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = agent.Process.Kill()
		_ = agent.Wait() // it says that it was killed
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		add := exec.Command("ssh-add", "-q", file)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		out, err := add.CombinedOutput()
		if err == nil {
			return end
		}
		select {
		case <-late:
			end()
			t.Fatalf("ssh-add: %v: %s", err, out)
		case <-tick.C:
		}
	}
}

func TestAgentThatIsNoFitPlaceIsRefused(t *testing.T) {
	weak, ca := signtest.RSA(2048), signtest.Ed25519("ca")
	socket := signtest.Agent(t, weak)
	hangsUp := signtest.Serve(t, func(net.Conn) {})
	for name, c := range map[string]struct{ place, want string }{
		"no socket":              {"agent:", "want agent:SOCKET"},
		"no fingerprint":         {"agent:" + socket, "want agent:SOCKET"},
		"an md5 fingerprint":     {"agent:" + socket + "#MD5:00", "want agent:SOCKET"},
		"nobody listening":       {place("/nonexistent/sock", ca), "no such file"},
		"another key":            {place(socket, ca), "ssh-add"},
		"a key of rsa 2048":      {place(socket, weak), "2048 bits"},
		"somebody who hangs up":  {place(hangsUp, ca), hangsUp},
		"a path with no key":     {"agent:" + socket + "#SHA256:", "ssh-add"},
		"a fingerprint's prefix": {place(socket, weak)[:len(place(socket, weak))-5], "ssh-add"},
	} {
		if s, err := signer.Open(c.place); err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
