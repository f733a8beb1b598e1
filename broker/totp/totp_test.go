package totp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

func seed(t *testing.T) Seed {
	t.Helper()
	s, err := Generate(rand.Reader, "alice")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func identity(t *testing.T) (ed25519.PrivateKey, statement.Key) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return private, signtest.Public(signer)
}

// TestOathtoolAgrees has Debian's oathtool make the codes of a thousand random seeds at random moments.
func TestOathtoolAgrees(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(6238, 4226))
	for i := range 1000 {
		s, at := seed(t), statement.Time(1+random.Int64N(1<<32))
		out, err := exec.Command("oathtool", "--totp", "--now", at.Std().UTC().Format("2006-01-02 15:04:05 UTC"), hex.EncodeToString(s.Secret)).Output()
		if err != nil {
			t.Fatalf("oathtool (make deps installs it): %v", err)
		}
		code := strings.TrimSpace(string(out))
		if own, err := s.Code(StepAt(at)); err != nil || own != code {
			t.Fatalf("%d: at %s oathtool says %s, we %s, %v", i, at, code, own, err)
		}
		if step, right := s.Check(code, at); !right || step+1 < StepAt(at) || step > StepAt(at)+1 {
			t.Fatalf("%d: oathtool's code %s at %s: step %d, %t", i, code, at, step, right)
		}
	}
}

// TestTheVectorsOfTheStandardHold are RFC 6238's, cut to six digits.
func TestTheVectorsOfTheStandardHold(t *testing.T) {
	s := Seed{V: 1, Secret: []byte("12345678901234567890")}
	for at, want := range map[statement.Time]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if code, err := s.Code(StepAt(at)); err != nil || code != want {
			t.Errorf("at %d: %s, %v: want %s", at, code, err, want)
		}
	}
}

// TestOneStepEitherSideAndNoFurther tries the codes around a moment.
func TestOneStepEitherSideAndNoFurther(t *testing.T) {
	s, at := seed(t), statement.TimeOf(time.Now())
	for away := -3; away <= 3; away++ {
		step := StepAt(at) + uint64(away)
		code, err := s.Code(step)
		if err != nil {
			t.Fatal(err)
		}
		got, right := s.Check(code, at)
		if want := away >= -1 && away <= 1; right != want || right && got != step {
			t.Errorf("%d steps away: %t at %d, want %t at %d", away, right, got, want, step)
		}
	}
}

// TestThreatMFACodesHaveOneSpelling offers a right code in other digits, with spaces and cut.
func TestThreatMFACodesHaveOneSpelling(t *testing.T) {
	s, at := seed(t), statement.TimeOf(time.Now())
	code, err := s.Code(StepAt(at))
	if err != nil {
		t.Fatal(err)
	}
	wide := strings.Map(func(r rune) rune { return r - '0' + '０' }, code)
	for name, odd := range map[string]string{"full-width digits": wide, "a space before": " " + code, "a space after": code + " ", "a space within": code[:3] + " " + code[3:],
		"a newline": code + "\n", "none": "", "cut": code[:5], "a digit more": code + "0", "a sign": "+" + code, "arabic digits": strings.Map(func(r rune) rune { return r - '0' + '٠' }, code)} {
		if step, right := s.Check(odd, at); right || step != 0 {
			t.Errorf("%s: %q is taken for step %d", name, odd, step)
		}
		if n := s.CheckRecovery(odd); n != 0 {
			t.Errorf("%s: %q is taken for recovery code %d", name, odd, n)
		}
	}
}

// TestRecoveryCodesAreTenAndDistinct knows each by its number, and nothing else.
func TestRecoveryCodesAreTenAndDistinct(t *testing.T) {
	s, other := seed(t), seed(t)
	for i, code := range s.Recovery {
		if !statement.RecoveryCode(code) {
			t.Errorf("%q is not spelled as a statement wants it", code)
		}
		if n := s.CheckRecovery(code); n != i+1 {
			t.Errorf("code %d is taken for %d", i+1, n)
		}
		if n := other.CheckRecovery(code); n != 0 {
			t.Errorf("another seed's code is taken for %d", n)
		}
		if n := s.CheckRecovery(strings.ToUpper(code)); n != 0 {
			t.Errorf("an upper-case code is taken for %d", n)
		}
	}
}

// TestASealedSeedIsForItsBrokersAlone opens one with each of its keys, with another, and after every byte was altered.
func TestASealedSeedIsForItsBrokersAlone(t *testing.T) {
	s := seed(t)
	first, one := identity(t)
	second, two := identity(t)
	other, _ := identity(t)
	sealed, err := Seal(s, one, two)
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []ed25519.PrivateKey{first, second} {
		if got, err := Unseal(sealed, private); err != nil || !bytes.Equal(got.Secret, s.Secret) || fmt.Sprint(got.Recovery) != fmt.Sprint(s.Recovery) {
			t.Errorf("its broker gets %v", err)
		}
	}
	if _, err := Unseal(sealed, other); !errors.Is(err, ErrForeign) {
		t.Errorf("another broker gets %v", err)
	}
	for _, secret := range append([]string{string(s.Secret), s.Text()}, s.Recovery...) {
		if bytes.Contains(sealed, []byte(secret)) {
			t.Error("the sealed seed shows what it holds")
		}
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		if _, err := Unseal(altered, first); err == nil {
			t.Errorf("byte %d may be altered", i)
		}
	}
}

// TestWhatIsNoSeedIsRefused seals what a person may seal who means harm.
func TestWhatIsNoSeedIsRefused(t *testing.T) {
	private, key := identity(t)
	codes := `"aaaaa-aaaaa"` + strings.Repeat(`,"aaaaa-aaaaa"`, 9)
	good := `{"v":1,"person":"alice","seed":"AAAAAAAAAAAAAAAAAAAAAAAAAAA=","recovery":[` + codes + `]}`
	for name, plain := range map[string]string{
		"nothing":               "",
		"another version":       strings.Replace(good, `"v":1`, `"v":2`, 1),
		"nobody's":              strings.Replace(good, `"alice"`, `""`, 1),
		"a short seed":          strings.Replace(good, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AAAA", 1),
		"no recovery codes":     strings.Replace(good, codes, "", 1),
		"an odd recovery code":  strings.Replace(good, `["aaaaa-aaaaa"`, `["123456"`, 1),
		"an empty one":          strings.Replace(good, `["aaaaa-aaaaa"`, `[""`, 1),
		"an unknown member":     strings.Replace(good, `"v":1`, `"v":1,"w":1`, 1),
		"the same member twice": strings.Replace(good, `"v":1`, `"v":1,"v":1`, 1),
		"trailing data":         good + "{}",
	} {
		if _, err := Unseal(encrypt(t, key, plain), private); err == nil {
			t.Errorf("%s is a seed", name)
		}
	}
	if _, err := Unseal(encrypt(t, key, good), private); err != nil {
		t.Errorf("what is right is refused: %v", err)
	}
	if _, err := Seal(Seed{}, key); err == nil {
		t.Error("an empty seed is sealed")
	}
	if _, err := Seal(seed(t)); err == nil {
		t.Error("a seed is sealed to nobody")
	}
}

func encrypt(t *testing.T, key statement.Key, plain string) []byte {
	t.Helper()
	recipient, err := agessh.NewEd25519Recipient(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	out, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return sealed.Bytes()
}

// TestAppsReadTheURI takes it apart as an app does.
func TestAppsReadTheURI(t *testing.T) {
	s := seed(t)
	text, err := s.URI("pim-ssh", "alice")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/pim-ssh:alice" {
		t.Errorf("%s: %v", text, err)
	}
	for name, want := range map[string]string{"secret": s.Text(), "issuer": "pim-ssh", "period": "30", "digits": "6", "algorithm": "SHA1"} {
		if got := u.Query().Get(name); got != want {
			t.Errorf("%s is %q: want %q", name, got, want)
		}
	}
	if said := fmt.Sprint(s); said != "seed" {
		t.Errorf("printed, it says %s", said)
	}
}
