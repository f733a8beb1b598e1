package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManualNamesEveryCommandAndFlag of the program.
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

// TestManualNamesNothingElse: every command and flag in the manual is there.
func TestManualNamesNothingElse(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/pim-ssh.1")
	if err != nil {
		t.Fatal(err)
	}
	manual, _, _ := strings.Cut(string(text), ".Sh ENVIRONMENT")
	root := commands(&desk{world: realWorld()})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	told := regexp.MustCompile(`(?m)^\.It Cm ([a-z -]+[a-z])(.*)$`).FindAllStringSubmatch(manual, -1)
	if len(told) < 20 {
		t.Fatalf("the manual tells of %d commands", len(told))
	}
	flag := regexp.MustCompile(`Fl -([a-z-]+)`)
	for _, entry := range told {
		cmd, rest, err := root.Find(strings.Fields(entry[1]))
		if err != nil || len(rest) > 0 || cmd == root {
			t.Errorf("the manual names %s, which is not there", entry[1])
			continue
		}
		for _, name := range flag.FindAllStringSubmatch(entry[2], -1) {
			if cmd.Flag(name[1]) == nil {
				t.Errorf("the manual names %s --%s, which is not there", entry[1], name[1])
			}
		}
	}
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
	for _, later := range []string{"setup", "breakglass", "login", "sudo", "ssh-ready", "report"} {
		if cmd, _, err := root.Find([]string{later}); err == nil && cmd != root {
			t.Errorf("%s is there", later)
		}
	}
}
