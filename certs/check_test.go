package certs_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/certs"
)

// THREATS host: what a broker that is owned signs with a real CA key, and what a thief without one tries.
func TestWrongCertificateIsRefused(t *testing.T) {
	type cert = ssh.Certificate
	p384, err := ssh.NewSignerFromKey(signtest.P384("x"))
	if err != nil {
		t.Fatal(err)
	}
	made := func(edit func(*cert)) *cert { return mint(t, ca, edit) }
	spoilt := func(edit func(*cert)) *cert {
		c := made(func(*cert) {})
		edit(c)
		return c
	}
	extension := func(name, value string) func(*cert) {
		return func(c *cert) { c.Extensions = map[string]string{name: value} }
	}
	for name, c := range map[string]struct {
		cert *cert
		want string
	}{
		"none":                               {nil, "none given"},
		"the zero certificate":               {&cert{}, "none given"},
		"a foreign ca's":                     {mint(t, signtest.Ed25519("foreign"), func(*cert) {}), "no ca of ours"},
		"the holder's own":                   {mint(t, laptop, func(*cert) {}), "no ca of ours"},
		"a weak ca's":                        {mint(t, signtest.RSA(2048), func(*cert) {}), "2048 bits"},
		"a foreign ca's under our ca's name": {spoilt(func(c *cert) { c.Signature = mint(t, laptop, func(*cert) {}).Signature }), "does not verify"},
		"of host type":                       {made(func(c *cert) { c.CertType = ssh.HostCert }), "user certificate"},
		"of no type":                         {made(func(c *cert) { c.CertType = 0 }), "user certificate"},
		"of both types":                      {made(func(c *cert) { c.CertType = 3 }), "user certificate"},
		"without principals":                 {made(func(c *cert) { c.ValidPrincipals = nil }), "principals"},
		"with an empty principal":            {made(func(c *cert) { c.ValidPrincipals = []string{""} }), "principals"},
		"for root":                           {made(func(c *cert) { c.ValidPrincipals = []string{"root"} }), "principals"},
		"for alice":                          {made(func(c *cert) { c.ValidPrincipals = []string{"alice"} }), "principals"},
		"for breakglass":                     {made(func(c *cert) { c.ValidPrincipals = []string{"breakglass"} }), "principals"},
		"for another grant":                  {made(func(c *cert) { c.ValidPrincipals = []string{another} }), "principals"},
		"for the grant and root":             {made(func(c *cert) { c.ValidPrincipals = []string{principal, "root"} }), "principals"},
		"for the grant twice":                {made(func(c *cert) { c.ValidPrincipals = []string{principal, principal} }), "principals"},
		"for the grant with a NUL":           {made(func(c *cert) { c.ValidPrincipals = []string{principal + "\x00"} }), "principals"},
		"for both in one, by a comma":        {made(func(c *cert) { c.ValidPrincipals = []string{principal + ",root"} }), "principals"},
		"for another person's key":           {made(func(c *cert) { c.Key = signtest.Ed25519("mallory").PublicKey() }), "never named"},
		"for a weak key":                     {made(func(c *cert) { c.Key = p384.PublicKey() }), "key of type"},
		"with X11":                           {made(extension("permit-X11-forwarding", "")), "extensions"},
		"with port forwarding":               {made(extension("permit-port-forwarding", "")), "extensions"},
		"with user rc":                       {made(extension("permit-user-rc", "")), "extensions"},
		"with a value on permit-pty":         {made(extension("permit-pty", "x")), "extensions"},
		"with permit-PTY":                    {made(extension("permit-PTY", "")), "extensions"},
		"with an empty extension":            {made(extension("", "")), "extensions"},
		"with a forced command":              {made(func(c *cert) { c.CriticalOptions = map[string]string{"force-command": "id"} }), "critical"},
		"with verify-required":               {made(func(c *cert) { c.CriticalOptions = map[string]string{"verify-required": ""} }), "critical"},
		"with data in reserve":               {made(func(c *cert) { c.Reserved = []byte("x") }), "reserved"},
		"valid longer":                       {made(func(c *cert) { c.ValidBefore++ }), "window"},
		"valid earlier":                      {made(func(c *cert) { c.ValidAfter-- }), "window"},
		"valid from 1970":                    {made(func(c *cert) { c.ValidAfter = 0 }), "window"},
		"valid for ever":                     {made(func(c *cert) { c.ValidBefore = ssh.CertTimeInfinity }), "window"},
		"valid nearly for ever":              {made(func(c *cert) { c.ValidBefore = ssh.CertTimeInfinity - 1 }), "window"},
		"valid for negative time":            {made(func(c *cert) { c.ValidBefore = 1 << 63 }), "window"},
		"valid backwards":                    {made(func(c *cert) { c.ValidAfter, c.ValidBefore = c.ValidBefore, c.ValidAfter }), "window"},
		"over":                               {made(func(c *cert) { c.ValidBefore = uint64(from + 1800) }), "expired"},
		"not begun":                          {made(func(c *cert) { c.ValidAfter = uint64(from + 1801) }), "not valid before"},
		"edited after signing":               {spoilt(func(c *cert) { c.Serial++ }), "does not verify"},
		"given a later end after signing":    {spoilt(func(c *cert) { c.ValidBefore-- }), "does not verify"},
		"without signature":                  {spoilt(func(c *cert) { c.Signature = nil }), "none given"},
		"with data after the signature":      {spoilt(func(c *cert) { c.Signature.Rest = []byte("x") }), "after the signature"},
		"of another algorithm":               {spoilt(func(c *cert) { c.Signature.Format = "ssh-rsa" }), "does not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			err := certs.Check(c.cert, want(), from+1800)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestSHA1SignatureByAnRSACAIsRefused(t *testing.T) {
	rsa := signtest.RSA(3072)
	old := brokenCA{rsa, func(d []byte) (*ssh.Signature, error) { return rsa.SignWithAlgorithm(rand.Reader, d, ssh.KeyAlgoRSA) }}
	w := want()
	w.CAs = []statement.Key{signtest.Public(rsa)}
	good := mint(t, rsa, func(*ssh.Certificate) {})
	if err := certs.Check(good, w, from); err != nil {
		t.Fatal(err)
	}
	if err := certs.Check(mint(t, old, func(*ssh.Certificate) {}), w, from); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("got %v", err)
	}
}

// Deny is the zero value: an empty list never means everybody.
func TestWantThatAsksForNothingFitsNothing(t *testing.T) {
	good := mint(t, ca, func(*ssh.Certificate) {})
	if err := certs.Check(good, want(), from); err != nil {
		t.Fatal(err)
	}
	anyone := mint(t, ca, func(c *ssh.Certificate) { c.ValidPrincipals = nil })
	for name, edit := range map[string]func(*certs.Want){
		"at all":         func(w *certs.Want) { *w = certs.Want{} },
		"no principal":   func(w *certs.Want) { w.Principal = "" },
		"no keys":        func(w *certs.Want) { w.Keys = nil },
		"no cas":         func(w *certs.Want) { w.CAs = nil },
		"no beginning":   func(w *certs.Want) { w.From = 0 },
		"no end":         func(w *certs.Want) { w.Until = 0 },
		"a negative end": func(w *certs.Want) { w.Until = -1 },
	} {
		w := want()
		edit(&w)
		for _, c := range []*ssh.Certificate{good, anyone} {
			if certs.Check(c, w, from) == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	}
}

// The window is half open: its first second works, its end does not.
func TestCertificateWorksInItsWindowAndNeverAfter(t *testing.T) {
	good := mint(t, ca, func(*ssh.Certificate) {})
	for now, ok := range map[statement.Time]bool{0: false, -1: false, from - 1: false, from: true, until - 1: true, until: false, until + 1: false, 1 << 62: false} {
		if err := certs.Check(good, want(), now); (err == nil) != ok {
			t.Errorf("at %d: %v", now, err)
		}
	}
}

// THREATS issuing: a certificate offered as public key, deep nesting; size cap before parse.
func TestWrongLineIsRefused(t *testing.T) {
	good := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(mint(t, ca, func(*ssh.Certificate) {})), []byte("\n"))
	if _, err := certs.Parse(append(bytes.Clone(good), '\n')); err != nil {
		t.Fatal(err)
	}
	kind, text, _ := strings.Cut(string(good), " ")
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	nested := nest(blob, 1)
	line := func(blob []byte) string { return kind + " " + base64.StdEncoding.EncodeToString(blob) }
	for name, s := range map[string]string{
		"nothing":                     "",
		"a type only":                 kind,
		"a plain key":                 string(signtest.Public(laptop)),
		"another type's name":         "ssh-rsa-cert-v01@openssh.com " + text,
		"a plain type's name":         "ssh-ed25519 " + text,
		"a comment":                   string(good) + " alice",
		"options":                     "no-pty " + string(good),
		"a cert-authority marker":     "cert-authority " + string(good),
		"two lines":                   string(good) + "\n" + string(good),
		"two newlines":                string(good) + "\n\n",
		"a newline inside":            string(good[:80]) + "\n" + string(good[80:]),
		"a carriage return":           string(good) + "\r\n",
		"a NUL":                       string(good) + "\x00",
		"cut short":                   line(blob[:len(blob)-1]),
		"data after it":               line(append(bytes.Clone(blob), 0)),
		"too long":                    kind + " " + strings.Repeat("A", certs.MaxLine),
		"a certificate as its ca":     line(nested),
		"certificates a hundred deep": line(nest(blob, 100)),
		"a weak key":                  string(raw(mint(t, ca, func(c *ssh.Certificate) { c.Key = signtest.RSA(2048).PublicKey() }))),
		"a weak ca":                   string(raw(mint(t, signtest.RSA(2048), func(*ssh.Certificate) {}))),
	} {
		if cert, err := certs.Parse([]byte(s)); err == nil {
			t.Errorf("%s: parsed as %+v", name, cert)
		}
	}
}

// nest puts certificates where the CA's public key belongs, one inside the other.
func nest(blob []byte, depth int) []byte {
	for range depth {
		var w struct {
			Type, Nonce, Key                        string
			Serial                                  uint64
			CertType                                uint32
			KeyID, Principals                       string
			After, Before                           uint64
			Options, Extensions, Reserved, CA, Sign string
		}
		if err := ssh.Unmarshal(blob, &w); err != nil {
			panic(err)
		}
		w.CA = string(blob)
		blob = ssh.Marshal(w)
	}
	return blob
}

func FuzzParse(f *testing.F) {
	f.Add(ssh.MarshalAuthorizedKey(mint(f, ca, func(*ssh.Certificate) {})))
	f.Add(ssh.MarshalAuthorizedKey(mint(f, signtest.SecurityECDSA("ca"), func(c *ssh.Certificate) {
		c.Key = signtest.SecurityEd25519("laptop").PublicKey()
	})))
	f.Add(ssh.MarshalAuthorizedKey(mint(f, signtest.RSA(3072), func(c *ssh.Certificate) { c.Key = signtest.RSA(3072).PublicKey() })))
	w := want()
	good := bytes.Clone(mint(f, ca, func(*ssh.Certificate) {}).Key.Marshal())
	f.Fuzz(func(t *testing.T, line []byte) {
		cert, err := certs.Parse(line)
		if err != nil {
			return
		}
		if !bytes.Equal(append(bytes.TrimSuffix(line, []byte("\n")), '\n'), ssh.MarshalAuthorizedKey(cert)) {
			t.Errorf("a second spelling: %q", line)
		}
		if certs.Check(cert, w, from) == nil && !bytes.Equal(cert.Key.Marshal(), good) {
			t.Errorf("a certificate for another key: %q", line)
		}
	})
}

// ssh-keygen -F is the oracle: ssh finds the keys under every name and under no other.
func TestKnownHostsIsFoundBySSH(t *testing.T) {
	keys := []statement.Key{signtest.Public(signtest.ECDSA("db1")), signtest.Public(signtest.Ed25519("db1"))}
	text := certs.KnownHosts([]string{"db1", "10.0.0.1", "fd00::1", "[db1.example.org]:2222", "[late]:22"}, keys)
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, found := range map[string]bool{"db1": true, "10.0.0.1": true, "fd00::1": true, "[db1.example.org]:2222": true, "late": true,
		"db2": false, "db1.example.org": false, "10.0.0.2": false} {
		out, err := exec.Command("ssh-keygen", "-f", path, "-F", name).Output()
		if got := strings.Count(string(out), " ssh-ed25519 ") + strings.Count(string(out), " ecdsa-sha2-nistp256 "); (err == nil) != found || found && got != 2 {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
	for name, bad := range map[string][]string{
		"no names": nil, "a star": {"*"}, "a mark": {"db?"}, "a negation": {"!db1"}, "a marker": {"@cert-authority"}, "a list": {"a,b"},
		"a hash": {"|1|x"}, "a blank": {"a b"}, "a newline": {"a\nb"}, "a comment": {"#x"}, "an option": {"-x"}, "nothing": {""},
	} {
		if got := certs.KnownHosts(bad, keys); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := certs.KnownHosts([]string{"db1"}, []statement.Key{"ssh-ed25519 x\n* ssh-rsa y", ""}); got != "" {
		t.Errorf("keys that are none: %q", got)
	}
}
