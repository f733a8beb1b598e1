package judge

import (
	"crypto/ed25519"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/totp"
)

// Code says what a code is to a person's sealed seed, which this broker's identity opens. A seed that it does not open is an
// error: the code may be right, and is not counted as wrong.
func Code(sealed []byte, identity ed25519.PrivateKey, code string, at statement.Time) (*broker.CodeJudged, error) {
	seed, err := totp.Unseal(sealed, identity)
	if err != nil {
		return nil, err
	}
	if statement.RecoveryCode(code) {
		n := seed.CheckRecovery(code)
		return &broker.CodeJudged{Right: n != 0, Recovery: n}, nil
	}
	step, right := seed.Check(code, at)
	return &broker.CodeJudged{Right: right, Step: step}, nil
}
