package forger

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// World is a deployment: its policy chain and every private key in it.
type World struct {
	T        testing.TB
	Chain    policy.Chain
	People   map[statement.Person]ssh.Signer
	Secrets  map[statement.Person]ed25519.PrivateKey // the same keys, for a test that hands them to programs
	CA       ssh.Signer
	Log      ssh.Signer         // signs checkpoints
	Identity ed25519.PrivateKey // the one broker's
}

// Everybody of DESIGN §9's lab.
var Everybody = []statement.Person{"alice", "bob", "carol", "dave", "erin", "frank", "gwen", "mallory"}

// New makes a deployment with the lab's people and roles, fresh keys, and a first policy that edit may change before
// its stewards sign it.
func New(t testing.TB, edit func(*policy.Document)) *World {
	t.Helper()
	w := &World{T: t, People: map[statement.Person]ssh.Signer{}, Secrets: map[statement.Person]ed25519.PrivateKey{}, CA: Key(t), Log: Key(t)}
	_, w.Identity, _ = ed25519.GenerateKey(rand.Reader)
	doc := w.document()
	if edit != nil {
		edit(&doc)
	}
	w.Chain = w.genesis(doc)
	return w
}

func (w *World) genesis(doc policy.Document) policy.Chain {
	w.T.Helper()
	chain, err := policy.Genesis(w.SignPolicy(doc, doc.Stewards.People[:doc.Stewards.Threshold]...))
	w.must(err)
	return chain
}

// SignPolicy signs a document as these stewards, whoever they are.
func (w *World) SignPolicy(doc policy.Document, stewards ...statement.Person) statement.Proof {
	w.T.Helper()
	var signers []ssh.Signer
	for _, s := range stewards {
		signers = append(signers, w.People[s])
	}
	return w.SignPolicyAs(doc, signers...)
}

// document is DESIGN §9's: roles db-admin, root and web-deploy.
func (w *World) document() policy.Document {
	identity, err := ssh.NewSignerFromSigner(w.Identity)
	w.must(err)
	doc := policy.Document{
		V: policy.Version, Kind: statement.KindPolicy, Revision: 1, Expires: Now() + 90*24*3600,
		People:    map[statement.Person]policy.PersonEntry{},
		Groups:    map[policy.GroupName][]statement.Person{"approvers": {"bob", "carol", "gwen"}, "engineers": {"alice", "erin"}},
		Stewards:  policy.Stewards{Threshold: 1, People: []statement.Person{"dave"}},
		Operators: []statement.Person{"dave"}, Auditors: []statement.Person{"frank"},
		Brokers: map[statement.BrokerName]policy.Broker{"b1": {Address: "b1:7443", Identity: w.keyOf(identity), CA: w.keyOf(w.CA),
			Log: w.keyOf(w.Log)}},
	}
	for _, p := range Everybody {
		w.Secrets[p], w.People[p] = PrivateKey(w.T)
		doc.People[p] = policy.PersonEntry{Keys: []statement.Key{w.keyOf(w.People[p])}, Account: statement.Account(p)}
	}
	one := policy.Approvals{Count: 1, From: []policy.Name{"approvers"}}
	role := policy.Role{Longest: 4 * 3600, Default: 3600, Pending: 24 * 3600, Offline: policy.Offline{Mode: policy.OfflineWindow}}
	db, root, web := role, role, role
	db.Hosts.Labels, db.Accounts, db.Eligible, db.Approvals = map[string]string{"tier": "db"}, []statement.Account{"postgres"}, []policy.Name{"engineers"}, one
	db.Sudo = []policy.SudoRule{{As: "postgres", Commands: []policy.Command{policy.All}},
		{As: "root", Commands: []policy.Command{"/usr/bin/systemctl restart postgresql"}}}
	root.Hosts.Any, root.Accounts, root.Eligible, root.Longest = true, []statement.Account{"root"}, []policy.Name{"alice", "bob"}, 3600
	root.Sudo = []policy.SudoRule{{As: "root", Commands: []policy.Command{policy.All}}}
	root.Approvals = policy.Approvals{Count: 2, From: []policy.Name{"approvers"}}
	web.Hosts.Labels, web.Accounts, web.Eligible = map[string]string{"tier": "web"}, []statement.Account{"deploy"}, []policy.Name{"engineers"}
	web.Approvals, web.PlainKey, web.Longest = policy.Approvals{None: true}, true, 8*3600
	doc.Roles = map[statement.RoleName]policy.Role{"db-admin": db, "root": root, "web-deploy": web}
	return doc
}

// Head is a fresh head of a person's statement under the world's policy.
func (w *World) Head(kind statement.Kind, p statement.Person) statement.Head {
	return statement.Head{V: statement.Version, Kind: kind, Deployment: w.Chain.Deployment(), Policy: w.Chain.Ref(), Person: p,
		Nonce: Nonce(), Created: Now(), NotAfter: Now() + 3600}
}

// Ask is alice's kind of request, signed by the asker; bend may change anything before the signature.
func (w *World) Ask(p statement.Person, role statement.RoleName, host statement.HostName, duration statement.Seconds, key ssh.Signer, bend func(*statement.Request)) statement.Proof {
	w.T.Helper()
	r := statement.Request{Head: w.Head(statement.KindRequest, p), Role: role, Hosts: []statement.HostName{host}, Duration: duration,
		Reason: "INC-42 replica lag", Expires: Now() + 3600, Keys: []statement.Key{w.keyOf(key)}}
	if bend != nil {
		bend(&r)
	}
	slices.Sort(r.Hosts)
	return w.Sign(r, p)
}

// Approve is an approver's yes to exactly these request bytes.
func (w *World) Approve(p statement.Person, request statement.Proof, bend func(*statement.Decision)) statement.Proof {
	w.T.Helper()
	d := statement.Decision{Head: w.Head(statement.KindDecision, p), Request: request.Hash(), Verdict: statement.Approve}
	if bend != nil {
		bend(&d)
	}
	return w.Sign(d, p)
}

// Sign signs a body with a person's own key.
func (w *World) Sign(b statement.Body, p statement.Person) statement.Proof {
	w.T.Helper()
	proof, err := statement.Sign(b, w.People[p])
	w.must(err)
	return proof
}

// Granted is an honest dossier of alice's db-admin or anybody's role, approved by whom it takes.
func (w *World) Granted(p statement.Person, role statement.RoleName, host statement.HostName, duration statement.Seconds, key ssh.Signer, approvers ...statement.Person) broker.Dossier {
	w.T.Helper()
	d := broker.Dossier{Request: w.Ask(p, role, host, duration, key, nil)}
	for _, a := range approvers {
		d.Decisions = append(d.Decisions, w.Approve(a, d.Request, nil))
	}
	return d
}

// Extension is an honest dossier of the same person and role that goes on where another ends, for its first host.
func (w *World) Extension(of broker.Dossier, duration statement.Seconds, key ssh.Signer, bend func(*statement.Request), approvers ...statement.Person) broker.Dossier {
	w.T.Helper()
	return w.ExtensionBy(w.grantOf(of).Person, of, duration, key, bend, approvers...)
}

// ExtensionBy is Extension asked by anybody.
func (w *World) ExtensionBy(p statement.Person, of broker.Dossier, duration statement.Seconds, key ssh.Signer, bend func(*statement.Request), approvers ...statement.Person) broker.Dossier {
	w.T.Helper()
	g := w.grantOf(of)
	d := broker.Dossier{Request: w.Ask(p, g.Role, g.Hosts[0], duration, key, func(r *statement.Request) {
		r.Extends, r.At = string(g.ID), g.Until
		if bend != nil {
			bend(r)
		}
	})}
	for _, a := range approvers {
		d.Decisions = append(d.Decisions, w.Approve(a, d.Request, nil))
	}
	return d
}

func (w *World) grantOf(d broker.Dossier) broker.Grant {
	w.T.Helper()
	g, err := broker.Prove(w.Chain, d)
	w.must(err)
	return g
}

// Certificate is what an honest broker would issue for a dossier's first key; bend may change it before the CA signs.
func (w *World) Certificate(d broker.Dossier, key ssh.Signer, bend func(*ssh.Certificate)) *ssh.Certificate {
	w.T.Helper()
	c := &ssh.Certificate{CertType: ssh.UserCert, Key: key.PublicKey(), Serial: 7, KeyId: "alice",
		ValidPrincipals: []string{broker.StemOf(d.Request.Hash()).Principal()},
		ValidAfter:      uint64(Now() - 1), ValidBefore: uint64(Now() + 3600),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}}}
	if g, err := broker.Prove(w.Chain, d); err == nil {
		c.ValidAfter, c.ValidBefore = uint64(g.From), uint64(g.Until)
	}
	if bend != nil {
		bend(c)
	}
	w.must(c.SignCert(rand.Reader, w.CA))
	return c
}

// Token is an operator-signed enrolment token in the form `pim-hostd enrol` reads.
func (w *World) Token(name statement.HostName, labels map[string]string) []byte {
	w.T.Helper()
	return w.TokenBy("dave", w.People["dave"], name, labels, nil).File(w.T)
}

// Key is a fresh ed25519 key.
func Key(t testing.TB) ssh.Signer {
	t.Helper()
	_, signer := PrivateKey(t)
	return signer
}

// PrivateKey is a fresh ed25519 key with its private half, for a test that hands it to a machine.
func PrivateKey(t testing.TB) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return private, signer
}

// Nonce is 32 fresh hex digits.
func Nonce() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// Now is this machine's clock, which the lab's machines share.
func Now() statement.Time { return statement.TimeOf(time.Now()) }

func (w *World) keyOf(s ssh.Signer) statement.Key {
	w.T.Helper()
	k, err := statement.KeyOf(s.PublicKey())
	w.must(err)
	return k
}

func (w *World) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}
