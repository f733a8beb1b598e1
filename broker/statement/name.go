package statement

import (
	"fmt"
	"strings"
)

// Person is a human in the policy: ^[a-z_][a-z0-9_-]{0,30}$.
type Person string

// Account is a Unix login name on a host: ^[a-z_][a-z0-9_-]{0,30}$.
type Account string

// HostName is a host's own name in the deployment: lower-case DNS labels, at most 253 bytes, never an address.
type HostName string

// RoleName names a role: ^[a-z][a-z0-9-]{0,62}$.
type RoleName string

// BrokerName names a broker in the policy: ^[a-z][a-z0-9-]{0,62}$.
type BrokerName string

// Disk is the id of the disk that a broker keeps the record on, drawn when the disk is made: 32 lower-case hex digits.
type Disk string

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// ParsePerson reads a person's name.
func ParsePerson(s string) (Person, error) {
	if !matches(s, lower+"_", lower+digits+"_-", 31) {
		return "", fmt.Errorf("person %.40q: want a lower-case letter or _, then at most 30 of a-z 0-9 _ -", s)
	}
	return Person(s), nil
}

// ParseAccount reads a Unix login name.
func ParseAccount(s string) (Account, error) {
	if !matches(s, lower+"_", lower+digits+"_-", 31) {
		return "", fmt.Errorf("account %.40q: want a lower-case letter or _, then at most 30 of a-z 0-9 _ -", s)
	}
	return Account(s), nil
}

// ParseRoleName reads the name of a role.
func ParseRoleName(s string) (RoleName, error) {
	if !matches(s, lower, lower+digits+"-", 63) {
		return "", fmt.Errorf("role %.80q: want a lower-case letter, then at most 62 of a-z 0-9 -", s)
	}
	return RoleName(s), nil
}

// ParseBrokerName reads the name of a broker.
func ParseBrokerName(s string) (BrokerName, error) {
	if !matches(s, lower, lower+digits+"-", 63) {
		return "", fmt.Errorf("broker %.80q: want a lower-case letter, then at most 62 of a-z 0-9 -", s)
	}
	return BrokerName(s), nil
}

// ParseDisk reads the id of a broker's disk.
func ParseDisk(s string) (Disk, error) {
	if len(s) != 32 || !only(s, hexDigits) {
		return "", fmt.Errorf("disk %.40q: want 32 lower-case hex digits, as pim-brokerd join prints them", s)
	}
	return Disk(s), nil
}

// ParseHostName reads a host's name. A last label of digits only is refused: that would be an address.
func ParseHostName(s string) (HostName, error) {
	if s == "" || len(s) > 253 {
		return "", fmt.Errorf("host %.80q: want 1 to 253 bytes", s)
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if !matches(label, lower+digits, lower+digits+"-", 63) || strings.HasSuffix(label, "-") {
			return "", fmt.Errorf("host %.80q: want lower-case DNS labels such as db1 or db1.example.org", s)
		}
	}
	if strings.Trim(labels[len(labels)-1], digits) == "" {
		return "", fmt.Errorf("host %.80q: want a name, not an address", s)
	}
	return HostName(s), nil
}

// UnmarshalText parses strictly, so that decoding is parsing.
func (p *Person) UnmarshalText(b []byte) error { return parseInto(p, b, ParsePerson) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (a *Account) UnmarshalText(b []byte) error { return parseInto(a, b, ParseAccount) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (h *HostName) UnmarshalText(b []byte) error { return parseInto(h, b, ParseHostName) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (r *RoleName) UnmarshalText(b []byte) error { return parseInto(r, b, ParseRoleName) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (n *BrokerName) UnmarshalText(b []byte) error { return parseInto(n, b, ParseBrokerName) }

// UnmarshalText parses strictly, so that decoding is parsing.
func (d *Disk) UnmarshalText(b []byte) error { return parseInto(d, b, ParseDisk) }

func parseInto[T any](into *T, text []byte, parse func(string) (T, error)) error {
	v, err := parse(string(text))
	if err != nil {
		return err
	}
	*into = v
	return nil
}

// matches reports whether s is one byte of first followed by bytes of rest, at most limit bytes in all.
func matches(s, first, rest string, limit int) bool {
	if s == "" || len(s) > limit || !strings.Contains(first, s[:1]) {
		return false
	}
	return only(s[1:], rest)
}

// only reports whether every byte of s is one of set.
func only(s, set string) bool {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			return false
		}
	}
	return true
}
