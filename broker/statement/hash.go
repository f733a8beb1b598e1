package statement

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is a sha256; in JSON and text 64 lower-case hex digits. All zeros means "none".
type Hash [sha256.Size]byte

const hexDigits = digits + "abcdef"

// HashOf returns the sha256 of b.
func HashOf(b []byte) Hash { return sha256.Sum256(b) }

// ParseHash reads 64 lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) || !only(s, hexDigits) {
		return Hash{}, fmt.Errorf("hash %.80q: want %d lower-case hex digits", s, 2*len(h))
	}
	_, err := hex.Decode(h[:], []byte(s))
	return h, err
}

// String returns 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes 64 lower-case hex digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText parses strictly.
func (h *Hash) UnmarshalText(b []byte) error { return parseInto(h, b, ParseHash) }
