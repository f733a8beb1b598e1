package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManualNamesEveryCommandAndFlag, and nothing that is not there.
func TestManualNamesEveryCommandAndFlag(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/pim-ssh.1")
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.NewReplacer("Fl -", "--", "Cm ", "", " Ns", "").Replace(string(text))
	root := commands(&desk{world: realWorld()})
	walk(root, func(cmd *cobra.Command) {
		words := strings.TrimPrefix(cmd.CommandPath(), "pim-ssh ")
		if !strings.Contains(manual, ".It "+words) {
			t.Errorf("the manual does not name %s", words)
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(flag *pflag.Flag) {
			if flag.Name != "help" && flag.Name != "output" && !strings.Contains(manual, "--"+flag.Name) {
				t.Errorf("the manual does not name %s --%s", words, flag.Name)
			}
		})
	})
}

// walk visits every command that does something.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	for _, child := range cmd.Commands() {
		if child.HasSubCommands() {
			walk(child, visit)
			continue
		}
		visit(child)
	}
}

// TestLaterCommandsAreAbsent: what other issues bring is not there as an empty promise.
func TestLaterCommandsAreAbsent(t *testing.T) {
	root := commands(&desk{world: realWorld()})
	for _, later := range []string{"extend", "setup", "explain", "standing", "review", "breakglass", "cluster", "login", "sudo", "ssh-ready", "report"} {
		if cmd, _, err := root.Find([]string{later}); err == nil && cmd != root {
			t.Errorf("%s is there", later)
		}
	}
}
