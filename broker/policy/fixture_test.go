package policy

import (
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// signer returns the one key that belongs to a name in these tests.
func signer(name string) ssh.Signer {
	seed := sha256.Sum256([]byte(name))
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

func key(name string) statement.Key {
	k, err := statement.KeyOf(signer(name).PublicKey())
	if err != nil {
		panic(err)
	}
	return k
}

func person(name string) PersonEntry {
	return PersonEntry{Keys: []statement.Key{key(name)}, Account: statement.Account(name)}
}

const hour = statement.Seconds(3600)

// lab is the policy of DESIGN §9: the machines, people and roles of the story.
func lab() Document {
	quarter := Offline{Mode: OfflineGrace, Grace: 900}
	return Document{
		V: 1, Kind: statement.KindPolicy, Revision: 1, Expires: 1_800_000_000,
		People: map[statement.Person]PersonEntry{"alice": person("alice"), "bob": person("bob"), "carol": person("carol"),
			"dave": person("dave"), "erin": person("erin"), "frank": person("frank"), "gwen": person("gwen"), "mallory": person("mallory")},
		Groups:    map[GroupName][]statement.Person{"engineers": {"alice", "erin"}, "approvers": {"bob", "carol", "gwen"}},
		Stewards:  Stewards{Threshold: 1, People: []statement.Person{"dave"}},
		Operators: []statement.Person{"dave"}, Auditors: []statement.Person{"frank"},
		Brokers: map[statement.BrokerName]Broker{"b1": {Address: "b1:7443", Identity: key("b1"), CA: key("b1-ca"), Log: key("b1-log")}},
		Roles: map[statement.RoleName]Role{
			"db-admin": {
				Hosts: Selector{Labels: map[string]string{"tier": "db"}}, Accounts: []statement.Account{"postgres"},
				Sudo: []SudoRule{{As: "postgres", Commands: []Command{All}},
					{As: "root", Commands: []Command{"/usr/bin/systemctl restart postgresql"}}},
				Eligible: []Name{"engineers"}, Approvals: Approvals{Count: 1, From: []Name{"approvers"}},
				Longest: 4 * hour, Default: hour, Pending: 24 * hour, Offline: quarter,
			},
			"root": {
				Hosts: Selector{Any: true}, Accounts: []statement.Account{"root"}, Sudo: []SudoRule{{As: "root", Commands: []Command{All}}},
				Eligible: []Name{"alice", "bob"}, Approvals: Approvals{Count: 2, From: []Name{"approvers"}},
				Longest: hour, Default: hour, Pending: 24 * hour, Offline: Offline{Mode: OfflineStrict},
			},
			"web-deploy": {
				Hosts: Selector{Labels: map[string]string{"tier": "web"}}, Accounts: []statement.Account{"deploy"},
				Eligible: []Name{"engineers"}, Approvals: Approvals{None: true},
				Longest: 8 * hour, Default: hour, Pending: 24 * hour, Offline: quarter,
			},
		},
	}
}

// signed drafts a document and signs it by name.
func signed(t testing.TB, doc Document, names ...string) statement.Proof {
	t.Helper()
	payload, err := Draft(doc)
	if err != nil {
		t.Fatal(err)
	}
	return seal(t, payload, names...)
}

// seal signs bytes by name, whatever they are.
func seal(t testing.TB, payload []byte, names ...string) statement.Proof {
	t.Helper()
	signers := make([]ssh.Signer, len(names))
	for i, name := range names {
		signers[i] = signer(name)
	}
	p, err := statement.SignPayload(statement.KindPolicy, payload, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// genesis starts a chain with the document, signed by name.
func genesis(t testing.TB, doc Document, names ...string) Chain {
	t.Helper()
	c, err := Genesis(signed(t, doc, names...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
