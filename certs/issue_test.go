package certs_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
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

// THREATS issuing: no, empty or odd principals; client-chosen times, options, extensions; weak or absurd keys.
func TestIssuingRefusesASpecThatIsNotExactlyOurs(t *testing.T) {
	weak, err := ssh.NewSignerFromKey(signtest.P384("laptop"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func(*certs.Spec)
		want string
	}{
		"the zero spec":                {func(s *certs.Spec) { *s = certs.Spec{} }, "principal"},
		"no principal":                 {func(s *certs.Spec) { s.Principal = "" }, "principal"},
		"principal root":               {func(s *certs.Spec) { s.Principal = "root" }, "principal"},
		"a principal with a comma":     {func(s *certs.Spec) { s.Principal = principal[:25] + ",root,a" }, "principal"},
		"a principal of two":           {func(s *certs.Spec) { s.Principal = principal + "," + another }, "principal"},
		"a principal with a newline":   {func(s *certs.Spec) { s.Principal = principal[:31] + "\n" }, "principal"},
		"a principal in upper case":    {func(s *certs.Spec) { s.Principal = strings.ToUpper(principal) }, "principal"},
		"a principal with a wildcard":  {func(s *certs.Spec) { s.Principal = "pim-g-*" }, "principal"},
		"a principal one byte short":   {func(s *certs.Spec) { s.Principal = principal[:31] }, "principal"},
		"a principal one byte long":    {func(s *certs.Spec) { s.Principal = principal + "a" }, "principal"},
		"a principal with a digit 1":   {func(s *certs.Spec) { s.Principal = principal[:31] + "1" }, "principal"},
		"no key":                       {func(s *certs.Spec) { s.Key = "" }, "key"},
		"a key of ecdsa-p384":          {func(s *certs.Spec) { s.Key = raw(weak.PublicKey()) }, "key of type"},
		"a key of rsa 2048":            {func(s *certs.Spec) { s.Key = raw(signtest.RSA(2048).PublicKey()) }, "2048 bits"},
		"a certificate for a key":      {func(s *certs.Spec) { s.Key = raw(mint(t, ca, func(*ssh.Certificate) {})) }, "key of type"},
		"no beginning":                 {func(s *certs.Spec) { s.From = 0 }, "window"},
		"no end":                       {func(s *certs.Spec) { s.Until = 0 }, "window"},
		"an end before the beginning":  {func(s *certs.Spec) { s.Until = s.From - 1 }, "window"},
		"an empty window":              {func(s *certs.Spec) { s.Until = s.From }, "window"},
		"a window of ten years":        {func(s *certs.Spec) { s.Until = s.From.Add(10 * statement.MaxLifetime) }, "longer"},
		"a beginning before 1970":      {func(s *certs.Spec) { s.From = -1 }, "window"},
		"no serial":                    {func(s *certs.Spec) { s.Serial = 0 }, "serial"},
		"no key id":                    {func(s *certs.Spec) { s.KeyID = "" }, "key id"},
		"a key id that breaks the log": {func(s *certs.Spec) { s.KeyID = "alice\nAccepted publickey for root" }, "key id"},
		"a key id with a quote":        {func(s *certs.Spec) { s.KeyID = `alice" (serial 1)` }, "key id"},
		"a key id without end":         {func(s *certs.Spec) { s.KeyID = strings.Repeat("a", 129) }, "key id"},
	} {
		s := spec()
		c.edit(&s)
		if cert, err := certs.Draft(s); err == nil || cert != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: drafted %v, %v; want %q", name, cert, err, c.want)
		}
		if line, err := certs.Sign(rand.Reader, s, ca); err == nil || line != nil {
			t.Errorf("%s: signed %s", name, line)
		}
	}
}

func TestIssuedCertificateSaysExactlyTheSpec(t *testing.T) {
	cert, err := certs.Draft(spec())
	if err != nil {
		t.Fatal(err)
	}
	if cert.CertType != ssh.UserCert || fmt.Sprint(cert.ValidPrincipals) != "["+principal+"]" || cert.Serial != 42 ||
		len(cert.CriticalOptions) != 0 || fmt.Sprint(cert.Extensions) != "map[permit-pty:]" ||
		cert.ValidAfter != uint64(from) || cert.ValidBefore != uint64(until) || cert.KeyId != "g-7k2m4:alice" {
		t.Errorf("drafted %+v", cert)
	}
}

type brokenCA struct {
	ssh.Signer
	sign func([]byte) (*ssh.Signature, error)
}

func (b brokenCA) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) { return b.sign(data) }

func TestIssuingFindsOutACAThatMisbehaves(t *testing.T) {
	p384, err := ssh.NewSignerFromKey(signtest.P384("ca"))
	if err != nil {
		t.Fatal(err)
	}
	certificate := mint(t, ca, func(*ssh.Certificate) {})
	for name, c := range map[string]ssh.Signer{
		"none":                     nil,
		"a weak one":               signtest.RSA(2048),
		"ecdsa-p384":               p384,
		"a certificate":            offered{ca, certificate},
		"signing something else":   brokenCA{ca, func([]byte) (*ssh.Signature, error) { return ca.Sign(rand.Reader, []byte("x")) }},
		"signing with another key": brokenCA{ca, func(d []byte) (*ssh.Signature, error) { return laptop.Sign(rand.Reader, d) }},
		"rsa with sha1": brokenCA{signtest.RSA(3072), func(d []byte) (*ssh.Signature, error) {
			return signtest.RSA(3072).SignWithAlgorithm(rand.Reader, d, ssh.KeyAlgoRSA)
		}},
		"adding data after it": brokenCA{ca, func(d []byte) (*ssh.Signature, error) {
			sig, err := ca.Sign(rand.Reader, d)
			sig.Rest = []byte{1}
			return sig, err
		}},
		"out of order": brokenCA{ca, func([]byte) (*ssh.Signature, error) { return nil, io.ErrUnexpectedEOF }},
	} {
		if line, err := certs.Sign(rand.Reader, spec(), c); err == nil || line != nil {
			t.Errorf("%s: signed %s", name, line)
		}
	}
	if _, err := certs.Sign(bytes.NewReader(nil), spec(), ca); err == nil {
		t.Error("signed without randomness for the nonce")
	}
}

// offered shows a certificate where a public key belongs.
type offered struct {
	ssh.Signer
	certificate *ssh.Certificate
}

func (o offered) PublicKey() ssh.PublicKey { return o.certificate }

func raw(public ssh.PublicKey) statement.Key {
	return statement.Key(strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(public)), "\n"))
}

// ssh-keygen is the oracle: it reads in what we sign what we meant, for every type of key and CA.
func TestSSHKeygenReadsWhatWeSign(t *testing.T) {
	for caName, caSigner := range signtest.Every("ca") {
		for keyName, holder := range signtest.Every("laptop") {
			t.Run(keyName+" by "+caName, func(t *testing.T) {
				s := spec()
				s.Key = signtest.Public(holder)
				line, err := certs.Sign(rand.Reader, s, caSigner)
				if err != nil {
					t.Fatal(err)
				}
				got := keygenShows(t, line)
				for _, want := range []string{
					"user certificate\n", "Public key: ", s.Key.Fingerprint() + "\n", signtest.Public(caSigner).Fingerprint() + " (using ",
					`Key ID: "g-7k2m4:alice"`, "Serial: 42\n", "Valid: from 2026-11-23T08:00:00 to 2026-11-23T09:00:00\n",
					"Principals: \n                " + principal + "\n        Critical Options: (none)\n        Extensions: \n                permit-pty\n",
				} {
					if !strings.Contains(got, want) {
						t.Errorf("no %q in\n%s", want, got)
					}
				}
				if !strings.HasSuffix(got, "permit-pty\n") {
					t.Errorf("more than permit-pty in\n%s", got)
				}
			})
		}
	}
}

// What ssh-keygen -s issues to our words passes; what it issues by default does not.
func TestCheckJudgesWhatSSHKeygenSigns(t *testing.T) {
	base := []string{"-I", "x", "-n", principal, "-V", "20261123080000Z:20261123090000Z", "-z", "7"}
	exact := append([]string{"-O", "clear", "-O", "permit-pty"}, base...)
	with := func(more ...string) []string { return append(append([]string{}, exact...), more...) }
	for name, c := range map[string]struct {
		args []string
		want string // "" accepts
	}{
		"our words":                    {exact, ""},
		"no pty":                       {append([]string{"-O", "clear"}, base...), ""},
		"a host certificate":           {with("-h"), "want a user certificate"},
		"permits by default":           {base, "extensions"},
		"agent forwarding":             {with("-O", "permit-agent-forwarding"), "extensions"},
		"an extension of its own":      {with("-O", "extension:sudo@pim"), "extensions"},
		"no touch required":            {with("-O", "no-touch-required"), "extensions"},
		"a forced command":             {with("-O", "force-command=/bin/sh"), "critical options"},
		"a source address":             {with("-O", "source-address=0.0.0.0/0"), "critical options"},
		"an option of its own":         {with("-O", "critical:x=y"), "critical options"},
		"two principals":               {with("-n", principal+",root"), "principals"},
		"principal root":               {with("-n", "root"), "principals"},
		"principal alice":              {with("-n", "alice"), "principals"},
		"principal breakglass":         {with("-n", "breakglass"), "principals"},
		"another grant's principal":    {with("-n", another), "principals"},
		"a longer window":              {with("-V", "20261123080000Z:20261123090001Z"), "window"},
		"an earlier window":            {with("-V", "20261123075959Z:20261123090000Z"), "window"},
		"valid for ever":               {with("-V", "always:forever"), "window"},
		"a shorter window, still open": {with("-V", "20261123080000Z:20261123083001Z"), ""},
		"a shorter window, now over":   {with("-V", "20261123080000Z:20261123083000Z"), "expired"},
		"a later window, not yet open": {with("-V", "20261123083001Z:20261123090000Z"), "not valid before"},
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := certs.Parse(keygenSigns(t, c.args))
			if err != nil {
				t.Fatal(err)
			}
			err = certs.Check(cert, want(), from+1800)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	cert, err := certs.Parse(keygenSigns(t, append([]string{"-O", "clear", "-I", "x"}, base[4:]...)))
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Check(cert, want(), from); err == nil || !strings.Contains(err.Error(), "principals") {
		t.Errorf("no principals at all: %v", err)
	}
}

func keygenShows(t *testing.T, line []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x-cert.pub")
	if err := os.WriteFile(path, line, 0o600); err != nil {
		t.Fatal(err)
	}
	show := exec.Command("ssh-keygen", "-L", "-f", path)
	show.Env = append(os.Environ(), "TZ=UTC")
	out, err := show.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen -L: %v: %s", err, out)
	}
	return string(out)
}

func keygenSigns(t *testing.T, args []string) []byte {
	t.Helper()
	dir := t.TempDir()
	caPath, keyPath := filepath.Join(dir, "ca"), filepath.Join(dir, "key.pub")
	if err := os.WriteFile(caPath, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyPath, ssh.MarshalAuthorizedKey(laptop.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	sign := exec.Command("ssh-keygen", append(append([]string{"-q", "-s", caPath}, args...), keyPath)...)
	if out, err := sign.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen -s: %v: %s", err, out)
	}
	line, err := os.ReadFile(filepath.Join(dir, "key-cert.pub"))
	if err != nil {
		t.Fatal(err)
	}
	// ssh-keygen adds the key's comment, which is no part of the certificate.
	fields := strings.Fields(string(line))
	return []byte(fields[0] + " " + fields[1])
}
