package statement

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Sign checks the body's shape, encodes it, has each signer sign it and opens the result, so that a signer that
// misbehaves (an ssh-agent with another key, a security key that saw no touch) is found out here.
func Sign(b Body, signers ...ssh.Signer) (Proof, error) {
	payload, err := Encode(b)
	if err != nil {
		return Proof{}, err
	}
	p, err := SignPayload(b.Header().Kind, payload, signers...)
	if err != nil {
		return Proof{}, err
	}
	if _, err := Open(p); err != nil {
		return Proof{}, err
	}
	return p, nil
}

// SignPayload signs bytes as they are under the kind's namespace. It is Sign for policy, whose shape is decided
// in package policy; it looks at the signatures it made and not at the payload.
func SignPayload(kind Kind, payload []byte, signers ...ssh.Signer) (Proof, error) {
	if len(signers) == 0 {
		return Proof{}, fmt.Errorf("%.20s: nobody to sign", kind)
	}
	p := Proof{Payload: payload}
	for _, s := range signers {
		blob, err := signOne(kind, payload, s)
		if err != nil {
			return Proof{}, fmt.Errorf("%.20s: signing: %w", kind, err)
		}
		p.Signatures = append(p.Signatures, blob)
	}
	if _, err := OpenPayload(kind, p); err != nil {
		return Proof{}, err
	}
	return p, nil
}

func signOne(kind Kind, payload []byte, signer ssh.Signer) ([]byte, error) {
	if signer == nil {
		return nil, errors.New("no signer")
	}
	if _, err := KeyOf(signer.PublicKey()); err != nil {
		return nil, err
	}
	sig, err := sshsig.Sign(bytes.NewReader(payload), signer, sshsig.HashSHA512, kind.Namespace())
	if err != nil {
		return nil, err
	}
	return sig.Marshal(), nil
}
