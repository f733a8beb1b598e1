package totp

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"github.com/go-json-experiment/json"

	"pim-ssh/broker/statement"
)

// maxPlain is how many bytes of a sealed seed are read: it needs far fewer.
const maxPlain = 4 << 10

// ErrForeign says that a seed was sealed to other keys than the one that was tried.
var ErrForeign = errors.New("the seed was not sealed to this broker")

// Seal encrypts a seed to brokers' identity keys, all of them ssh-ed25519: an age file that any one of them opens.
func Seal(s Seed, brokers ...statement.Key) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var to []age.Recipient
	for _, key := range brokers {
		recipient, err := agessh.NewEd25519Recipient(key.Public())
		if err != nil {
			return nil, fmt.Errorf("sealing to %s: %w", key.Fingerprint(), err)
		}
		to = append(to, recipient)
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	var sealed bytes.Buffer
	out, err := age.Encrypt(&sealed, to...)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if _, err := out.Write(plain); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if sealed.Len() > statement.MaxSealed {
		return nil, fmt.Errorf("sealed to %d brokers the seed has %d bytes: at most %d", len(brokers), sealed.Len(), statement.MaxSealed)
	}
	return sealed.Bytes(), nil
}

// Unseal opens a sealed seed with a broker's identity key. A seed for other brokers is ErrForeign.
func Unseal(sealed []byte, broker ed25519.PrivateKey) (Seed, error) {
	identity, err := agessh.NewEd25519Identity(broker)
	if err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	in, err := age.Decrypt(bytes.NewReader(sealed), identity)
	var foreign *age.NoIdentityMatchError
	if errors.As(err, &foreign) {
		return Seed{}, ErrForeign
	}
	if err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(in, maxPlain))
	if err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	var s Seed
	if err := statement.DecodeStrict(plain, &s); err != nil {
		return Seed{}, errors.New("seed: what is sealed is no seed") // never what it is
	}
	return s, s.check()
}
