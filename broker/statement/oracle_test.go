package statement_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// ssh-keygen is the oracle, so that we never agree only with ourselves.

func TestSSHKeygenVerifiesEveryKindByEveryKeyType(t *testing.T) {
	for name, signer := range signtest.Every("alice") {
		for _, b := range bodies(t) {
			kind := b.Header().Kind
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				who := signers(kind, signer)
				p := sign(t, b, who...)
				for i, blob := range p.Signatures {
					keygenVerifies(t, kind, p.Payload, blob, signtest.Public(who[i]))
				}
			})
		}
		t.Run(name+"/policy", func(t *testing.T) {
			payload := []byte(`{"v":1,"kind":"policy"}`)
			p, err := statement.SignPayload(statement.KindPolicy, payload, signer)
			if err != nil {
				t.Fatal(err)
			}
			keygenVerifies(t, statement.KindPolicy, payload, p.Signatures[0], signtest.Public(signer))
		})
	}
}

func TestOpenTakesWhatSSHKeygenSigns(t *testing.T) {
	for name, signer := range signtest.Every("alice") {
		socket := signtest.Agent(t, signer)
		for _, b := range bodies(t) {
			kind := b.Header().Kind
			if kind == statement.KindEnrolment {
				continue // made by the host's agent, never by hand
			}
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				payload, err := statement.Encode(b)
				if err != nil {
					t.Fatal(err)
				}
				blob := keygenSigns(t, socket, signtest.Public(signer), kind.Namespace(), payload)
				opened, err := statement.Open(statement.Proof{Payload: payload, Signatures: [][]byte{blob}})
				if err != nil {
					t.Fatal(err)
				}
				want := statement.Signer{Key: signtest.Public(signer)}
				want.Presence = want.Key.SecurityKey()
				want.Verified = want.Presence
				if len(opened.Signers) != 1 || opened.Signers[0] != want {
					t.Errorf("signers %+v, want %+v", opened.Signers, want)
				}
			})
		}
	}
}

func TestFingerprintIsSSHKeygens(t *testing.T) {
	for name, signer := range signtest.Every("alice") {
		k := signtest.Public(signer)
		file := write(t, "key.pub", []byte(string(k)+"\n"))
		out, err := exec.Command("ssh-keygen", "-l", "-f", file).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(" "+k.Fingerprint()+" ")) {
			t.Errorf("%s: we say %s, ssh-keygen says %s (%v)", name, k.Fingerprint(), out, err)
		}
	}
}

// F23: ssh-keygen takes an sk- signature nobody touched the key for; Open does not.
func TestF23UntouchedSecurityKeyPassesSSHKeygenButNotOpen(t *testing.T) {
	for _, signer := range []signtest.SecurityKey{signtest.SecurityEd25519("alice"), signtest.SecurityECDSA("alice")} {
		untouched := signer.WithFlags(signtest.Verification)
		payload, err := statement.Encode(request())
		if err != nil {
			t.Fatal(err)
		}
		blob := forge(t, payload, "request@pim-ssh", "sha512", untouched)
		keygenVerifies(t, statement.KindRequest, payload, blob, signtest.Public(signer))
		if _, err := statement.Open(statement.Proof{Payload: payload, Signatures: [][]byte{blob}}); err == nil {
			t.Errorf("%s: opened without presence", signer.PublicKey().Type())
		}
	}
}

func keygenVerifies(t *testing.T, kind statement.Kind, payload, blob []byte, k statement.Key) {
	t.Helper()
	allowed := write(t, "allowed", fmt.Appendf(nil, "signer namespaces=\"%s\" %s\n", kind.Namespace(), k))
	signature := write(t, "sig", pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: blob}))
	verify := exec.Command("ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "signer", "-n", kind.Namespace(), "-s", signature)
	verify.Stdin = bytes.NewReader(payload)
	if out, err := verify.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen -Y verify: %v: %s", err, out)
	}
}

func keygenSigns(t *testing.T, socket string, k statement.Key, namespace string, payload []byte, options ...string) []byte {
	t.Helper()
	public := write(t, "key.pub", []byte(string(k)+"\n"))
	file := write(t, "payload", payload)
	args := append([]string{"-Y", "sign", "-f", public, "-n", namespace}, options...)
	command := exec.Command("ssh-keygen", append(args, file)...)
	command.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen -Y sign: %v: %s", err, out)
	}
	armoured, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(armoured)
	if block == nil || block.Type != "SSH SIGNATURE" || len(rest) != 0 {
		t.Fatalf("ssh-keygen wrote %q", armoured)
	}
	return block.Bytes
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
