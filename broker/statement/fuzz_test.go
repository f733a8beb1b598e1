package statement_test

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// FuzzOpen feeds an attacker's proof to the parser every judge runs. Whatever opens has exactly one spelling and
// signatures that the fuzzer did not make.
func FuzzOpen(f *testing.F) {
	for _, b := range bodies(f) {
		wire, err := json.Marshal(sign(f, b, signers(b.Header().Kind, signtest.SecurityEd25519("alice"))...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		p, err := statement.ParseProof(wire)
		if err != nil {
			return
		}
		opened, err := statement.Open(p)
		if err != nil {
			return
		}
		again, err := statement.Encode(opened.Body)
		if err != nil || !bytes.Equal(again, p.Payload) {
			t.Errorf("two spellings: %q and %q (%v)", p.Payload, again, err)
		}
	})
}

// FuzzPayload signs whatever the fuzzer writes, so that it gets past the signature into the shapes.
func FuzzPayload(f *testing.F) {
	for _, b := range bodies(f) {
		payload, err := statement.Encode(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	alice := signtest.Ed25519("alice")
	f.Fuzz(func(t *testing.T, payload []byte) {
		var head struct {
			Kind statement.Kind `json:"kind"`
		}
		if json.Unmarshal(payload, &head) != nil || len(payload) == 0 {
			return
		}
		blob := forge(t, payload, head.Kind.Namespace(), "sha512", alice)
		opened, err := statement.Open(statement.Proof{Payload: payload, Signatures: [][]byte{blob}})
		if err != nil {
			return
		}
		again, err := statement.Encode(opened.Body)
		if err != nil || !bytes.Equal(again, payload) {
			t.Errorf("two spellings: %q and %q (%v)", payload, again, err)
		}
	})
}

// FuzzParseKey looks for a second spelling of one key.
func FuzzParseKey(f *testing.F) {
	for _, s := range signtest.Every("alice") {
		f.Add(string(signtest.Public(s)))
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := statement.ParseKey(s)
		if err != nil {
			return
		}
		again, err := statement.KeyOf(k.Public())
		if err != nil || again != k || string(k) != s {
			t.Errorf("%q is %q, then %q (%v)", s, k, again, err)
		}
	})
}
