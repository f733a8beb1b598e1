package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
)

// policyDiffJSON is what policy diff prints with -o json.
type policyDiffJSON struct {
	From    string   `json:"from"`
	To      string   `json:"to"`
	Changes []string `json:"changes"`
}

func policyDiffCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "diff [[OLDFILE] FILE]",
		Short: "say in words what a policy.yaml would change",
		Long: "Compares FILE (default: policy.yaml) with the newest revision, or two files with each other. Like diff, it exits with 0\n" +
			"when they say the same and with 1 when they differ.",
		Example: "  pim-ssh policy diff                    # policy.yaml against the revision in force\n" +
			"  pim-ssh policy diff before.yaml after.yaml",
		Args: atMostTwo("FILE", "pim-ssh policy diff policy.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 2:
				return d.policyDiffFiles(args[0], args[1])
			case 1:
				return d.policyDiff(cmd.Context(), args[0])
			}
			return d.policyDiff(cmd.Context(), "policy.yaml")
		},
	}
}

func atMostTwo(name, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 2 {
			return usage(hint, "%s wants at most two %ss", words(cmd), name)
		}
		return nil
	}
}

// policyDiff compares a file, as the revision it would become, with the newest one.
func (d *desk) policyDiff(ctx context.Context, path string) error {
	file, err := readPolicyFile(path)
	if err != nil {
		return err
	}
	p, err := d.reachOrPinned(ctx)
	if err != nil {
		return err
	}
	old := p.chain.Current()
	next := p.chain.Next(file.Document, old.Expires)
	return d.differing(fmt.Sprintf("revision %d", p.chain.Ref().Revision), path, old, &next)
}

func (d *desk) policyDiffFiles(old, path string) error {
	before, err := readPolicyFile(old)
	if err != nil {
		return err
	}
	after, err := readPolicyFile(path)
	if err != nil {
		return err
	}
	return d.differing(old, path, &before.Document, &after.Document)
}

// differing prints what changes; that anything does is an error, so that a pipeline hears of it.
func (d *desk) differing(from, to string, before, after *policy.Document) error {
	changes := policy.Difference(before, after)
	if d.json() {
		if err := d.term.JSON(policyDiffJSON{from, to, append([]string{}, changes...)}); err != nil {
			return err
		}
	} else {
		for _, line := range changes {
			d.term.Result("%s", line)
		}
	}
	if len(changes) > 0 {
		return fmt.Errorf("%s differs from %s: %s", to, from, counted(len(changes), "change"))
	}
	d.term.Say("%s says what %s says", to, from)
	return nil
}
