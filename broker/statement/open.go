package statement

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Flags an authenticator puts into an sk- signature.
const (
	flagPresence     = 0x01
	flagVerification = 0x04
)

// Open decides whether a proof is one well-formed statement (any kind but policy) and whether every signature on it
// holds. Nothing in the payload is believed before the caller has judged the signers.
func Open(p Proof) (Opened, error) {
	if err := p.checkSize(); err != nil {
		return Opened{}, err
	}
	b, err := decode(p.Payload)
	if err != nil {
		return Opened{}, fmt.Errorf("statement: %w", err)
	}
	kind := b.Header().Kind
	if want := kind.signatures(); len(p.Signatures) != want {
		return Opened{}, fmt.Errorf("%s: %d signatures: want %d", kind, len(p.Signatures), want)
	}
	signers, err := OpenPayload(kind, p)
	if err != nil {
		return Opened{}, err
	}
	if e, ok := b.(Enrolment); ok {
		if err := e.checkToken(signers); err != nil {
			return Opened{}, fmt.Errorf("%s: %w", kind, err)
		}
	}
	return Opened{Hash: p.Hash(), Body: b, Signers: signers}, nil
}

// OpenPayload verifies every signature of a proof under the kind's namespace and returns the signers, distinct, in
// order. It reads nothing of the payload: it is Open for policy, whose shape is decided in package policy.
func OpenPayload(kind Kind, p Proof) ([]Signer, error) {
	if err := p.checkSize(); err != nil {
		return nil, err
	}
	var signers []Signer
	for i, blob := range p.Signatures {
		s, err := verify(kind, p.Payload, blob)
		if err != nil {
			return nil, fmt.Errorf("%.20s: signature %d: %w", kind, i+1, err)
		}
		if slices.ContainsFunc(signers, func(t Signer) bool { return t.Key == s.Key }) {
			return nil, fmt.Errorf("%.20s: signature %d: %s signed twice", kind, i+1, s.Key.Fingerprint())
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// verify checks one SSHSIG blob: spelling, namespace, hash, key and algorithm first, the signature itself last.
func verify(kind Kind, payload, blob []byte) (Signer, error) {
	sig, err := sshsig.ParseSignature(blob)
	if err != nil {
		return Signer{}, err
	}
	key, err := KeyOf(sig.PublicKey)
	if err != nil {
		return Signer{}, err
	}
	if !bytes.Equal(sig.Marshal(), blob) {
		return Signer{}, errors.New("not in canonical form")
	}
	if sig.Namespace != kind.Namespace() {
		return Signer{}, fmt.Errorf("made for namespace %.40q, not %q", sig.Namespace, kind.Namespace())
	}
	if sig.HashAlgorithm != sshsig.HashSHA512 {
		return Signer{}, fmt.Errorf("hash %s: want sha512", sig.HashAlgorithm)
	}
	if !slices.Contains(formats(key), sig.Signature.Format) {
		return Signer{}, fmt.Errorf("algorithm %.40q does not fit a key of type %s", sig.Signature.Format, key.Type())
	}
	s, err := readFlags(key, sig.Signature.Rest)
	if err != nil {
		return Signer{}, err
	}
	err = sshsig.Verify(bytes.NewReader(payload), sig, sig.PublicKey, sshsig.HashSHA512, kind.Namespace())
	if err != nil {
		return Signer{}, err
	}
	return s, nil
}

// formats returns the signature algorithms a key may use; ssh-rsa (sha1) is not among them.
func formats(k Key) []string {
	if k.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{k.Type()}
}

// readFlags reads what follows the signature proper: nothing for plain keys; one byte of flags and a counter of
// four for security keys, which must have seen a touch.
func readFlags(k Key, rest []byte) (Signer, error) {
	if !k.SecurityKey() {
		if len(rest) != 0 {
			return Signer{}, fmt.Errorf("%d bytes after the signature", len(rest))
		}
		return Signer{Key: k}, nil
	}
	if len(rest) != 5 {
		return Signer{}, fmt.Errorf("%d bytes after the signature: want flags and counter, 5", len(rest))
	}
	s := Signer{Key: k, Presence: rest[0]&flagPresence != 0, Verified: rest[0]&flagVerification != 0}
	if !s.Presence {
		return Signer{}, errors.New("made without touching the security key")
	}
	return s, nil
}
