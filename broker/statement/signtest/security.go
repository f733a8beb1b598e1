package signtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/big"

	"golang.org/x/crypto/ssh"
)

// Flags an authenticator reports: whether it was touched, and whether it saw a PIN or a finger.
const (
	Presence     byte = 0x01
	Verification byte = 0x04
)

const application = "ssh:"

// SecurityKey is a FIDO2 authenticator in software, as a signer.
type SecurityKey struct {
	private crypto.PrivateKey
	public  ssh.PublicKey
	flags   byte
	counter uint32
}

// SecurityEd25519 returns the sk-ssh-ed25519 key that belongs to a name; it reports presence and verification.
func SecurityEd25519(name string) SecurityKey {
	seed := sha256.Sum256([]byte(name))
	private := ed25519.NewKeyFromSeed(seed[:])
	public := ssh.Marshal(struct {
		Type        string
		Point       []byte
		Application string
	}{ssh.KeyAlgoSKED25519, private.Public().(ed25519.PublicKey), application})
	return securityKey(private, public)
}

// SecurityECDSA returns the sk-ecdsa-sha2-nistp256 key that belongs to a name; it reports presence and verification.
func SecurityECDSA(name string) SecurityKey {
	private := scalar(name)
	point, err := private.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	public := ssh.Marshal(struct {
		Type, Curve string
		Point       []byte
		Application string
	}{ssh.KeyAlgoSKECDSA256, "nistp256", point, application})
	return securityKey(private, public)
}

func securityKey(private crypto.PrivateKey, public []byte) SecurityKey {
	parsed, err := ssh.ParsePublicKey(public)
	if err != nil {
		panic(err)
	}
	return SecurityKey{private: private, public: parsed, flags: Presence | Verification, counter: 7}
}

// WithFlags returns the same key reporting other flags.
func (k SecurityKey) WithFlags(flags byte) SecurityKey {
	k.flags = flags
	return k
}

// PublicKey returns the public half.
func (k SecurityKey) PublicKey() ssh.PublicKey { return k.public }

// Sign signs as an authenticator does: over the application's hash, the flags, the counter and the message's hash.
func (k SecurityKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	rest := binary.BigEndian.AppendUint32([]byte{k.flags}, k.counter)
	app, message := sha256.Sum256([]byte(application)), sha256.Sum256(data)
	signed := append(append(app[:], rest...), message[:]...)
	sig := &ssh.Signature{Format: k.public.Type(), Rest: rest}
	switch private := k.private.(type) {
	case ed25519.PrivateKey:
		sig.Blob = ed25519.Sign(private, signed)
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(signed)
		r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
		if err != nil {
			return nil, err
		}
		sig.Blob = ssh.Marshal(struct{ R, S *big.Int }{r, s})
	}
	return sig, nil
}
