package statement

import (
	"bytes"
	"fmt"
	"slices"
)

// Caps on a proof, checked before anything inside is parsed.
const (
	MaxSignatures = 64
	MaxSignature  = 4 << 10  // bytes of one SSHSIG blob
	MaxPolicy     = 1 << 20  // bytes of a policy's payload, the one kind that may exceed MaxPayload
	MaxProof      = 17 << 17 // bytes of a proof's JSON
)

// Proof is the exact signed bytes with their signatures, kept verbatim for ever. In JSON both are standard base64;
// a signature is the raw SSHSIG blob (what stands between the armour lines of `ssh-keygen -Y sign`).
type Proof struct {
	Payload    []byte   `json:"payload"`
	Signatures [][]byte `json:"signatures"`
}

// Signer is a key that really signed, with what its authenticator claims (zero for keys that are not sk-).
type Signer struct {
	Key      Key
	Presence bool // sk: flag 0x01, always required to verify
	Verified bool // sk: flag 0x04 (PIN or biometric)
}

// Opened is a well-formed statement whose signatures hold. Whether its signers may say it is the judge's question.
type Opened struct {
	Hash    Hash     // of Payload: the statement's identity
	Body    Body     // by value: Request, never *Request
	Signers []Signer // in the order of Proof.Signatures, at least one, distinct keys
}

// ParseProof reads a proof's JSON strictly. It verifies nothing: that is Open's work.
func ParseProof(data []byte) (Proof, error) {
	if len(data) > MaxProof {
		return Proof{}, fmt.Errorf("proof: %d bytes: at most %d", len(data), MaxProof)
	}
	var p Proof
	if err := DecodeStrict(data, &p); err != nil {
		return Proof{}, fmt.Errorf("proof: %w", err)
	}
	if err := p.checkSize(); err != nil {
		return Proof{}, err
	}
	return p, nil
}

// Hash returns the hash of the payload: signatures are malleable, so they take no part in identity.
func (p Proof) Hash() Hash { return HashOf(p.Payload) }

// Add returns a proof that carries more signatures over the same payload; those it has already are not repeated.
func (p Proof) Add(signatures ...[]byte) Proof {
	sum := Proof{Payload: p.Payload, Signatures: slices.Clone(p.Signatures)}
	for _, s := range signatures {
		if !slices.ContainsFunc(sum.Signatures, func(t []byte) bool { return bytes.Equal(s, t) }) {
			sum.Signatures = append(sum.Signatures, s)
		}
	}
	return sum
}

// checkSize holds the caps that are not the kind's own.
func (p Proof) checkSize() error {
	if len(p.Payload) == 0 || len(p.Payload) > MaxPolicy {
		return fmt.Errorf("proof: payload of %d bytes: want 1 to %d", len(p.Payload), MaxPolicy)
	}
	if n := len(p.Signatures); n == 0 || n > MaxSignatures {
		return fmt.Errorf("proof: %d signatures: want 1 to %d", n, MaxSignatures)
	}
	for _, s := range p.Signatures {
		if len(s) == 0 || len(s) > MaxSignature {
			return fmt.Errorf("proof: signature of %d bytes: want 1 to %d", len(s), MaxSignature)
		}
	}
	return nil
}
