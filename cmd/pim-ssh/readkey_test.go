package main

import (
	"encoding/base64"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// touched is a security key that counts its touches.
type touched struct {
	signtest.SecurityKey
	times *atomic.Int32
}

func (k touched) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	k.times.Add(1)
	return k.SecurityKey.Sign(random, data)
}

// TestSecurityKeyIsTouchedOnceForReadingAndOnceForEachThingMeant: reads go under a session's key, which may nothing else.
func TestSecurityKeyIsTouchedOnceForReadingAndOnceForEachThingMeant(t *testing.T) {
	o := startOwned(t, realIdentity)
	key := touched{signtest.SecurityEd25519("alice"), new(atomic.Int32)}
	public, err := statement.KeyOf(key.PublicKey())
	o.must(err)
	o.chain, err = o.chain.Advance(o.revise(o.chain, func(doc *policy.Document) {
		people := map[statement.Person]policy.PersonEntry{}
		for person, entry := range doc.People {
			people[person] = entry
		}
		people["alice"] = policy.PersonEntry{Keys: []statement.Key{public}, Account: "alice"}
		doc.People = people
	}))
	o.must(err)
	reads := make(chan http.Header, 16)
	o.seen = reads
	alice := newSeat(t, t.TempDir())
	alice.env["SSH_AUTH_SOCK"] = signtest.Agent(t, key)
	o.join(alice, "alice")
	if n := key.times.Load(); n != 0 {
		t.Errorf("joining took %d touches", n)
	}
	for range 3 {
		if out, talk, code := alice.run("host", "list"); code != 0 {
			t.Fatalf("exit %d\n%s%s", code, out, talk)
		}
	}
	if n := key.times.Load(); n != 1 {
		t.Errorf("three reads took %d touches, want 1", n)
	}
	o.heldBySession(<-reads, public)
	o.decides = nil
	if out, talk, code := alice.run("request", "db-admin@db1", "--why", "x", "--no-wait"); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, talk)
	}
	if n := key.times.Load(); n != 2 {
		t.Errorf("a request took %d touches, want 1", n-1)
	}
}

// heldBySession checks that a read was signed by the key that a session statement, signed by the person's key, names.
func (s *scene) heldBySession(header http.Header, person statement.Key) {
	s.t.Helper()
	session, isSession := s.opened(header.Get(api.HeaderSession), person).(statement.Session)
	if !isSession {
		s.t.Fatal("no session statement came with the read")
	}
	if _, isRead := s.opened(header.Get(api.HeaderProof), session.Key).(statement.Read); !isRead {
		s.t.Error("the session's key signed no read")
	}
	if life := session.Until.Sub(session.Created); life > 12*3600 {
		s.t.Errorf("the session lasts %d s", life)
	}
}

func (s *scene) opened(header string, signer statement.Key) statement.Body {
	s.t.Helper()
	data, err := base64.StdEncoding.DecodeString(header)
	s.must(err)
	proof, err := statement.ParseProof(data)
	s.must(err)
	opened, err := statement.Open(proof)
	s.must(err)
	if opened.Signers[0].Key != signer {
		s.t.Errorf("signed by %s, want %s", opened.Signers[0].Key.Fingerprint(), signer.Fingerprint())
	}
	return opened.Body
}
