package agent

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// TokenFile is what `pim-ssh host token` writes and `pim-hostd enrol` reads: policy as an operator's CLI verified it,
// that operator's token, and the one-time secret, which no broker ever sees.
type TokenFile struct {
	Chain  []statement.Proof `json:"chain"`  // revision 1 …
	Token  statement.Proof   `json:"token"`  // a host-token statement
	Secret string            `json:"secret"` // base64 of the ed25519 seed whose public half the token names
}

// Enrolment is a token file that was verified, with the host's own identity.
type Enrolment struct {
	Host     broker.Host // name and labels as the operator signed them
	Identity ed25519.PrivateKey

	token  statement.Proof
	secret ed25519.PrivateKey
	chain  policy.Chain
}

// checkTokenFile verifies a token file by itself: the chain holds, an operator of it signed the token, and the
// secret is the token's. Whether the token has expired is asked only once, by Enrol.
func checkTokenFile(file TokenFile) (Enrolment, statement.HostToken, error) {
	fail := func(err error) (Enrolment, statement.HostToken, error) {
		return Enrolment{}, statement.HostToken{}, fmt.Errorf("token file: %w", err)
	}
	chain, err := walk(file.Chain)
	if err != nil {
		return fail(err)
	}
	opened, err := statement.Open(file.Token)
	if err != nil {
		return fail(err)
	}
	token, ok := opened.Body.(statement.HostToken)
	if !ok {
		return fail(errors.New("holds no host token"))
	}
	if err := checkOperator(chain, token, opened.Signers); err != nil {
		return fail(err)
	}
	seed, err := base64.StdEncoding.Strict().DecodeString(file.Secret)
	if err != nil || len(seed) != ed25519.SeedSize {
		return fail(errors.New("the secret is not a base64 ed25519 seed"))
	}
	secret := ed25519.NewKeyFromSeed(seed)
	if key, err := keyOf(secret); err != nil || key != token.Key {
		return fail(errors.New("the secret is not the one the token names"))
	}
	host := broker.Host{Name: token.Name, Labels: token.Labels}
	return Enrolment{Host: host, token: file.Token, secret: secret, chain: chain}, token, nil
}

func walk(proofs []statement.Proof) (policy.Chain, error) {
	if len(proofs) == 0 {
		return policy.Chain{}, errors.New("holds no policy")
	}
	chain, err := policy.Genesis(proofs[0])
	if err != nil {
		return policy.Chain{}, err
	}
	for _, p := range proofs[1:] {
		if chain, err = chain.Advance(p); err != nil {
			return policy.Chain{}, err
		}
	}
	return chain, nil
}

// checkOperator holds the token to the policy it travels with.
func checkOperator(chain policy.Chain, token statement.HostToken, signers []statement.Signer) error {
	switch {
	case token.Deployment != chain.Deployment():
		return errors.New("the token is for another deployment than its chain")
	case chain.Place(token.Policy) != policy.Known:
		return errors.New("the token names a policy revision that is not in its chain")
	}
	doc := chain.Current()
	person, held := doc.KeyOwner(signers[0].Key)
	if !held || person != token.Person || !doc.Operator(person) {
		return fmt.Errorf("the token is not signed by an operator (%s says so)", token.Person)
	}
	return nil
}

// Enrol verifies a token file and writes a fresh spool from it, with an identity made from random. It talks to
// nobody: run posts the enrolment when it first reaches a broker. A host that is enrolled already is refused.
func (s *Spool) Enrol(data []byte, machineID statement.Hash, random io.Reader) (broker.Host, error) {
	if _, err := s.read(enrolmentFile); !errors.Is(err, fs.ErrNotExist) {
		return broker.Host{}, fmt.Errorf("this host is enrolled already: remove %s first", s.dir)
	}
	var file TokenFile
	if err := statement.DecodeStrict(data, &file); err != nil {
		return broker.Host{}, fmt.Errorf("token file: %w", err)
	}
	enrolment, token, err := checkTokenFile(file)
	if err != nil {
		return broker.Host{}, err
	}
	if now := statement.TimeOf(s.now()); now > token.Expires || now > token.NotAfter {
		return broker.Host{}, fmt.Errorf("the token expired at %s: ask an operator for a new one with pim-ssh host token %s", token.Expires, token.Name)
	}
	if err := s.newIdentity(random); err != nil {
		return broker.Host{}, err
	}
	for i, p := range enrolment.chain.Proofs() {
		if err := s.putJSON(p, policyDir, policyName(uint64(i+1))); err != nil {
			return broker.Host{}, err
		}
	}
	err = errors.Join(s.putJSON(enrolment.chain.Ref(), newestFile),
		writeFile(s.path(machineFile), []byte(machineID.String()+"\n"), 0o600),
		writeFile(s.path(enrolmentFile), data, 0o600))
	return enrolment.Host, err
}

func (s *Spool) newIdentity(random io.Reader) error {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "pim-ssh host")
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return writeFile(s.path(identityFile), pem.EncodeToMemory(block), 0o600)
}

// loadEnrolment reads who this host is, and verifies it again.
func (s *Spool) loadEnrolment() (Enrolment, error) {
	data, err := s.read(enrolmentFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Enrolment{}, errors.New("this host is not enrolled: pim-hostd enrol TOKENFILE")
	}
	if err != nil {
		return Enrolment{}, fmt.Errorf("spool: %w", err)
	}
	var file TokenFile
	if err := statement.DecodeStrict(data, &file); err != nil {
		return Enrolment{}, fmt.Errorf("%s: %w", s.path(enrolmentFile), err)
	}
	enrolment, _, err := checkTokenFile(file)
	if err != nil {
		return Enrolment{}, fmt.Errorf("%s: %w", s.path(enrolmentFile), err)
	}
	enrolment.Identity, err = s.loadIdentity()
	return enrolment, err
}

func (s *Spool) loadIdentity() (ed25519.PrivateKey, error) {
	data, err := s.read(identityFile)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	private, ok := key.(*ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("identity: not an ed25519 key")
	}
	return *private, nil
}

// checkMachine refuses a spool that was copied from another machine; a spool that was never bound is bound now.
func (s *Spool) checkMachine(machineID statement.Hash) error {
	data, err := s.read(machineFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFile(s.path(machineFile), []byte(machineID.String()+"\n"), 0o600)
	case err != nil:
		return fmt.Errorf("spool: %w", err)
	case string(data) != machineID.String()+"\n":
		return errors.New("this spool belongs to another machine-id: enrol this machine by its own token (pim-ssh host token)")
	}
	return nil
}

func keyOf(private ed25519.PrivateKey) (statement.Key, error) {
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return "", err
	}
	return statement.KeyOf(signer.PublicKey())
}
