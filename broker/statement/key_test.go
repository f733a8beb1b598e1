package statement_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// sha1Signer signs as rsa keys did before rsa-sha2.
type sha1Signer struct{ rsa signtest.Key }

func (s sha1Signer) PublicKey() ssh.PublicKey { return s.rsa.PublicKey() }
func (s sha1Signer) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return s.rsa.SignWithAlgorithm(r, data, ssh.KeyAlgoRSA)
}

// claimed signs under another public key than its own.
type claimed struct {
	ssh.Signer
	public ssh.PublicKey
}

func (c claimed) PublicKey() ssh.PublicKey { return c.public }

func weakSigners(t testing.TB) map[string]ssh.Signer {
	t.Helper()
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dss, _, _, _, err := ssh.ParseAuthorizedKey(read(t, "dss.pub"))
	if err != nil {
		t.Fatal(err)
	}
	plain := signtest.Ed25519("alice")
	certificate := &ssh.Certificate{Key: plain.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"alice"}}
	if err := certificate.SignCert(rand.Reader, signtest.Ed25519("ca")); err != nil {
		t.Fatal(err)
	}
	out := map[string]ssh.Signer{
		"rsa of 2048 bits": signtest.RSA(2048),
		"a certificate":    claimed{plain, certificate},
		"dss":              claimed{plain, dss},
	}
	for name, private := range map[string]any{"ecdsa-p384": signtest.P384("alice"), "ecdsa-p521": p521} {
		if out[name], err = ssh.NewSignerFromKey(private); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestWrongKeyIsRefused(t *testing.T) {
	good := string(signtest.Public(signtest.Ed25519("alice")))
	kind, text, _ := strings.Cut(good, " ")
	padded := string(signtest.Public(signtest.ECDSA("alice")))
	if !strings.HasSuffix(padded, "=") {
		t.Fatal("want a key whose base64 is padded")
	}
	spelt := func(parts any) string {
		blob := ssh.Marshal(parts)
		algorithm, _, _ := strings.Cut(string(blob[4:]), "\x00")
		return algorithm + " " + base64.StdEncoding.EncodeToString(blob)
	}
	type rsaKey struct {
		Type string
		E, N *big.Int
	}
	odd := new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 3071), 0, 1)
	type pair struct{ Type, Point string }
	type security struct{ Type, Point, Application string }
	point := string(signtest.Ed25519("alice").PublicKey().Marshal()[19:])
	cases := map[string]string{
		"nothing":                        "",
		"only a type":                    kind,
		"a comment":                      good + " alice@laptop",
		"a newline":                      good + "\n",
		"two spaces":                     kind + "  " + text,
		"a tab":                          kind + "\t" + text,
		"another spelling of base64":     padded[:len(padded)-2] + string(padded[len(padded)-2]+1) + "=",
		"options":                        `command="id" ` + good,
		"a certificate marker":           "cert-authority " + good,
		"another type's name":            "ssh-rsa " + text,
		"no padding":                     strings.TrimRight(padded, "="),
		"junk after the key":             kind + " " + base64.StdEncoding.EncodeToString(append(signtest.Ed25519("alice").PublicKey().Marshal(), 0)),
		"a huge line":                    kind + " " + strings.Repeat("A", 1<<20),
		"rsa with exponent 3":            spelt(rsaKey{"ssh-rsa", big.NewInt(3), odd}),
		"rsa with an even exponent":      spelt(rsaKey{"ssh-rsa", big.NewInt(65538), odd}),
		"rsa with an even modulus":       spelt(rsaKey{"ssh-rsa", big.NewInt(65537), new(big.Int).Lsh(big.NewInt(1), 3071)}),
		"rsa of 3071 bits":               spelt(rsaKey{"ssh-rsa", big.NewInt(65537), new(big.Int).Rsh(odd, 1)}),
		"rsa of 8193 bits":               spelt(rsaKey{"ssh-rsa", big.NewInt(65537), new(big.Int).SetBit(big.NewInt(1), 8192, 1)}),
		"a negative rsa modulus":         spelt(rsaKey{"ssh-rsa", big.NewInt(65537), new(big.Int).Neg(odd)}),
		"ed25519 of 31 bytes":            spelt(pair{"ssh-ed25519", point[:31]}),
		"a second spelling of zero":      spelt(pair{"ssh-ed25519", "\xed" + strings.Repeat("\xff", 30) + "\x7f"}),
		"a point that is not canonical":  spelt(pair{"ssh-ed25519", "\xf5" + strings.Repeat("\xff", 30) + "\x7f"}),
		"a security key for a web site":  spelt(security{ssh.KeyAlgoSKED25519, point, "https://example.org"}),
		"a security key for nothing":     spelt(security{ssh.KeyAlgoSKED25519, point, ""}),
		"a security key, escapes in it":  spelt(security{ssh.KeyAlgoSKED25519, point, "ssh:\x1b[2J"}),
		"a security key of small order":  spelt(security{ssh.KeyAlgoSKED25519, "\x01" + strings.Repeat("\x00", 31), "ssh:"}),
		"a point off the curve":          spelt(struct{ Type, Curve, Point string }{ssh.KeyAlgoECDSA256, "nistp256", "\x04" + strings.Repeat("\x01", 64)}),
		"a compressed point":             spelt(struct{ Type, Curve, Point string }{ssh.KeyAlgoECDSA256, "nistp256", "\x02" + strings.Repeat("\x01", 32)}),
		"the point at infinity":          spelt(struct{ Type, Curve, Point string }{ssh.KeyAlgoECDSA256, "nistp256", "\x00"}),
		"one curve under another's name": spelt(struct{ Type, Curve, Point string }{ssh.KeyAlgoECDSA256, "nistp384", "\x00"}),
	}
	for name, signer := range weakSigners(t) {
		cases[name] = strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "\n")
	}
	for name, s := range cases {
		if k, err := statement.ParseKey(s); err == nil {
			t.Errorf("%s: parsed as %q", name, k)
		}
	}
}

func TestKeyGoesThereAndBack(t *testing.T) {
	for name, signer := range signtest.Every("alice") {
		k := signtest.Public(signer)
		again, err := statement.ParseKey(string(k))
		if err != nil || again != k || !slices.Equal(k.Public().Marshal(), signer.PublicKey().Marshal()) {
			t.Errorf("%s: %q became %q: %v", name, k, again, err)
		}
		if k.SecurityKey() != strings.HasPrefix(name, "sk-") {
			t.Errorf("%s: security key: %v", name, k.SecurityKey())
		}
	}
	var none statement.Key
	if none.Public() != nil || none.SecurityKey() || none.Fingerprint() != "" {
		t.Error("the zero key is some key")
	}
}

// Under a key of small order anybody signs anything. The naive curve finds all of them by itself: eight times such a
// point is the neutral element.
func TestEveryPointOfSmallOrderIsRefused(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	found := 0
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	} {
		y, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		big8 := slices.Clone(y)
		slices.Reverse(big8)
		if !eighthIsNeutral(new(big.Int).SetBytes(big8), p) {
			t.Errorf("%s is not of small order", text)
		}
		for _, sign := range []byte{0, 0x80} {
			point := slices.Clone(y)
			point[31] |= sign
			found++
			blob := ssh.Marshal(struct {
				Type  string
				Point []byte
			}{"ssh-ed25519", point})
			if k, err := statement.ParseKey("ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob)); err == nil {
				t.Errorf("%x parsed as %q", point, k)
			}
		}
	}
	if found != 10 {
		t.Errorf("%d spellings", found)
	}
}

// eighthIsNeutral doubles the y coordinate three times on -x² + y² = 1 + d x² y².
func eighthIsNeutral(y, p *big.Int) bool {
	mod := func(n *big.Int) *big.Int { return new(big.Int).Mod(n, p) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	one := big.NewInt(1)
	d := mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), p))
	for range 3 {
		yy := mul(y, y)
		// x² = (y² − 1) / (d y² + 1);  y(2P) = (y² + x²) / (1 − d x² y²)
		xx := mul(mod(new(big.Int).Sub(yy, one)), new(big.Int).ModInverse(mod(new(big.Int).Add(mul(d, yy), one)), p))
		below := mod(new(big.Int).Sub(one, mul(d, mul(xx, yy))))
		y = mul(mod(new(big.Int).Add(yy, xx)), new(big.Int).ModInverse(below, p))
	}
	return y.Cmp(one) == 0
}
