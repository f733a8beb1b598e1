package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy/policyfile"
)

// policyCheckJSON is what policy check prints with -o json.
type policyCheckJSON struct {
	File     string        `json:"file"`
	People   int           `json:"people"`
	Roles    int           `json:"roles"`
	Warnings []warningJSON `json:"warnings"`
}

type warningJSON struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Warning string `json:"warning"`
}

func policyCheckCommand(d *desk) *cobra.Command {
	strict := false
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "say everything that is wrong with a policy.yaml, and what you may regret",
		Long: "Says every mistake in FILE with its line and column, and warns of rules that are valid but may surprise: commands\n" +
			"that give a shell, roles that undercut each other, quorums and stewards that hang on one person.",
		Args: one("FILE", "pim-ssh policy check policy.yaml"),
		RunE: func(_ *cobra.Command, args []string) error {
			return d.policyCheck(args[0], strict)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "fail on warnings too")
	return cmd
}

func (d *desk) policyCheck(path string, strict bool) error {
	file, warnings, err := d.checkedPolicy(path)
	if err != nil {
		return err
	}
	people, roles := len(file.Document.People), len(file.Document.Roles)
	if d.json() {
		told := []warningJSON{}
		for _, w := range warnings {
			told = append(told, warningJSON{w.Line, w.Column, w.Msg})
		}
		if err := d.term.JSON(policyCheckJSON{path, people, roles, told}); err != nil {
			return err
		}
	} else {
		d.warnOf(warnings)
		d.term.Say("%s is sound: %d people, %d roles%s; sign it with: pim-ssh policy sign %s", path, people, roles, warned(warnings), path)
	}
	if strict && len(warnings) > 0 {
		return invalid("mend it, or check without --strict", "%s has %s", path, counted(len(warnings), "warning"))
	}
	return nil
}

// maxWarned is how many warnings are told at once.
const maxWarned = 50

func (d *desk) warnOf(warnings policyfile.Errors) {
	for i, w := range warnings {
		if i == maxWarned {
			d.term.Warn("… and %s more", counted(len(warnings)-i, "warning"))
			return
		}
		d.term.Warn("%s:%d:%d: warning: %s", w.File, w.Line, w.Column, w.Msg)
	}
}

func warned(warnings policyfile.Errors) string {
	if len(warnings) == 0 {
		return ""
	}
	return ", " + counted(len(warnings), "warning")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (d *desk) checkedPolicy(path string) (policyfile.File, policyfile.Errors, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return policyfile.File{}, nil, invalid("pim-ssh policy init policy.yaml", "%v", err)
	}
	return policyfile.ParseWarned(path, text, d.clock())
}
