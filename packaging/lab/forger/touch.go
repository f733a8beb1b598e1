package forger

import (
	"bytes"
	"testing"

	"github.com/hiddeco/sshsig"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// SecurityKey is a fresh security key in software, which reports touch and verification.
func SecurityKey() signtest.SecurityKey { return signtest.SecurityEd25519(Nonce()) }

// Untouched is a body signed by a security key as it is: also when it reports no touch, which nobody's own program would
// take for a signature.
func (w *World) Untouched(b statement.Body, key signtest.SecurityKey) statement.Proof {
	w.T.Helper()
	payload, err := statement.Encode(b)
	w.must(err)
	signature, err := sshsig.Sign(bytes.NewReader(payload), key, sshsig.HashSHA512, b.Header().Kind.Namespace())
	w.must(err)
	return statement.Proof{Payload: payload, Signatures: [][]byte{signature.Marshal()}}
}

// Flagged is a proof whose one signature says other flags than the authenticator did when it signed.
func Flagged(t testing.TB, p statement.Proof, flags byte) statement.Proof {
	t.Helper()
	signature, err := sshsig.ParseSignature(p.Signatures[0])
	if err != nil || len(signature.Signature.Rest) != 5 {
		t.Fatalf("no security key's signature: %v", err)
	}
	signature.Signature.Rest = append([]byte{flags}, signature.Signature.Rest[1:]...)
	return statement.Proof{Payload: p.Payload, Signatures: [][]byte{signature.Marshal()}}
}
