package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// joinJSON is what `join -o json` prints.
type joinJSON struct {
	Deployment statement.Hash      `json:"deployment"`
	Policy     statement.PolicyRef `json:"policy"`
	Person     statement.Person    `json:"person"`
}

func joinCommand(d *desk) *cobra.Command {
	var person, key string
	cmd := &cobra.Command{
		Use:   "join CHAINFILE",
		Short: "pin a deployment from the file a steward handed out",
		Long: "Verifies the policy chain in CHAINFILE from its first revision, pins that deployment for ever, and finds who\n" +
			"you are by the keys in your ssh-agent. Nothing is taken from the network: compare the deployment's id with\n" +
			"the one your steward tells you. Joining again with a newer file of the same deployment walks forward.",
		Args: one("CHAINFILE", "ask a steward for the chain file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.join(cmd.Context(), args[0], statement.Person(person), key)
		},
	}
	cmd.Flags().StringVar(&person, "person", "", "the `PERSON` you are in the policy (default: whose keys the ssh-agent holds)")
	cmd.Flags().StringVar(&key, "key", "", "the `KEY` that speaks for you: a file, or SHA256:… in the ssh-agent (default: any of yours)")
	return cmd
}

func (d *desk) join(ctx context.Context, file string, person statement.Person, key string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return invalid("ask a steward for the chain file", "chain file: %v", err)
	}
	proofs, err := parseChainFile(data)
	if err != nil {
		return invalid("ask a steward for the chain file", "%s is no chain file: %v", file, err)
	}
	chain, err := walkAll(proofs)
	if err != nil {
		return denied("do not join; show the file to a steward", "the chain in %s does not verify: %v", file, err)
	}
	chain, err = d.follows(chain, proofs)
	if err != nil {
		return err
	}
	if key, err = absolute(key); err != nil {
		return err
	}
	person, err = d.whoIs(ctx, chain.Current(), person, key)
	if err != nil {
		return err
	}
	if err := errors.Join(d.keepChain(chain), d.keepSettings(settings{Person: person, Key: key})); err != nil {
		return err
	}
	if d.json() {
		return d.term.JSON(joinJSON{Deployment: chain.Deployment(), Policy: chain.Ref(), Person: person})
	}
	d.term.Result("%s", chain.Deployment())
	d.term.Say("joined as %s, policy revision %d; compare the deployment's id above with your steward's", person, chain.Ref().Revision)
	d.term.Say("go on with: pim-ssh whoami")
	return nil
}

// absolute makes a key's path independent of where it was typed; fingerprints stay.
func absolute(key string) (string, error) {
	if key == "" || len(key) > 7 && key[:7] == "SHA256:" {
		return key, nil
	}
	return filepath.Abs(key)
}

// follows holds a chain to what was pinned before, if anything: the same deployment, and never back.
func (d *desk) follows(chain policy.Chain, proofs []statement.Proof) (policy.Chain, error) {
	state, err := d.stateDir()
	if err != nil {
		return chain, err
	}
	data, err := os.ReadFile(filepath.Join(state, "chain"))
	if errors.Is(err, fs.ErrNotExist) {
		return chain, nil
	}
	if err != nil {
		return chain, err
	}
	pinned, err := readChain(data)
	if err != nil {
		return chain, invalid("remove it and join again: rm "+filepath.Join(state, "chain"), "the policy chain kept there is damaged: %v", err)
	}
	if pinned.Deployment() != chain.Deployment() {
		return chain, denied("to leave it for good: rm -r "+state, "this account has joined deployment %s, and the file is of %s", pinned.Deployment(), chain.Deployment())
	}
	p, err := d.forward(pin{chain: pinned}, proofs)
	return p.chain, err
}

// whoIs finds the person in the policy: the one named, who must hold the key, or the only one whose keys are at hand.
func (d *desk) whoIs(ctx context.Context, doc *policy.Document, named statement.Person, key string) (statement.Person, error) {
	if named != "" {
		entry, known := doc.People[named]
		if !known {
			return "", missing("ask a steward to add you", "the policy knows no %s%s", named, didYouMean(string(named), peopleOf(doc)))
		}
		_, err := d.chooseKey(ctx, key, entry.Keys)
		return named, err
	}
	if key != "" {
		return d.ownerOf(ctx, doc, key)
	}
	held, err := d.agentKeys()
	if err != nil {
		return "", invalid("pim-ssh join CHAINFILE --person YOU --key FILE", "%v", err)
	}
	var found []statement.Person
	for k := range held {
		if person, owned := doc.KeyOwner(k); owned && !slices.Contains(found, person) {
			found = append(found, person)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", denied(keyHint, "the ssh-agent holds nobody's key of this policy")
	}
	return "", usage("pim-ssh join CHAINFILE --person "+string(found[0]), "the ssh-agent holds keys of several people: %s", joined(found))
}

func (d *desk) ownerOf(ctx context.Context, doc *policy.Document, key string) (statement.Person, error) {
	for _, person := range peopleOf(doc) {
		if _, err := d.chooseKey(ctx, key, doc.People[statement.Person(person)].Keys); err == nil {
			return statement.Person(person), nil
		}
	}
	return "", denied(keyHint, "key %s is nobody's in this policy, or is not at hand", key)
}

func peopleOf(doc *policy.Document) []string {
	names := make([]string, 0, len(doc.People))
	for name := range doc.People {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}
