package statement

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"
)

func plainSigner(t *testing.T, seed byte) (ssh.Signer, Key) {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32))))
	if err != nil {
		t.Fatal(err)
	}
	k, err := KeyOf(s.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return s, k
}

func TestSignedStatementOpens(t *testing.T) {
	s, k := plainSigner(t, 'a')
	r := Request{
		Head: Head{V: 1, Kind: KindRequest, Deployment: HashOf([]byte("d")), Policy: PolicyRef{1, HashOf([]byte("d"))},
			Person: "alice", Nonce: strings.Repeat("0a", 16), Created: 1000, NotAfter: 2000},
		Role: "db-admin", Hosts: []HostName{"db1"}, Duration: 3600, Reason: "INC-42", Expires: 3000,
	}
	p, err := Sign(r, s)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseProof(wire)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Open(again)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := o.Body.(Request); !ok || o.Signers[0].Key != k || o.Hash != p.Hash() {
		t.Fatalf("opened %+v", o)
	}
	t.Log(string(p.Payload))
}
