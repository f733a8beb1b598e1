package statement_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

var update = flag.Bool("update", false, "rewrite testdata from what the code does now")

// The payload's member order is frozen: a change here would make every signature ever made unverifiable.
func TestEveryKindIsFrozenByAGoldenFile(t *testing.T) {
	for _, b := range bodies(t) {
		kind := b.Header().Kind
		t.Run(string(kind), func(t *testing.T) {
			p := sign(t, b, signers(kind, signtest.Ed25519("alice"))...)
			wire, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, string(kind)+".json", p.Payload)
			golden(t, string(kind)+".proof.json", wire)
		})
	}
}

func TestGoldenProofsOpenToTheirBodies(t *testing.T) {
	for _, b := range bodies(t) {
		kind := b.Header().Kind
		t.Run(string(kind), func(t *testing.T) {
			p, err := statement.ParseProof(read(t, string(kind)+".proof.json"))
			if err != nil {
				t.Fatal(err)
			}
			opened, err := statement.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			again, err := statement.Encode(opened.Body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(p.Payload), string(again)); diff != "" {
				t.Errorf("decoded body is another (-signed +again):\n%s", diff)
			}
			if opened.Hash != statement.HashOf(p.Payload) || len(opened.Signers) != len(p.Signatures) {
				t.Errorf("opened %s by %v", opened.Hash, opened.Signers)
			}
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, name)), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
