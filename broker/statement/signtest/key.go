package signtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"embed"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

//go:embed testdata/*.key
var rsaKeys embed.FS

// Key is a plain key pair whose private half may be written to a file.
type Key struct {
	ssh.AlgorithmSigner
	private crypto.PrivateKey
}

// Ed25519 returns the ed25519 key that belongs to a name.
func Ed25519(name string) Key {
	seed := sha256.Sum256([]byte(name))
	return keyOf(ed25519.NewKeyFromSeed(seed[:]))
}

// ECDSA returns the ecdsa-p256 key that belongs to a name.
func ECDSA(name string) Key { return keyOf(scalar(name)) }

// RSA returns the one rsa key of 3072 or of 2048 bits (the latter too weak for statements).
func RSA(bits int) Key {
	file, err := rsaKeys.ReadFile(fmt.Sprintf("testdata/rsa%d.key", bits))
	if err != nil {
		panic(err)
	}
	private, err := ssh.ParseRawPrivateKey(file)
	if err != nil {
		panic(err)
	}
	return keyOf(private)
}

// Public returns the public half as statements name it. It panics on a type that no statement takes.
func Public(signer ssh.Signer) statement.Key {
	key, err := statement.KeyOf(signer.PublicKey())
	if err != nil {
		panic(err)
	}
	return key
}

// PEM returns the private half as ssh-keygen writes it, without passphrase.
func (k Key) PEM() []byte {
	block, err := ssh.MarshalPrivateKey(k.private, "")
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(block)
}

// Every returns one signer of each type statements accept, by a short name for the type.
func Every(name string) map[string]ssh.Signer {
	return map[string]ssh.Signer{
		"ed25519":    Ed25519(name),
		"ecdsa-p256": ECDSA(name),
		"rsa-3072":   RSA(3072),
		"sk-ed25519": SecurityEd25519(name),
		"sk-ecdsa":   SecurityECDSA(name),
	}
}

func keyOf(private crypto.PrivateKey) Key {
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		panic(err)
	}
	return Key{s.(ssh.AlgorithmSigner), private}
}

func scalar(name string) *ecdsa.PrivateKey {
	d := sha256.Sum256([]byte(name))
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
	if err != nil {
		panic(err)
	}
	return private
}

// P384 returns the ecdsa-p384 private key that belongs to a name: a good key that statements do not take.
func P384(name string) *ecdsa.PrivateKey {
	d := sha512.Sum384([]byte(name))
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), d[:])
	if err != nil {
		panic(err)
	}
	return private
}
