package statement

import "golang.org/x/crypto/ssh"

// Hash is a sha256; in JSON and text 64 lower-case hex digits.
type Hash [32]byte

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
	Hash    Hash // of Payload: the statement's identity
	Body    Body
	Signers []Signer // in the order of Proof.Signatures, at least one, distinct keys
}

var _ ssh.Signer // the signing side takes these
