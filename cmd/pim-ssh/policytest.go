package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/policy/rehearse"
	"pim-ssh/broker/statement"
)

// playedJSON is one line of policy test -o json.
type playedJSON struct {
	Name    string                `json:"name"`
	Line    int                   `json:"line"`
	Right   bool                  `json:"right"`
	Got     policyfile.Ending     `json:"got"`
	From    statement.Time        `json:"from,omitzero"`
	Until   statement.Time        `json:"until,omitzero"`
	Said    string                `json:"said,omitzero"`
	Wrong   []rehearse.Difference `json:"wrong,omitempty"`
	Untried []string              `json:"untried,omitempty"`
}

func policyTestCommand(d *desk) *cobra.Command {
	path := ""
	cmd := &cobra.Command{
		Use:   "test SCENARIOS",
		Short: "play scenarios against a policy: who gets what, when, with whose yes",
		Long: "Plays each scenario by itself, by the rules of brokers and hosts, with throw-away keys in place of people's. It needs\n" +
			"no broker but to learn the newest revision, and exits with 1 when a scenario ends in another way than it says.\n" +
			"TOTP codes, hooks and budgets already spent are not tried; each line says what else was not.",
		Example: "  pim-ssh policy test scenarios.yaml --policy policy.yaml   # before signing, and in a pipeline",
		Args:    one("SCENARIOS", "pim-ssh policy test scenarios.yaml --policy policy.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.policyTest(cmd.Context(), args[0], path)
		},
	}
	cmd.Flags().StringVar(&path, "policy", "", "the policy.yaml `FILE` to try (default: the newest revision)")
	return cmd
}

func (d *desk) policyTest(ctx context.Context, path, of string) error {
	doc, err := d.tried(ctx, of)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return invalid("man policy.yaml, under SCENARIOS", "%v", err)
	}
	scenarios, err := policyfile.ParseScenarios(path, text, &doc, d.clock())
	if err != nil {
		return err
	}
	played, err := rehearse.Play(doc, scenarios)
	if err != nil {
		return err
	}
	wrong, untried := 0, map[string]bool{}
	for _, one := range played {
		if !one.Right() {
			wrong++
		}
		for _, what := range one.Untried {
			untried[what+" of "+string(one.Role)] = true
		}
		if err := d.tellPlayed(path, one); err != nil {
			return err
		}
	}
	if len(untried) > 0 {
		d.term.Say("not tried: %s", strings.Join(slices.Sorted(maps.Keys(untried)), ", "))
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %s ended in another way than %s says", wrong, counted(len(played), "scenario"), path)
	}
	d.term.Say("%s: all as %s says", counted(len(played), "scenario"), path)
	return nil
}

// tried is the policy to play with.
func (d *desk) tried(ctx context.Context, of string) (policy.Document, error) {
	if of != "" {
		file, err := readPolicyFile(of)
		return file.Document, err
	}
	p, err := d.reachOrPinned(ctx)
	if err != nil {
		return policy.Document{}, err
	}
	return *p.chain.Current(), nil
}

// tellPlayed prints one line for a scenario, and below it what came out another way.
func (d *desk) tellPlayed(path string, p rehearse.Played) error {
	wrong := p.Wrong()
	if d.json() {
		return d.term.JSON(playedJSON{p.Name, p.Line, len(wrong) == 0, p.Got, p.Opens, p.Closes, p.Said, wrong, p.Untried})
	}
	if len(wrong) == 0 {
		d.term.Result("ok     %s", p.Name)
		return nil
	}
	d.term.Result("wrong  %s", p.Name)
	d.term.Result("       %s:%d", path, p.Line)
	for _, one := range wrong {
		d.term.Result("     - %-8s %s", one.Field+":", one.Want)
		d.term.Result("     + %-8s %s", one.Field+":", orNothing(one.Got))
	}
	if p.Said != "" && p.Because == "" {
		d.term.Result("       %s", p.Said)
	}
	return nil
}

func orNothing(said string) string {
	if said == "" {
		return "nothing"
	}
	return said
}
