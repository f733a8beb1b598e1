package rehearse

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"io"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// plain is the throw-away key that belongs to a name.
func plain(name string) ssh.Signer {
	signer, err := ssh.NewSignerFromKey(private("plain " + name))
	if err != nil {
		panic(err) // an ed25519 key is one of those that ssh knows
	}
	return signer
}

// touched is the throw-away security key that belongs to a name: whatever it signs was touched, and its holder verified.
func touched(name string) ssh.Signer {
	key := private("touched " + name)
	public, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Point       []byte
		Application string
	}{ssh.KeyAlgoSKED25519, key.Public().(ed25519.PublicKey), application}))
	if err != nil {
		panic(err) // as above
	}
	return softKey{key, public}
}

func private(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("pim-ssh policy test: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

const application = "ssh:"

// softKey is a security key in software.
type softKey struct {
	private ed25519.PrivateKey
	public  ssh.PublicKey
}

// PublicKey returns the public half.
func (k softKey) PublicKey() ssh.PublicKey { return k.public }

// Sign signs as a security key does that was touched and has verified its holder.
func (k softKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	const touchedAndVerified = 0x01 | 0x04
	rest := binary.BigEndian.AppendUint32([]byte{touchedAndVerified}, 1)
	app, message := sha256.Sum256([]byte(application)), sha256.Sum256(data)
	signed := append(append(app[:], rest...), message[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.private, signed), Rest: rest}, nil
}

func publicOf(signer ssh.Signer) statement.Key {
	key, err := statement.KeyOf(signer.PublicKey())
	if err != nil {
		panic(err) // as above
	}
	return key
}
