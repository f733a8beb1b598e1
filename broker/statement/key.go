package statement

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key is a public key in canonical authorized_keys form without comment, "ssh-ed25519 AAAA…". Only ed25519,
// sk-ed25519, ecdsa-p256, sk-ecdsa-p256 and rsa of 3072 to 8192 bits parse; certificates do not. Comparable: equal
// strings, equal keys.
type Key string

// Caps on what is decoded at all: the longest key is rsa of 8192 bits.
const (
	maxKeyText = 1600
	minRSABits = 3072
	maxRSABits = 8192
)

const keyHint = "use ed25519, ecdsa-p256, rsa of 3072 to 8192 bits, or a security key (ssh-keygen -t ed25519)"

// ParseKey reads the canonical form: type, one space, base64; no options, no comment, no newline.
func ParseKey(s string) (Key, error) {
	_, text, ok := strings.Cut(s, " ")
	if !ok || len(s) > maxKeyText {
		return "", fmt.Errorf("key %.40q: want type and base64 as in a .pub file, without comment", s)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("key %.40q: %w", s, err)
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return "", fmt.Errorf("key %.40q: %w", s, err)
	}
	k, err := KeyOf(public)
	if err != nil {
		return "", err
	}
	if string(k) != s {
		return "", fmt.Errorf("key %.40q: not in canonical form", s)
	}
	return k, nil
}

// KeyOf returns the canonical form of a public key whose type and strength are accepted.
func KeyOf(public ssh.PublicKey) (Key, error) {
	if public == nil {
		return "", errors.New("key: none given")
	}
	if err := acceptable(public); err != nil {
		return "", fmt.Errorf("key of type %.60q: %w", public.Type(), err)
	}
	return Key(bytes.TrimSuffix(ssh.MarshalAuthorizedKey(public), []byte("\n"))), nil
}

// Public returns the parsed key, and nil for a Key that did not come from ParseKey, KeyOf or decoding.
func (k Key) Public() ssh.PublicKey {
	_, text, _ := strings.Cut(string(k), " ")
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil
	}
	return public
}

// Type returns the key's type as ssh writes it, "ssh-ed25519".
func (k Key) Type() string {
	name, _, _ := strings.Cut(string(k), " ")
	return name
}

// Fingerprint returns "SHA256:…" as ssh-keygen -l prints it, and "" for a Key without a public key.
func (k Key) Fingerprint() string {
	public := k.Public()
	if public == nil {
		return ""
	}
	return ssh.FingerprintSHA256(public)
}

// SecurityKey reports whether the private half lives in a FIDO2 authenticator.
func (k Key) SecurityKey() bool {
	return k.Type() == ssh.KeyAlgoSKED25519 || k.Type() == ssh.KeyAlgoSKECDSA256
}

// UnmarshalText parses strictly, so that decoding is parsing.
func (k *Key) UnmarshalText(b []byte) error { return parseInto(k, b, ParseKey) }

// acceptable is the one list of key types and strengths.
func acceptable(public ssh.PublicKey) error {
	switch public.Type() {
	case ssh.KeyAlgoED25519:
		var w struct {
			Name  string
			Point []byte
		}
		if err := ssh.Unmarshal(public.Marshal(), &w); err != nil {
			return err
		}
		return strongPoint(w.Point)
	case ssh.KeyAlgoSKED25519:
		var w struct {
			Name        string
			Point       []byte
			Application string
		}
		if err := ssh.Unmarshal(public.Marshal(), &w); err != nil {
			return err
		}
		return errors.Join(strongPoint(w.Point), checkApplication(w.Application))
	case ssh.KeyAlgoSKECDSA256:
		var w struct {
			Name, Curve string
			Point       []byte
			Application string
		}
		if err := ssh.Unmarshal(public.Marshal(), &w); err != nil {
			return err
		}
		return checkApplication(w.Application)
	case ssh.KeyAlgoECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		return strongRSA(public)
	default:
		return errors.New("not accepted: " + keyHint)
	}
}

func strongRSA(public ssh.PublicKey) error {
	crypto, ok := public.(ssh.CryptoPublicKey)
	if !ok {
		return errors.New("not an rsa key")
	}
	key, ok := crypto.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return errors.New("not an rsa key")
	}
	if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
		return fmt.Errorf("%d bits: %s", n, keyHint)
	}
	if key.N.Sign() < 0 || key.N.Bit(0) == 0 || key.E < 65537 || key.E%2 == 0 {
		return errors.New("an odd modulus and an odd exponent of at least 65537 wanted: " + keyHint)
	}
	return nil
}

// checkApplication keeps to what ssh-keygen makes: "ssh:" or "ssh:name".
func checkApplication(application string) error {
	if !strings.HasPrefix(application, "ssh:") || len(application) > 64 || !only(application, printable) {
		return fmt.Errorf("application %.80q: want ssh: and a short name", application)
	}
	return nil
}

// smallOrder lists the canonical y coordinates of the points whose order divides 8: under such a key anybody can
// make signatures that verify. The sign bit is masked before comparing.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// strongPoint refuses ed25519 keys of small order, and second spellings of a point (y ≥ 2^255 − 19).
func strongPoint(point []byte) error {
	if len(point) != 32 {
		return fmt.Errorf("ed25519 point of %d bytes", len(point))
	}
	y := slices.Clone(point)
	y[31] &= 0x7f
	if y[31] == 0x7f && y[0] >= 0xed && !slices.ContainsFunc(y[1:31], func(b byte) bool { return b != 0xff }) {
		return errors.New("ed25519 point is not canonical")
	}
	if slices.Contains(smallOrder, hex.EncodeToString(y)) {
		return errors.New("ed25519 point of small order")
	}
	return nil
}
