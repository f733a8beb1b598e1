package forger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Broker is the identity key of the one broker, as a signer of anything.
func (w *World) Broker() ssh.Signer {
	w.T.Helper()
	signer, err := ssh.NewSignerFromSigner(w.Identity)
	w.must(err)
	return signer
}

// SignAs signs a body with any key at all, whoever the body says it is from.
func (w *World) SignAs(b statement.Body, signer ssh.Signer) statement.Proof {
	w.T.Helper()
	proof, err := statement.Sign(b, signer)
	w.must(err)
	return proof
}

// AskAs is Ask with another key under the signature.
func (w *World) AskAs(p statement.Person, signer ssh.Signer, role statement.RoleName, host statement.HostName, key ssh.Signer) statement.Proof {
	w.T.Helper()
	var body statement.Request
	w.Ask(p, role, host, 600, key, func(r *statement.Request) { body = *r })
	return w.SignAs(body, signer)
}

// ApproveAs is Approve with another key under the signature.
func (w *World) ApproveAs(p statement.Person, signer ssh.Signer, request statement.Proof) statement.Proof {
	w.T.Helper()
	return w.SignAs(statement.Decision{Head: w.Head(statement.KindDecision, p), Request: request.Hash(), Verdict: statement.Approve}, signer)
}

// Misfiled is a proof whose payload a person signed as another kind of statement: the signature is real, its namespace
// is not the payload's.
func (w *World) Misfiled(p statement.Proof, kind statement.Kind, signer ssh.Signer) statement.Proof {
	w.T.Helper()
	proof, err := statement.SignPayload(kind, p.Payload, signer)
	w.must(err)
	return proof
}

// Edited is a proof whose payload was changed after it was signed. The old words must stand there once.
func Edited(t testing.TB, p statement.Proof, old, now string) statement.Proof {
	t.Helper()
	if bytes.Count(p.Payload, []byte(old)) != 1 {
		t.Fatalf("%q does not stand once in %s", old, p.Payload)
	}
	return statement.Proof{Payload: bytes.Replace(p.Payload, []byte(old), []byte(now), 1), Signatures: p.Signatures}
}

// SignPolicyAs signs a document with any keys at all.
func (w *World) SignPolicyAs(doc policy.Document, signers ...ssh.Signer) statement.Proof {
	w.T.Helper()
	payload, err := policy.Draft(doc)
	w.must(err)
	proof, err := statement.SignPayload(statement.KindPolicy, payload, signers...)
	w.must(err)
	return proof
}

// Next is the document that could follow the world's current policy, changed by edit. Nobody has signed it.
func (w *World) Next(edit func(*policy.Document)) policy.Document {
	w.T.Helper()
	proofs := w.Chain.Proofs()
	doc, err := policy.Parse(proofs[len(proofs)-1].Payload)
	w.must(err)
	next := w.Chain.Next(*doc, Now()+90*24*3600)
	if edit != nil {
		edit(&next)
	}
	return next
}

// Adopt moves the world itself to a policy that follows.
func (w *World) Adopt(p statement.Proof) {
	w.T.Helper()
	chain, err := w.Chain.Advance(p)
	w.must(err)
	w.Chain = chain
}

// Twin is another deployment of the same people with the same keys, the same brokers and the same roles.
func (w *World) Twin() *World {
	w.T.Helper()
	twin := &World{T: w.T, People: w.People, CA: w.CA, Log: w.Log, Identity: w.Identity}
	doc, err := policy.Parse(w.Chain.Proofs()[0].Payload)
	w.must(err)
	doc.Expires++
	twin.Chain = twin.genesis(*doc)
	return twin
}

// TokenFile is what an enrolment is made from, for a test to bend before it is written.
type TokenFile struct {
	Chain  []statement.Proof
	Token  statement.Proof
	Secret ed25519.PrivateKey
}

// TokenBy is an enrolment token in some person's name under some key.
func (w *World) TokenBy(p statement.Person, signer ssh.Signer, name statement.HostName, labels map[string]string, bend func(*statement.HostToken)) TokenFile {
	w.T.Helper()
	_, secret, _ := ed25519.GenerateKey(rand.Reader)
	once, err := ssh.NewSignerFromSigner(secret)
	w.must(err)
	body := statement.HostToken{Head: w.Head(statement.KindHostToken, p), Name: name, Labels: labels,
		Addresses: []string{string(name)}, Key: w.keyOf(once), Expires: Now() + 3600}
	if bend != nil {
		bend(&body)
	}
	return TokenFile{w.Chain.Proofs(), w.SignAs(body, signer), secret}
}

// File is the token as `pim-hostd enrol` reads it.
func (f TokenFile) File(t testing.TB) []byte {
	t.Helper()
	file, err := json.Marshal(map[string]any{"chain": f.Chain, "token": f.Token, "secret": base64.StdEncoding.EncodeToString(f.Secret.Seed())})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// CertificateBy is Certificate signed by any CA at all, a certificate as CA included, which x/crypto would not do.
func (w *World) CertificateBy(ca ssh.Signer, d broker.Dossier, key ssh.Signer, bend func(*ssh.Certificate)) *ssh.Certificate {
	w.T.Helper()
	c := w.Certificate(d, key, bend)
	c.SignatureKey, c.Signature = ca.PublicKey(), nil
	bare := c.Marshal()
	signature, err := ca.Sign(rand.Reader, bare[:len(bare)-4]) // without the length of the signature that is to come
	w.must(err)
	c.Signature = signature
	return c
}
