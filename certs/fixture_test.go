package certs_test

import (
	"crypto/rand"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/certs"
)

const (
	from      statement.Time = 1795420800 // 2026-11-23T08:00:00Z
	until                    = from + 3600
	principal                = "pim-g-7k2m4abcdefghijklmnopqrstu"
	another                  = "pim-g-aaaaaaaaaaaaaaaaaaaaaaaaaa"
)

var (
	laptop = signtest.Ed25519("laptop")
	ca     = signtest.Ed25519("ca")
)

func spec() certs.Spec {
	return certs.Spec{Principal: principal, Key: signtest.Public(laptop), From: from, Until: until, Serial: 42, KeyID: "g-7k2m4:alice"}
}

func want() certs.Want {
	return certs.Want{Principal: principal, Keys: []statement.Key{signtest.Public(laptop)}, From: from, Until: until,
		CAs: []statement.Key{signtest.Public(ca)}}
}

// mint signs what an owned CA may wish for: a good certificate after edits that nothing of ours would make.
func mint(t testing.TB, by ssh.Signer, edit func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert, err := certs.Draft(spec())
	if err != nil {
		t.Fatal(err)
	}
	edit(cert)
	if err := cert.SignCert(rand.Reader, by); err != nil {
		t.Fatal(err)
	}
	return cert
}
