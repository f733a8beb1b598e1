package main

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

func policyShowCommand(d *desk) *cobra.Command {
	var number uint64
	var shape string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "print the policy in force as YAML, or the signed JSON",
		Args:  none("pim-ssh policy show"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := d.reachOrPinned(cmd.Context())
			if err != nil {
				return err
			}
			return d.policyShow(p, number, shape)
		},
	}
	cmd.Flags().Uint64Var(&number, "revision", 0, "show revision `N` (default: the one in force)")
	cmd.Flags().VarP(outputFlag{format: &d.format, file: &shape}, "output", "o", "print it as `yaml|json`")
	return cmd
}

func (d *desk) policyShow(p pin, number uint64, shape string) error {
	if shape != "" && shape != "yaml" {
		return usage("pim-ssh policy show -o yaml", "-o %s: want yaml or json", shape)
	}
	if number == 0 {
		number = p.chain.Ref().Revision
	}
	doc, known := p.chain.At(number)
	if !known {
		return missing("pim-ssh policy log", "there is no policy revision %d", number)
	}
	if d.json() {
		return d.term.JSON(jsontext.Value(p.chain.Proofs()[number-1].Payload))
	}
	d.term.Say("revision %d, expires %s", number, moment(doc.Expires, d.clock()))
	d.term.Bytes([]byte(policyYAML(doc)))
	return nil
}

// revisionJSON is one line of policy log -o json.
type revisionJSON struct {
	Revision uint64             `json:"revision"`
	Hash     statement.Hash     `json:"hash"`
	Expires  statement.Time     `json:"expires"`
	Signers  []statement.Person `json:"signers"`
	Changes  []string           `json:"changes"`
}

func policyLogCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "log",
		Short: "show every revision: who signed it and what it changed",
		Args:  none("pim-ssh policy log"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := d.reachOrPinned(cmd.Context())
			if err != nil {
				return err
			}
			return d.policyLog(p)
		},
	}
}

// policyLog tells the newest revision first.
func (d *desk) policyLog(p pin) error {
	for number := p.chain.Ref().Revision; number > 0; number-- {
		entry := p.revision(number)
		if d.json() {
			if err := d.term.JSON(entry); err != nil {
				return err
			}
			continue
		}
		d.term.Card(term.Card{Title: fmt.Sprintf("revision %d", number), Fields: []term.Field{
			{Label: "signed by", Lines: lines(entry.Signers)},
			{Label: "hash", Lines: []string{entry.Hash.String()}},
			{Label: "expires", Lines: []string{moment(entry.Expires, d.clock())}},
			{Label: "changes", Lines: entry.Changes},
		}})
	}
	return nil
}

func (p pin) revision(number uint64) revisionJSON {
	doc, _ := p.chain.At(number)
	before, known := p.chain.At(number - 1)
	stewards := before
	if !known {
		stewards = doc
	}
	proof := p.chain.Proofs()[number-1]
	entry := revisionJSON{Revision: number, Hash: proof.Hash(), Expires: doc.Expires, Changes: policy.Difference(before, doc)}
	signers, _ := statement.OpenPayload(statement.KindPolicy, proof) // verified when the chain was walked
	for _, signer := range signers {
		if person, held := stewards.KeyOwner(signer.Key); held {
			entry.Signers = append(entry.Signers, person)
		}
	}
	slices.Sort(entry.Signers)
	return entry
}
