package totp

import (
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	library "github.com/pquerna/otp/totp"

	"pim-ssh/broker/statement"
)

// What people's apps expect: SHA-1, six digits, and a new code with each step.
const (
	Step     = statement.Seconds(30)
	Bytes    = 20 // of a seed
	Recovery = 10 // recovery codes of a seed
	version  = 1
)

// Seed is what a person's codes are made from. It has one spelling in JSON, which only ever stands in a sealed seed.
type Seed struct {
	V        int              `json:"v"`
	Person   statement.Person `json:"person"`   // whose it is: sealed, it serves nobody who copies it
	Secret   []byte           `json:"seed"`     // Bytes long
	Recovery []string         `json:"recovery"` // Recovery codes such as abcde-fgh23; each serves once, in place of a code
}

// Generate makes a person's seed from randomness.
func Generate(random io.Reader, person statement.Person) (Seed, error) {
	s := Seed{V: version, Person: person, Secret: make([]byte, Bytes)}
	if _, err := io.ReadFull(random, s.Secret); err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	for range Recovery {
		raw := make([]byte, 7)
		if _, err := io.ReadFull(random, raw); err != nil {
			return Seed{}, fmt.Errorf("recovery code: %w", err)
		}
		text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
		s.Recovery = append(s.Recovery, text[:5]+"-"+text[5:10])
	}
	return s, nil
}

func (s Seed) check() error {
	if s.V != version || len(s.Secret) != Bytes || len(s.Recovery) != Recovery {
		return fmt.Errorf("seed of version %d: want version %d, %d bytes and %d recovery codes", s.V, version, Bytes, Recovery)
	}
	if _, err := statement.ParsePerson(string(s.Person)); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	for _, code := range s.Recovery {
		if !statement.RecoveryCode(code) {
			return errors.New("seed: a recovery code is not such as abcde-fgh23")
		}
	}
	return nil
}

// Text is the seed as people type it into an app that cannot see: base32.
func (s Seed) Text() string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(s.Secret)
}

// URI is the seed as apps read it from a QR code: otpauth://totp/…
func (s Seed) URI(issuer string, person statement.Person) (string, error) {
	key, err := library.Generate(library.GenerateOpts{Issuer: issuer, AccountName: string(person), Secret: s.Secret, Period: uint(Step), Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return "", fmt.Errorf("seed: %w", err)
	}
	return key.URL(), nil
}

// StepAt is the number of the step that a moment is in: seconds since 1970, divided by Step.
func StepAt(at statement.Time) uint64 { return uint64(max(0, at.Std().Unix())) / uint64(Step) }

// Code is the seed's code of a step: six digits.
func (s Seed) Code(step uint64) (string, error) {
	return hotp.GenerateCodeCustom(s.Text(), step, hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
}

// Check returns of which step a code is, of those that clocks may disagree about: the one of the moment, the one before and the
// one after. It takes as long for a wrong code as for a right one.
func (s Seed) Check(code string, at statement.Time) (step uint64, right bool) {
	now := StepAt(at)
	for candidate := max(1, now) - 1; candidate <= now+1; candidate++ {
		want, err := s.Code(candidate)
		if err == nil && same(want, code) {
			step, right = candidate, true
		}
	}
	return step, right
}

// CheckRecovery returns which recovery code this is, from 1 on, and 0 when it is none.
func (s Seed) CheckRecovery(code string) int {
	found := 0
	for i, one := range s.Recovery {
		found = max(found, (i+1)*subtle.ConstantTimeCompare([]byte(one), []byte(code)))
	}
	return found
}

func same(want, code string) bool { return subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 }

// String shows nothing of the seed, wherever it may be printed.
func (s Seed) String() string { return "seed" }
