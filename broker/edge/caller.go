package edge

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

const hintSign = "let pim-ssh sign the read: pim-ssh whoami"

// evidence is what a caller showed, well-formed and rightly signed. Whether it is a person's word in this deployment is
// asked of the state: see person.
type evidence struct {
	read    statement.Opened
	body    statement.Read
	session *statement.Opened // nil when the person's own key signed the read
}

// evidence opens the proofs in a read's headers and holds the read to this very request.
func (s *Server) evidence(r *http.Request) (evidence, error) {
	opened, err := s.proofIn(r, api.HeaderProof)
	if err != nil {
		return evidence{}, err
	}
	if opened == nil {
		return evidence{}, broker.Refuse(broker.Denied, hintSign, "this read needs a %s header", api.HeaderProof)
	}
	read, isRead := opened.Body.(statement.Read)
	if !isRead {
		return evidence{}, broker.Refuse(broker.Denied, hintSign, "%s carries a %s statement, not a read", api.HeaderProof, opened.Body.Header().Kind)
	}
	empty := sha256.Sum256(nil)
	if read.Method != r.Method || read.PathAndQuery != r.RequestURI || !bytes.Equal(read.BodySHA256[:], empty[:]) {
		return evidence{}, broker.Refuse(broker.Denied, hintSign, "the read was signed for %.20q %.200q", read.Method, read.PathAndQuery)
	}
	session, err := s.proofIn(r, api.HeaderSession)
	return evidence{read: *opened, body: read, session: session}, err
}

// proofIn opens the proof in a header, or returns nil when the header is absent.
func (s *Server) proofIn(r *http.Request, header string) (*statement.Opened, error) {
	values := r.Header.Values(header)
	if len(values) == 0 {
		return nil, nil
	}
	opened, err := openHeader(values)
	if err != nil {
		s.rubbish.Add(1)
		return nil, broker.Refuse(broker.Invalid, hintSign, "%s: %w", header, err)
	}
	return opened, nil
}

func openHeader(values []string) (*statement.Opened, error) {
	if len(values) > 1 || base64.StdEncoding.DecodedLen(len(values[0])) > api.MaxHeaderProof+2 {
		return nil, broker.Refuse(broker.Invalid, "", "one header of at most %d bytes", api.MaxHeaderProof)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(values[0])
	if err != nil {
		return nil, err
	}
	proof, err := statement.ParseProof(data)
	if err != nil {
		return nil, err
	}
	opened, err := statement.Open(proof)
	return &opened, err
}

// person returns who is reading: somebody of the current policy, with a key they hold today. The read must be fresh at
// the moment it arrived; a session must last until now.
func (e evidence) person(chain policy.Chain, arrived, now statement.Time) (statement.Person, error) {
	if err := current(chain, e.read, arrived); err != nil {
		return "", err
	}
	person, doc := e.body.Person, chain.Current()
	signer := e.read.Signers[0].Key
	if e.session == nil {
		if !doc.HoldsKey(person, signer) {
			return "", broker.Refuse(broker.Denied, "pim-ssh whoami", "the key %s is not %s's in the current policy", signer.Fingerprint(), person)
		}
		return person, nil
	}
	return person, e.checkSession(chain, signer, now)
}

// checkSession holds a session to its person and to the key that signed the read.
func (e evidence) checkSession(chain policy.Chain, signer statement.Key, now statement.Time) error {
	if err := placed(chain, e.session.Body.Header()); err != nil {
		return err
	}
	session, isSession := e.session.Body.(statement.Session)
	switch {
	case !isSession:
		return broker.Refuse(broker.Denied, hintSign, "%s carries a %s statement, not a session", api.HeaderSession, e.session.Body.Header().Kind)
	case session.Person != e.body.Person || session.Key != signer:
		return broker.Refuse(broker.Denied, hintSign, "the session is not for this read's person and key")
	case !chain.Current().HoldsKey(session.Person, e.session.Signers[0].Key):
		return broker.Refuse(broker.Denied, hintSign, "the session was not signed by a key that %s holds", session.Person)
	case session.Created > now.Add(broker.MaxAhead) || now >= session.Until || now > session.NotAfter:
		return broker.Refuse(broker.Expired, hintSign, "the session lasted until %s", session.Until)
	}
	return nil
}

// current holds a read to this deployment and to this minute.
func current(chain policy.Chain, read statement.Opened, now statement.Time) error {
	head := read.Body.Header()
	if err := placed(chain, head); err != nil {
		return err
	}
	if head.Created > now.Add(broker.MaxAhead) || now > head.Created.Add(api.ReadLife) || now > head.NotAfter {
		return broker.Refuse(broker.Expired, "check the clock of this machine", "the read was signed at %s; it is %s here", head.Created, now)
	}
	return nil
}

// placed holds a statement's head to this deployment's chain.
func placed(chain policy.Chain, head statement.Head) error {
	if head.Deployment != chain.Deployment() || head.Person == "" {
		return broker.Refuse(broker.Denied, "pim-ssh join", "the %s statement is for another deployment", head.Kind)
	}
	switch chain.Place(head.Policy) {
	case policy.Known:
		return nil
	case policy.Ahead:
		return broker.Refuse(broker.Unavailable, "try again in a moment", "this broker has not seen policy revision %d yet", head.Policy.Revision)
	default:
		return broker.Refuse(broker.Denied, "pim-ssh policy log", "policy revision %d is another one here", head.Policy.Revision)
	}
}

// hostKey returns the key the caller proved on the TLS connection, if any.
func hostKey(r *http.Request) (statement.Key, bool) {
	if r.TLS == nil {
		return "", false
	}
	return api.PeerKey(*r.TLS)
}
