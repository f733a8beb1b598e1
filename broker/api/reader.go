package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// ReadLife is how long, in seconds, a read's proof lives.
const ReadLife = 60

// Reader signs a person's reads. Session is nil when Signer is one of the person's own keys; otherwise it is the
// proof of a session statement that names Signer's key.
type Reader struct {
	Person     statement.Person
	Deployment statement.Hash
	Policy     func() statement.PolicyRef // the newest revision the person has verified
	Signer     ssh.Signer
	Session    *statement.Proof
	Now        func() statement.Time
	Random     io.Reader
}

// Sign returns the headers that prove one read of pathAndQuery with an empty body.
func (r *Reader) Sign(method, pathAndQuery string) (http.Header, error) {
	nonce := make([]byte, 16)
	if _, err := io.ReadFull(r.Random, nonce); err != nil {
		return nil, fmt.Errorf("nonce for a read: %w", err)
	}
	now := r.Now()
	read := statement.Read{
		Head: statement.Head{
			V: statement.Version, Kind: statement.KindRead, Deployment: r.Deployment, Policy: r.Policy(), Person: r.Person,
			Nonce: hex.EncodeToString(nonce), Created: now, NotAfter: now + ReadLife,
		},
		Method: method, PathAndQuery: pathAndQuery, BodySHA256: sha256.Sum256(nil),
	}
	proof, err := statement.Sign(read, r.Signer)
	if err != nil {
		return nil, fmt.Errorf("signing the read of %s: %w", pathAndQuery, err)
	}
	headers := http.Header{}
	if err := setProof(headers, HeaderProof, proof); err != nil {
		return nil, err
	}
	if r.Session == nil {
		return headers, nil
	}
	return headers, setProof(headers, HeaderSession, *r.Session)
}

func setProof(headers http.Header, name string, proof statement.Proof) error {
	encoded, err := json.Marshal(proof)
	if err != nil {
		return fmt.Errorf("%s header: %w", name, err)
	}
	headers.Set(name, base64.StdEncoding.EncodeToString(encoded))
	return nil
}
