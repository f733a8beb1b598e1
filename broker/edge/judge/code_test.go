package judge

import (
	"crypto/rand"
	"errors"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/broker/totp"
	"pim-ssh/packaging/lab/forger"
)

// TestACodeIsWhatTheSealedSeedSays judges codes as one of two brokers, and as one that came later.
func TestACodeIsWhatTheSealedSeedSays(t *testing.T) {
	private, signer := forger.PrivateKey(t)
	later, _ := forger.PrivateKey(t)
	seed, err := totp.Generate(rand.Reader, "alice")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := totp.Seal(seed, signtest.Public(forger.Key(t)), signtest.Public(signer))
	if err != nil {
		t.Fatal(err)
	}
	now := forger.Now()
	step := totp.StepAt(now)
	right, err := seed.Code(step)
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		code string
		want broker.CodeJudged
	}{
		"right":                  {right, broker.CodeJudged{Right: true, Step: step}},
		"wrong":                  {string('0'+('9'-right[0])) + right[1:], broker.CodeJudged{}},
		"a recovery code":        {seed.Recovery[6], broker.CodeJudged{Right: true, Recovery: 7}},
		"no recovery code of it": {"aaaaa-aaaaa", broker.CodeJudged{}},
	} {
		if got, err := Code(sealed, private, "alice", try.code, now); err != nil || *got != try.want {
			t.Errorf("%s: %+v, %v: want %+v", name, got, err, try.want)
		}
	}
	if _, err := Code(sealed, later, "alice", right, now); !errors.Is(err, totp.ErrForeign) {
		t.Errorf("a broker that came later says %v", err)
	}
	if _, err := Code(sealed, private, "bob", right, now); err == nil {
		t.Error("a copied seed is judged for whoever copied it")
	}
	if _, err := Code(nil, private, "alice", right, now); err == nil {
		t.Error("nothing is a seed")
	}
}
