package statement_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"golang.org/x/crypto/ssh"
)

// forged is an SSHSIG blob spelt field by field, so that each can be wrong.
type forged struct {
	Magic                                        [6]byte
	Version                                      uint32
	Public, Namespace, Reserved, Hash, Signature string
}

// forge signs as sshsig does, with any signer, namespace and hash, and lets edits spoil the blob.
func forge(t testing.TB, payload []byte, namespace, hash string, signer ssh.Signer, edits ...func(*forged)) []byte {
	t.Helper()
	digest := sha512.New()
	if hash == "sha256" {
		digest = sha256.New()
	}
	digest.Write(payload)
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Digest string }{
		namespace, "", hash, string(digest.Sum(nil))})...)
	var sig *ssh.Signature
	var err error
	if algorithms, ok := signer.(ssh.AlgorithmSigner); ok && signer.PublicKey().Type() == ssh.KeyAlgoRSA {
		sig, err = algorithms.SignWithAlgorithm(rand.Reader, signed, ssh.KeyAlgoRSASHA512)
	} else {
		sig, err = signer.Sign(rand.Reader, signed)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := forged{[6]byte([]byte("SSHSIG")), 1, string(signer.PublicKey().Marshal()), namespace, "", hash, string(ssh.Marshal(sig))}
	for _, edit := range edits {
		edit(&f)
	}
	return bytes.Clone(ssh.Marshal(f))
}
