package certs

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// Spec is everything that goes into a certificate. The broker computes all of it from signed statements; nothing
// is chosen by a client.
type Spec struct {
	Principal string         // pim-g-<stem>
	Key       statement.Key  // named by the holder's own signature
	From      statement.Time // valid from, inclusive
	Until     statement.Time // valid until, exclusive: the end of the grant's window
	Serial    uint64         // index of the event that recorded the issue: log before sign
	KeyID     string         // what sshd logs: 1 to 128 of a-z A-Z 0-9 and . _ - : @ =
}

const (
	prefix     = "pim-g-"
	stemLength = 26
	stemSet    = "abcdefghijklmnopqrstuvwxyz234567"
	keyIDSet   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@="
	permitPTY  = "permit-pty"
	maxKeyID   = 128
)

// Draft returns the unsigned certificate of a spec, asserted a second time on the certificate itself.
func Draft(s Spec) (*ssh.Certificate, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	cert := &ssh.Certificate{
		Key:             s.Key.Public(),
		Serial:          s.Serial,
		CertType:        ssh.UserCert,
		KeyId:           s.KeyID,
		ValidPrincipals: []string{s.Principal},
		ValidAfter:      uint64(s.From),
		ValidBefore:     uint64(s.Until),
		Permissions:     ssh.Permissions{Extensions: map[string]string{permitPTY: ""}},
	}
	if err := s.want(nil).checkWords(cert); err != nil {
		return nil, err
	}
	return cert, nil
}

// Sign drafts a certificate, has the CA sign it and judges the result as a host would, so that a CA that misbehaves
// is found out here. It returns one authorized_keys line with its newline. Randomness goes into the nonce.
func Sign(rand io.Reader, s Spec, ca ssh.Signer) ([]byte, error) {
	if ca == nil {
		return nil, errors.New("certificate: no ca to sign")
	}
	by, err := statement.KeyOf(ca.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("certificate: ca: %w", err)
	}
	cert, err := Draft(s)
	if err != nil {
		return nil, err
	}
	if err := cert.SignCert(rand, ca); err != nil {
		return nil, fmt.Errorf("certificate: signing: %w", err)
	}
	line := ssh.MarshalAuthorizedKey(cert)
	again, err := Parse(line)
	if err != nil {
		return nil, err
	}
	if err := Check(again, s.want([]statement.Key{by}), s.From); err != nil {
		return nil, err
	}
	return line, nil
}

func (s Spec) check() error {
	if err := checkPrincipal(s.Principal); err != nil {
		return err
	}
	if _, err := statement.ParseKey(string(s.Key)); err != nil {
		return err
	}
	switch {
	case s.From <= 0 || s.Until <= s.From:
		return fmt.Errorf("from %s until %s is no window", s.From, s.Until)
	case s.Until.Sub(s.From) > statement.MaxLifetime:
		return fmt.Errorf("from %s until %s is longer than a year", s.From, s.Until)
	case s.Serial == 0:
		return errors.New("no serial: its issue was not logged")
	case s.KeyID == "" || len(s.KeyID) > maxKeyID || !only(s.KeyID, keyIDSet):
		return fmt.Errorf("key id %.40q: want 1 to %d letters, digits and . _ - : @ =", s.KeyID, maxKeyID)
	}
	return nil
}

func (s Spec) want(cas []statement.Key) Want {
	return Want{Principal: s.Principal, Keys: []statement.Key{s.Key}, From: s.From, Until: s.Until, CAs: cas}
}

// checkPrincipal holds a principal to ^pim-g-[a-z2-7]{26}$: it can never be a login name.
func checkPrincipal(p string) error {
	stem, ok := strings.CutPrefix(p, prefix)
	if !ok || len(stem) != stemLength || !only(stem, stemSet) {
		return fmt.Errorf("principal %.60q: want %s and %d of a-z 2-7", p, prefix, stemLength)
	}
	return nil
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
