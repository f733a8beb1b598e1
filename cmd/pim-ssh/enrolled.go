package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// enrolled is a host as an operator's token and the host's own enrolment statement vouch for it; no broker's word is in it.
type enrolled struct {
	token statement.HostToken
	host  statement.Enrolment
	proof statement.Proof
}

// vouched verifies an enrolment: its token is signed by a person who was operator in the revision the token names.
func vouched(chain policy.Chain, proof statement.Proof) (enrolled, error) {
	opened, err := statement.Open(proof) // the token's signature and binding included
	if err != nil {
		return enrolled{}, err
	}
	host, fits := opened.Body.(statement.Enrolment)
	if !fits {
		return enrolled{}, errors.New("it is no enrolment")
	}
	signed, err := statement.Open(host.Token)
	if err != nil {
		return enrolled{}, err
	}
	token, fits := signed.Body.(statement.HostToken)
	switch {
	case !fits:
		return enrolled{}, errors.New("it holds no token")
	case token.Deployment != chain.Deployment():
		return enrolled{}, errors.New("its token is of another deployment")
	case chain.Place(token.Policy) != policy.Known:
		return enrolled{}, fmt.Errorf("its token names policy revision %d, which is not this deployment's", token.Policy.Revision)
	}
	then, _ := chain.At(token.Policy.Revision)
	if !then.HoldsKey(token.Person, signed.Signers[0].Key) || !then.Operator(token.Person) {
		return enrolled{}, fmt.Errorf("its token is signed by %s, who was no operator", token.Person)
	}
	return enrolled{token: token, host: host, proof: proof}, nil
}

// hosts asks for the enrolled hosts, believes the vouched ones, and keeps their enrolments for known-hosts. A host that was
// seen before stays the machine it was, also while a broker does not show it, until an operator signs a newer token for it:
// an old token, stolen or of an operator who has left, moves nobody's ssh.
func (c *contact) hosts(ctx context.Context) (map[statement.HostName]enrolled, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	views, err := client.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	before, err := c.keptHosts(c.chain)
	if err != nil {
		return nil, err
	}
	known := map[statement.HostName]enrolled{}
	for _, host := range before {
		known[host.token.Name] = host
	}
	believed := map[statement.HostName]enrolled{}
	for _, view := range views {
		host, err := vouched(c.chain, view.Enrolment)
		if err != nil {
			c.term.Warn("a host the broker calls %s is left out: %s", view.Name, err)
			continue
		}
		name := host.token.Name
		if older, seen := known[name]; seen && !host.succeeds(older) {
			c.term.Warn("%s is shown as another machine than before, under no newer token: it stays what it was; tell an operator", name)
			host = older
		}
		believed[name], known[name] = host, host
	}
	return believed, c.keepHosts(known)
}

// succeeds reports whether an enrolment may take the place of an earlier one of the same name.
func (e enrolled) succeeds(older enrolled) bool {
	return e.proof.Hash() == older.proof.Hash() || e.token.Created > older.token.Created
}

// keepHosts writes the enrolments for keptHosts.
func (d *desk) keepHosts(known map[statement.HostName]enrolled) error {
	var lines bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(known)) {
		line, err := json.Marshal(known[name].proof)
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	state, err := d.stateDir()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(state, "hosts"), lines.Bytes(), 0o600)
}

// keptHosts reads the enrolments kept by hosts and verifies them again. What does not verify is passed over.
func (d *desk) keptHosts(chain policy.Chain) ([]enrolled, error) {
	state, err := d.stateDir()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(state, "hosts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var kept []enrolled
	for line := range bytes.Lines(data) {
		proof, err := statement.ParseProof(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			continue
		}
		if host, err := vouched(chain, proof); err == nil {
			kept = append(kept, host)
		}
	}
	return kept, nil
}
