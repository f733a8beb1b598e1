package statement

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/ssh"
)

// maxAddresses is how many addresses a host token may list.
const maxAddresses = 16

func (t HostToken) check() error {
	return first(
		t.Head.check(KindHostToken, byPerson),
		parses("name", t.Name, ParseHostName),
		CheckLabels(t.Labels),
		sorted("addresses", t.Addresses, 1, maxAddresses, parseAddress),
		checkIdentity("key", t.Key),
		within("expires", t.Expires, t.Created+1, t.Created.Add(MaxLifetime)),
	)
}

func (e Enrolment) check() error {
	if err := e.Head.check(KindEnrolment, byHost); err != nil {
		return err
	}
	if e.MachineID.IsZero() {
		return errors.New("machine_id: none given")
	}
	return first(
		named("token", e.Token.checkSize()),
		checkIdentity("identity", e.Identity),
		sorted("host_keys", e.HostKeys, 1, MaxKeys, ParseKey),
	)
}

// checkToken holds an enrolment to the token it carries: the token's own signature holds, it is for this host in
// this deployment and was alive, and the enrolment is signed by the token's key, then by the identity.
func (e Enrolment) checkToken(signers []Signer) error {
	b, err := decode(e.Token.Payload)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	token, ok := b.(HostToken)
	if !ok {
		return fmt.Errorf("token: a %s statement is no token", b.Header().Kind)
	}
	if _, err := Open(e.Token); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	switch {
	case token.Deployment != e.Deployment:
		return errors.New("token: of another deployment")
	case token.Name != e.Host:
		return fmt.Errorf("token: for host %s, not %s", token.Name, e.Host)
	case e.Created > token.Expires:
		return fmt.Errorf("token: expired at %s: ask an operator for a new one with pim-ssh host token", token.Expires)
	case len(signers) != 2 || signers[0].Key != token.Key:
		return errors.New("first signature: not by the token's key")
	case signers[1].Key != e.Identity:
		return errors.New("second signature: not by the host's identity")
	}
	return nil
}

// checkIdentity holds keys of machines to ssh-ed25519.
func checkIdentity(field string, k Key) error {
	if err := parses(field, k, ParseKey); err != nil {
		return err
	}
	if k.Type() != ssh.KeyAlgoED25519 {
		return fmt.Errorf("%s: %s: want ssh-ed25519", field, k.Type())
	}
	return nil
}

// CheckLabels holds a host's labels to their grammar: at most 64, names ^[a-z][a-z0-9._-]{0,62}$, values of 1 to 63
// letters, digits and . _ -.
func CheckLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("labels: %d given: at most %d", len(labels), MaxLabels)
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		value := labels[name]
		if !matches(name, lower, lower+digits+"._-", 63) {
			return fmt.Errorf("label %.80q: want a lower-case letter, then at most 62 of a-z 0-9 . _ -", name)
		}
		if value == "" || len(value) > 63 || !only(value, labelValue) {
			return fmt.Errorf("label %s: value %.80q: want 1 to 63 letters, digits and . _ -", name, value)
		}
	}
	return nil
}

const labelValue = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "._-"

// parseAddress holds what ssh clients dial to names, IPv4, IPv6 and [host]:port, in lower case.
func parseAddress(s string) (string, error) {
	if !matches(s, lower+digits+":[", lower+digits+".:-]", 253) {
		return "", fmt.Errorf("%.80q: want a lower-case name, an address or [host]:port", s)
	}
	return s, nil
}
