package statement_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

const requestNS = "request@pim-ssh"

// Payloads an attacker spells otherwise, each rightly signed: two spellings of one statement would be two ids.
func TestWrongPayloadIsRefusedThoughRightlySigned(t *testing.T) {
	good, err := statement.Encode(request())
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) []byte {
		t.Helper()
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("payload has no %q", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	for name, c := range map[string]struct {
		payload []byte
		want    string
	}{
		"nothing":                           {nil, "payload of 0 bytes"},
		"no JSON":                           {[]byte("approve"), "invalid"},
		"an array":                          {[]byte("[]"), "statement"},
		"null":                              {[]byte("null"), "unknown kind"},
		"no kind":                           {[]byte("{}"), "unknown kind"},
		"an unknown kind":                   {swap(`"request"`, `"requests"`), "unknown kind"},
		"a policy":                          {swap(`"kind":"request"`, `"kind":"policy"`), "chain"},
		"another version":                   {swap(`"v":1`, `"v":2`), "version 2"},
		"an unknown member":                 {swap(`{"v":1`, `{"v":1,"sudo":true`), "unknown"},
		"an unknown member deep inside":     {swap(`{"revision":3`, `{"revision":3,"x":0`), "unknown"},
		"a duplicate member":                {swap(`"role":"db-admin"`, `"role":"db-admin","role":"root"`), "duplicate"},
		"a duplicate member, escaped":       {swap(`"role":"db-admin"`, "\"role\":\"db-admin\",\"\\u0072ole\":\"root\""), "duplicate"},
		"a duplicate kind":                  {swap(`"kind":"request"`, `"kind":"end","kind":"request"`), "duplicate"},
		"a case variant":                    {swap(`"role"`, `"Role"`), "unknown"},
		"a case variant beside the member":  {swap(`"role":"db-admin"`, `"role":"db-admin","ROLE":"root"`), "unknown"},
		"another kind's member":             {swap(`"duration":3600`, `"duration":3600,"grant":"`+grantID+`"`), "unknown"},
		"data after it":                     {append(bytes.Clone(good), "{}"...), "after top-level"},
		"a newline after it":                {append(bytes.Clone(good), '\n'), "canonical"},
		"a space before it":                 {append([]byte(" "), good...), "canonical"},
		"a byte order mark":                 {append([]byte("\xef\xbb\xbf"), good...), "invalid"},
		"a NUL after it":                    {append(bytes.Clone(good), 0), "after top-level"},
		"a space inside":                    {swap(`,"role"`, `, "role"`), "canonical"},
		"members in another order":          {swap(`"v":1,"kind":"request"`, `"kind":"request","v":1`), "canonical"},
		"an escape that needs none":         {swap(`INC-42`, "\\u0049NC-42"), "canonical"},
		"an escaped slash":                  {swap(`<ß>`, `\/`), "canonical"},
		"null for a list":                   {swap(`"keys":[]`, `"keys":null`), "canonical"},
		"null for a number":                 {swap(`"duration":3600`, `"duration":null`), "duration"},
		"an empty optional member":          {swap(`"keys":[]`, `"keys":[],"ticket":""`), "canonical"},
		"an optional time of nothing":       {swap(`"expires"`, `"at":"","expires"`), "canonical"},
		"a number as text":                  {swap(`3600`, `"3600"`), "duration"},
		"a number with a point":             {swap(`3600`, `3600.0`), "duration"},
		"a number with an exponent":         {swap(`3600`, `36e2`), "duration"},
		"a number with a leading zero":      {swap(`3600`, `03600`), "invalid"},
		"a number with a sign":              {swap(`"v":1`, `"v":+1`), "invalid"},
		"minus nothing":                     {swap(`3600`, `-0`), "duration"},
		"a duration that overflows":         {swap(`3600`, `9223372036854775808`), "duration"},
		"a time with an offset":             {swap(`08:00:00Z`, `09:00:00+01:00`), "time"},
		"a time with a fraction":            {swap(`08:00:00Z`, `08:00:00.0Z`), "time"},
		"a time in lower case":              {swap(`T08:00:00Z`, `t08:00:00z`), "time"},
		"a leap second":                     {swap(`08:00:00Z`, `08:00:60Z`), "time"},
		"a day that does not exist":         {swap(`2026-11-23`, `2026-02-30`), "time"},
		"the year 3000":                     {swap(`2026-11-23`, `3000-01-01`), "time"},
		"the first second of 1970":          {swap(`2026-11-23T08:00:00Z`, `1970-01-01T00:00:00Z`), "time"},
		"a hash in upper case":              {swap(`bf3a41e9`, `BF3A41E9`), "hash"},
		"a short hash":                      {swap(`bf3a41e9`, `bf3a41`), "hash"},
		"invalid UTF-8":                     {swap(`INC-42`, "INC\xff42"), "UTF-8"},
		"an overlong encoding":              {swap(`INC-42`, "INC\xc0\xaf42"), "UTF-8"},
		"a lone surrogate":                  {swap(`INC-42`, "INC\\ud80042"), "invalid"},
		"a newline in the reason":           {swap(`INC-42`, "INC\\n42"), "control character"},
		"an escape sequence in the reason":  {swap(`INC-42`, "\\u001b[2J"), "control character"},
		"a NUL in the reason":               {swap(`INC-42`, "INC\\u000042"), "control character"},
		"a C1 control in the reason":        {swap(`INC-42`, "INC\u009b42"), "control character"},
		"a delete in the reason":            {swap(`INC-42`, "INC\x7f42"), "control character"},
		"more than 64 KiB":                  {swap(`INC-42`, strings.Repeat("x", statement.MaxPayload)), "at most 65536"},
		"a thousand brackets":               {bytes.Repeat([]byte("["), 20000), "statement"},
		"an upper-case person":              {swap(`"alice"`, `"Alice"`), "person"},
		"an empty person":                   {swap(`"alice"`, `""`), "person"},
		"a person and a host":               {swap(`"person":"alice"`, `"person":"alice","host":"db1"`), "exactly one"},
		"a host asking":                     {swap(`"person":"alice"`, `"host":"db1"`), "want a person"},
		"a full-width digit in a host name": {swap(`"db1"`, `"db１"`), "host"},
	} {
		t.Run(name, func(t *testing.T) {
			blob := forge(t, c.payload, requestNS, "sha512", signtest.Ed25519("alice"))
			refused(t, statement.Proof{Payload: c.payload, Signatures: [][]byte{blob}}, c.want)
		})
	}
}

// Signatures that do not make the signer mean these bytes.
func TestWrongSignatureIsRefused(t *testing.T) {
	good, err := statement.Encode(request())
	if err != nil {
		t.Fatal(err)
	}
	alice, bob, touched := signtest.Ed25519("alice"), signtest.Ed25519("bob"), signtest.SecurityEd25519("alice")
	by := func(blobs ...[]byte) statement.Proof { return statement.Proof{Payload: good, Signatures: blobs} }
	edited := func(edit func(*forged)) statement.Proof { return by(forge(t, good, requestNS, "sha512", alice, edit)) }
	right := forge(t, good, requestNS, "sha512", alice)
	tail := func(signer string) string { return signer + "\x00" }
	for name, c := range map[string]struct {
		proof statement.Proof
		want  string
	}{
		"none":                              {by(), "0 signatures"},
		"an empty one":                      {by(nil), "signature of 0 bytes"},
		"a huge one":                        {by(bytes.Repeat([]byte("x"), statement.MaxSignature+1)), "signature of 4097"},
		"too many":                          {by(bytes.SplitAfter(bytes.Repeat([]byte("x"), 65), []byte("x"))[:65]...), "65 signatures"},
		"rubbish":                           {by([]byte("SSHSIG")), "short read"},
		"two where one is wanted":           {by(right, forge(t, good, requestNS, "sha512", bob)), "2 signatures: want 1"},
		"the same one twice":                {by(right, right), "2 signatures: want 1"},
		"of another payload":                {by(forge(t, append(good, ' '), requestNS, "sha512", alice)), "did not verify"},
		"for another kind":                  {by(forge(t, good, "decision@pim-ssh", "sha512", alice)), "namespace"},
		"for git":                           {by(forge(t, good, "git", "sha512", alice)), "namespace"},
		"for the namespace and more":        {by(forge(t, good, requestNS+"\x00", "sha512", alice)), "namespace"},
		"for git, relabelled":               {by(forge(t, good, "git", "sha512", alice, func(f *forged) { f.Namespace = requestNS })), "did not verify"},
		"over sha256":                       {by(forge(t, good, requestNS, "sha256", alice)), "want sha512"},
		"over sha256, relabelled":           {by(forge(t, good, requestNS, "sha256", alice, func(f *forged) { f.Hash = "sha512" })), "did not verify"},
		"over md5":                          {edited(func(f *forged) { f.Hash = "md5" }), "hash"},
		"of another version":                {edited(func(f *forged) { f.Version = 2 }), "version"},
		"with another magic":                {edited(func(f *forged) { f.Magic[0] = 's' }), "magic"},
		"with a word in the reserved field": {edited(func(f *forged) { f.Reserved = "x" }), "canonical"},
		"with junk after the blob":          {by(append(bytes.Clone(right), 0)), "parse error"},
		"F23 with junk in Rest":             {edited(func(f *forged) { f.Signature = tail(f.Signature) }), "after the signature"},
		"with junk after the key":           {edited(func(f *forged) { f.Public = tail(f.Public) }), "trailing"},
		"by another key's name":             {edited(func(f *forged) { f.Public = string(bob.PublicKey().Marshal()) }), "did not verify"},
		"untouched":                         {by(forge(t, good, requestNS, "sha512", touched.WithFlags(0))), "without touching"},
		"untouched but with a PIN":          {by(forge(t, good, requestNS, "sha512", touched.WithFlags(signtest.Verification))), "without touching"},
		"touched afterwards": {by(forge(t, good, requestNS, "sha512", touched.WithFlags(0), func(f *forged) {
			f.Signature = f.Signature[:len(f.Signature)-5] + "\x05" + f.Signature[len(f.Signature)-4:]
		})), "did not verify"},
		"of a security key without Rest": {by(forge(t, good, requestNS, "sha512", touched, func(f *forged) {
			f.Signature = f.Signature[:len(f.Signature)-5]
		})), "want flags and counter"},
		"of a security key with longer Rest": {by(forge(t, good, requestNS, "sha512", touched, func(f *forged) {
			f.Signature = tail(f.Signature)
		})), "want flags and counter"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.proof, c.want) })
	}
}

// Keys that statements do not take, signing as well as they can.
func TestWrongKeySignsInVain(t *testing.T) {
	good, err := statement.Encode(request())
	if err != nil {
		t.Fatal(err)
	}
	for name, signer := range weakSigners(t) {
		t.Run(name, func(t *testing.T) {
			blob := forge(t, good, requestNS, "sha512", signer)
			refused(t, statement.Proof{Payload: good, Signatures: [][]byte{blob}}, "key of type")
			if _, err := statement.Sign(request(), signer); err == nil {
				t.Error("signed")
			}
		})
	}
}

func TestRSASignatureWithSHA1IsRefused(t *testing.T) {
	good, err := statement.Encode(request())
	if err != nil {
		t.Fatal(err)
	}
	blob := forge(t, good, requestNS, "sha512", sha1Signer{signtest.RSA(3072)})
	refused(t, statement.Proof{Payload: good, Signatures: [][]byte{blob}}, "invalid signature format")
}

func TestWrongEnvelopeIsRefused(t *testing.T) {
	for name, wire := range map[string]string{
		"nothing":             ``,
		"no payload":          `{"signatures":["AAAA"]}`,
		"no signatures":       `{"payload":"AAAA"}`,
		"an empty signature":  `{"payload":"AAAA","signatures":[""]}`,
		"an unknown member":   `{"payload":"AAAA","signatures":["AAAA"],"id":"r-x"}`,
		"a duplicate member":  `{"payload":"AAAA","payload":"AAAB","signatures":["AAAA"]}`,
		"a case variant":      `{"Payload":"AAAA","signatures":["AAAA"]}`,
		"data after it":       `{"payload":"AAAA","signatures":["AAAA"]}{}`,
		"url-safe base64":     `{"payload":"__--","signatures":["AAAA"]}`,
		"unpadded base64":     `{"payload":"AAA","signatures":["AAAA"]}`,
		"a newline in base64": `{"payload":"AA\nAA","signatures":["AAAA"]}`,
		"a payload of text":   `{"payload":{},"signatures":["AAAA"]}`,
		"more than the cap":   `{"payload":"` + strings.Repeat("A", statement.MaxProof) + `","signatures":["AAAA"]}`,
	} {
		if p, err := statement.ParseProof([]byte(wire)); err == nil {
			t.Errorf("%s: parsed as %v", name, p)
		}
	}
}

func TestLargestProofFitsItsCap(t *testing.T) {
	p := statement.Proof{Payload: bytes.Repeat([]byte("x"), statement.MaxPolicy)}
	for range statement.MaxSignatures {
		p.Signatures = append(p.Signatures, bytes.Repeat([]byte("x"), statement.MaxSignature))
	}
	wire, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statement.ParseProof(wire); err != nil {
		t.Error(err)
	}
}

func TestPolicyTakesManySignersButEachOnce(t *testing.T) {
	payload := []byte(`{"v":1,"kind":"policy"}`)
	one, err := statement.SignPayload(statement.KindPolicy, payload, signtest.Ed25519("dave"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := statement.SignPayload(statement.KindPolicy, payload, signtest.SecurityECDSA("gwen"))
	if err != nil {
		t.Fatal(err)
	}
	both := one.Add(two.Signatures...).Add(one.Signatures...)
	opened, err := statement.OpenPayload(statement.KindPolicy, both)
	if err != nil || len(opened) != 2 || len(one.Signatures) != 1 {
		t.Fatalf("signers %v, %v", opened, err)
	}
	// ecdsa signatures differ on every run: the same steward may not count twice for that.
	again := forge(t, payload, "policy@pim-ssh", "sha512", signtest.SecurityECDSA("gwen"))
	if _, err := statement.OpenPayload(statement.KindPolicy, both.Add(again)); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one key counted twice: %v", err)
	}
	if _, err := statement.OpenPayload(statement.KindRequest, both); err == nil {
		t.Error("a policy's signatures opened as a request's")
	}
}

func refused(t *testing.T, p statement.Proof, want string) {
	t.Helper()
	opened, err := statement.Open(p)
	if err == nil {
		t.Fatalf("opened as %+v", opened)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("refused with %q, want %q in it", err, want)
	}
	if opened.Body != nil || opened.Signers != nil {
		t.Errorf("a refusal returned %+v", opened)
	}
}
