package broker

import (
	"encoding/base32"
	"fmt"
	"strings"

	"pim-ssh/broker/statement"
)

// Stem is what a request, its grant, its unit and its principal have in common: the first 26 characters of lower
// base32 (a–z2–7) of the sha256 of the request's payload.
type Stem string

// RequestID is "r-" and the stem.
type RequestID string

// GrantID is "g-" and the stem.
type GrantID string

const (
	stemLength    = 26
	stemAlphabet  = "abcdefghijklmnopqrstuvwxyz234567"
	requestPrefix = "r-"
	grantPrefix   = "g-"
	unitPrefix    = "pim-g-"
	unitSuffix    = ".service"
)

var stemEncoding = base32.NewEncoding(stemAlphabet).WithPadding(base32.NoPadding)

// StemOf returns the stem of the request whose payload has this hash.
func StemOf(request statement.Hash) Stem {
	return Stem(stemEncoding.EncodeToString(request[:])[:stemLength])
}

// ParseStem reads exactly 26 of a–z 2–7.
func ParseStem(s string) (Stem, error) {
	if len(s) != stemLength || strings.Trim(s, stemAlphabet) != "" {
		return "", fmt.Errorf("stem %.40q: want %d of a-z 2-7", s, stemLength)
	}
	return Stem(s), nil
}

// ParseRequestID reads "r-" and a stem.
func ParseRequestID(s string) (RequestID, error) {
	stem, err := cutID(s, requestPrefix)
	if err != nil {
		return "", fmt.Errorf("request %.40q: want r- and %d of a-z 2-7", s, stemLength)
	}
	return stem.Request(), nil
}

// ParseGrantID reads "g-" and a stem.
func ParseGrantID(s string) (GrantID, error) {
	stem, err := cutID(s, grantPrefix)
	if err != nil {
		return "", fmt.Errorf("grant %.40q: want g- and %d of a-z 2-7", s, stemLength)
	}
	return stem.Grant(), nil
}

// ParsePrincipal reads a certificate principal, "pim-g-" and a stem.
func ParsePrincipal(s string) (Stem, error) { return cutID(s, unitPrefix) }

// ParseUnit reads a unit's name, "pim-g-", a stem and ".service".
func ParseUnit(s string) (Stem, error) {
	principal, ok := strings.CutSuffix(s, unitSuffix)
	if !ok {
		return "", fmt.Errorf("unit %.60q: want %s<stem>%s", s, unitPrefix, unitSuffix)
	}
	return cutID(principal, unitPrefix)
}

func cutID(s, prefix string) (Stem, error) {
	stem, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return "", fmt.Errorf("id %.40q: want %s<stem>", s, prefix)
	}
	return ParseStem(stem)
}

// Request returns the request's id.
func (s Stem) Request() RequestID { return RequestID(requestPrefix + string(s)) }

// Grant returns the grant's id.
func (s Stem) Grant() GrantID { return GrantID(grantPrefix + string(s)) }

// Principal returns the one principal of the grant's certificates.
func (s Stem) Principal() string { return unitPrefix + string(s) }

// Unit returns the name of the systemd unit that holds the grant's processes.
func (s Stem) Unit() string { return unitPrefix + string(s) + unitSuffix }

// SudoersFile returns the grant's file name in /run/pim-ssh/sudoers.d.
func (s Stem) SudoersFile() string { return grantPrefix + string(s) }

// Stem returns the id without its prefix.
func (id RequestID) Stem() Stem { return Stem(strings.TrimPrefix(string(id), requestPrefix)) }

// Stem returns the id without its prefix.
func (id GrantID) Stem() Stem { return Stem(strings.TrimPrefix(string(id), grantPrefix)) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (s *Stem) UnmarshalText(b []byte) error { return parseInto(s, b, ParseStem) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (id *RequestID) UnmarshalText(b []byte) error { return parseInto(id, b, ParseRequestID) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (id *GrantID) UnmarshalText(b []byte) error { return parseInto(id, b, ParseGrantID) }

func parseInto[T any](into *T, text []byte, parse func(string) (T, error)) error {
	v, err := parse(string(text))
	if err != nil {
		return err
	}
	*into = v
	return nil
}
