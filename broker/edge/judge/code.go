package judge

import (
	"crypto/ed25519"
	"errors"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/totp"
)

// ErrOthers says that a seed is not the person's whose codes are to be judged: who copied it could try codes of its owner's.
var ErrOthers = errors.New("the seed is somebody else's")

// Code says what a code is to a person's sealed seed, which this broker's identity opens. A seed that it does not open is an
// error: the code may be right, and is not counted as wrong.
func Code(sealed []byte, identity ed25519.PrivateKey, person statement.Person, code string, at statement.Time) (*broker.CodeJudged, error) {
	seed, err := totp.Unseal(sealed, identity)
	if err != nil {
		return nil, err
	}
	if seed.Person != person {
		return nil, ErrOthers
	}
	if statement.RecoveryCode(code) {
		n := seed.CheckRecovery(code)
		return &broker.CodeJudged{Right: n != 0, Recovery: n}, nil
	}
	step, right := seed.Check(code, at)
	return &broker.CodeJudged{Right: right, Step: step}, nil
}
