package statement

import (
	"errors"
	"fmt"
)

// MaxSealed is the largest sealed seed in bytes.
const MaxSealed = 16 << 10

// FactorChange says what a factor statement does.
type FactorChange string

// The closed set of changes to a person's second factor.
const (
	EnrolFactor FactorChange = "enrol" // a new seed for the signer
	ResetFactor FactorChange = "reset" // an operator takes Of's seed away, so that Of can enrol again
)

// Factor changes the seed that a person's codes are made from.
type Factor struct {
	Head   `json:",embed"`
	Action FactorChange `json:"action"`
	Sealed []byte       `json:"sealed,omitempty"` // with enrol: an age file to the identities of brokers; holds seed and recovery codes
	First  string       `json:"first,omitzero"`   // with enrol: a code of the new seed
	Code   string       `json:"code,omitzero"`    // with enrol: a code of the seed it replaces, or a recovery code
	Of     Person       `json:"of,omitzero"`      // with reset
	Reason string       `json:"reason,omitzero"`
}

func (f Factor) check() error {
	if err := first(f.Head.check(KindFactor, byPerson), checkReason(f.Reason, f.Action == ResetFactor)); err != nil {
		return err
	}
	switch f.Action {
	case EnrolFactor:
		if len(f.Sealed) == 0 || len(f.Sealed) > MaxSealed {
			return fmt.Errorf("sealed: %d bytes: want 1 to %d", len(f.Sealed), MaxSealed)
		}
		if f.Of != "" || f.First == "" {
			return errors.New("enrol: wants the first code of the new seed, and nobody's name")
		}
		return first(checkCode("first", f.First), checkCode("code", f.Code))
	case ResetFactor:
		if len(f.Sealed) != 0 || f.First != "" || f.Code != "" {
			return errors.New("reset: wants a person and a reason, and no codes")
		}
		return parses("of", f.Of, ParsePerson)
	default:
		return fmt.Errorf("action %.20q: want enrol or reset", f.Action)
	}
}

// checkCode holds a code to its two spellings: six ASCII digits, or a recovery code of 5+1+5 of a-z 2-7; "" is none.
func checkCode(field, code string) error {
	switch {
	case code == "", len(code) == 6 && only(code, digits), RecoveryCode(code):
		return nil
	default:
		return fmt.Errorf("%s: want six digits, or a recovery code such as abcde-fgh23", field)
	}
}

// RecoveryCode reports whether a code has the spelling of a recovery code.
func RecoveryCode(code string) bool {
	return len(code) == 11 && code[5] == '-' && only(code[:5]+code[6:], lower+"234567")
}

// Review closes what an emergency grant left open: somebody who would have approved it has looked at what was done.
type Review struct {
	Head   `json:",embed"`
	Grant  string `json:"grant"` // g-<stem>
	Reason string `json:"reason"`
}

func (r Review) check() error {
	return first(r.Head.check(KindReview, byPerson), checkID("grant", r.Grant, "g-"), checkReason(r.Reason, true))
}

// Renewal asks the stewards for a later end of the signer's dated eligibility. Only a policy revision gives it.
type Renewal struct {
	Head   `json:",embed"`
	Role   RoleName `json:"role"`
	Until  Time     `json:"until"`
	Reason string   `json:"reason"`
}

func (r Renewal) check() error {
	return first(
		r.Head.check(KindRenewal, byPerson),
		parses("role", r.Role, ParseRoleName),
		within("until", r.Until, r.Created+1, r.Created.Add(MaxLifetime)),
		checkReason(r.Reason, true),
	)
}
