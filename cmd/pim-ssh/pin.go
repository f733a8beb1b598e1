package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

const joinHint = "pim-ssh join CHAINFILE, with the file a steward hands out"

var errNotJoined = invalid(joinHint, "this account has not joined a deployment")

// pin is what join fixed: the deployment with every policy revision verified so far, and the person.
type pin struct {
	chain  policy.Chain
	person statement.Person
	key    string // "" any of the person's keys, a SHA256 fingerprint, or a path
}

// settings is config.json.
type settings struct {
	Person statement.Person `json:"person"`
	Key    string           `json:"key,omitzero"`
}

// pinned reads what join wrote and verifies the chain again from its first revision.
func (d *desk) pinned() (pin, error) {
	state, err := d.stateDir()
	if err != nil {
		return pin{}, err
	}
	if _, err := os.Lstat(filepath.Join(state, "fork")); err == nil {
		return pin{}, denied("show the file to the stewards; remove it when they have settled which revision holds",
			"the policy forked: the evidence is in %s, and nothing is signed until that is settled", filepath.Join(state, "fork"))
	}
	data, err := os.ReadFile(filepath.Join(state, "chain"))
	if errors.Is(err, fs.ErrNotExist) {
		return pin{}, errNotJoined
	}
	if err != nil {
		return pin{}, err
	}
	chain, err := readChain(data)
	if err != nil {
		return pin{}, invalid(joinHint, "the policy chain kept in %s is damaged: %v", state, err)
	}
	s, err := d.readSettings()
	return pin{chain: chain, person: s.Person, key: s.Key}, err
}

func readChain(data []byte) (policy.Chain, error) {
	proofs, err := parseChainFile(data)
	if err != nil {
		return policy.Chain{}, err
	}
	return walkAll(proofs)
}

func (d *desk) readSettings() (settings, error) {
	dir, err := d.configDir()
	if err != nil {
		return settings{}, err
	}
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return settings{}, invalid(joinHint, "there is no %s", path)
	}
	if err != nil {
		return settings{}, err
	}
	var s settings
	if err := statement.DecodeStrict(data, &s); err != nil {
		return settings{}, invalid(joinHint, "%s: %v", path, err)
	}
	return s, nil
}

// keepSettings writes config.json.
func (d *desk) keepSettings(s settings) error {
	dir, err := d.configDir()
	if err != nil {
		return err
	}
	data, err := json.Marshal(s, jsontext.Multiline(true))
	if err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	return writeFile(filepath.Join(dir, "config.json"), append(data, '\n'), 0o600)
}

// keepChain writes the chain, unless another pim-ssh has kept a longer one meanwhile: what is kept never goes back.
func (d *desk) keepChain(chain policy.Chain) error {
	state, err := d.stateDir()
	if err != nil {
		return err
	}
	unlock, err := lock(state)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(state, "chain")
	if data, err := os.ReadFile(path); err == nil {
		kept, err := readChain(data)
		if err == nil && kept.Deployment() == chain.Deployment() && kept.Ref().Revision > chain.Ref().Revision {
			return nil
		}
	}
	data, err := formatChainFile(chain.Proofs())
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o600)
}

// lock keeps other pim-ssh of the same person from writing in the directory until unlock is called.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return func() { file.Close() }, nil
}

// forward walks the pinned chain along proofs that somebody showed. Revisions known already are passed over; a fork
// is kept as evidence and stops everything; anything else that does not follow is refused. It never goes back.
func (d *desk) forward(p pin, shown []statement.Proof) (pin, error) {
	before := p.chain.Ref()
	for _, proof := range shown {
		next, err := p.chain.Advance(proof)
		var fork *policy.Fork
		switch {
		case errors.Is(err, policy.ErrKnown):
			continue
		case errors.As(err, &fork):
			return p, errors.Join(d.keepFork(fork), denied("stop, and show this to the stewards", "%v", err))
		case err != nil:
			return p, denied("pim-ssh join CHAINFILE, if a steward handed out a newer file", "a policy was shown that is not this deployment's: %v", err)
		}
		p.chain = next
	}
	if p.chain.Ref() == before {
		return p, nil
	}
	d.term.Say("policy revision %d is now in force (was %d)", p.chain.Ref().Revision, before.Revision)
	return p, d.keepChain(p.chain)
}

// keepFork keeps both revisions, one proof a line, until people have settled it.
func (d *desk) keepFork(fork *policy.Fork) error {
	state, err := d.stateDir()
	if err != nil {
		return err
	}
	evidence, err := formatChainFile([]statement.Proof{fork.Known, fork.Other})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(state, "fork"), evidence, 0o600)
}
