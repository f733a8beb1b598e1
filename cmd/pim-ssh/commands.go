package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// commands is the whole vocabulary, in the groups of people who type it.
func commands(d *desk) *cobra.Command {
	root := &cobra.Command{
		Use:   "pim-ssh",
		Short: "ask for a role on Linux hosts, for one window, approved by people's own signatures",
		Long: "Nobody is root by default. Ask for a role with a reason, the right people say yes with their own SSH keys,\n" +
			"and for one window ssh and sudo work; then they stop by themselves.",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(cmd *cobra.Command, args []string) {
			d.open()
			d.typed = typed{command: words(cmd), about: strings.Join(args[:min(len(args), 1)], "")}
		},
	}
	root.SetOut(d.stdout)
	root.SetErr(d.stderr)
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.VarP(outputFlag{format: &d.format}, "output", "o", "how to print results: text or json")
	flags.BoolVarP(&d.quiet, "quiet", "q", false, "only results, warnings and questions")
	flags.BoolVar(&d.noInput, "no-input", false, "never ask anything")
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"everybody", "For everybody:", []*cobra.Command{joinCommand(d), whoamiCommand(d), rolesCommand(d), explainCommand(d), totpCommand(d), versionCommand(d)}},
		{"engineers", "For engineers:", []*cobra.Command{requestCommand(d), statusCommand(d), extendCommand(d), withdrawCommand(d), returnCommand(d), renewCommand(d), sshCommand(d), certCommand(d)}},
		{"approvers", "For approvers:", []*cobra.Command{inboxCommand(d), showCommand(d), approveCommand(d), denyCommand(d), revokeCommand(d), reviewCommand(d)}},
		{"operators", "For operators:", []*cobra.Command{hostCommand(d), clusterCommand(d)}},
		{"stewards", "For stewards:", []*cobra.Command{policyCommand(d)}},
		{"auditors", "For auditors:", []*cobra.Command{auditCommand(d), standingCommand(d)}},
		{"ssh", "For ssh itself:", []*cobra.Command{knownHostsCommand(d)}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, cmd := range group.commands {
			cmd.GroupID = group.id
			root.AddCommand(cmd)
		}
	}
	root.CompletionOptions.DisableNoDescFlag = true
	root.SetHelpCommandGroupID("everybody")
	root.SetCompletionCommandGroupID("everybody")
	return family(root)
}

// family makes a command that only has subcommands say which ones it has when an unknown one is typed.
func family(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

func unknownCommand(cmd *cobra.Command, typed string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(typed); len(near) > 0 {
		return usage(cmd.CommandPath()+" "+near[0], "there is no %s %s: did you mean %s?", cmd.CommandPath(), typed, strings.Join(near, " or "))
	}
	return usage(cmd.CommandPath()+" --help", "there is no %s %s", cmd.CommandPath(), typed)
}

// flagError turns an unknown flag into a usage error; a mistyped subcommand before it is the likelier mistake.
func flagError(cmd *cobra.Command, err error) error {
	if typed := cmd.Flags().Args(); cmd.HasSubCommands() && len(typed) > 0 {
		return unknownCommand(cmd, typed[0])
	}
	return usage(cmd.CommandPath()+" --help", "%v", err)
}

// one, atMostOne and none hold a command to its arguments.
func one(name, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(hint, "%s wants exactly one %s", words(cmd), name)
		}
		return nil
	}
}

func atMostOne(name, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(hint, "%s wants at most one %s", words(cmd), name)
		}
		return nil
	}
}

func none(hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(hint, "%s wants no argument", words(cmd))
		}
		return nil
	}
}

// words are a command's own, without the program's name.
func words(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "pim-ssh ") }

// didYouMean is ": did you mean X?" when one of the words is near what was typed.
func didYouMean(typed string, words []string) string {
	if near, found := policy.Nearest(typed, words); found {
		return ": did you mean " + near + "?"
	}
	return ""
}

// idSource lists ids with a word on each, for completion.
type idSource func(ctx context.Context, c *contact) ([]reading, error)

// completing is how long a completion may take before it gives up in silence.
const completing = 2 * time.Second

// completeIDs completes live ids. It never asks anything and never shows text that people wrote.
func (d *desk) completeIDs(source idSource) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		d.quiet, d.noInput = true, true
		d.open()
		ctx, cancel := context.WithTimeout(cmd.Context(), completing)
		defer cancel()
		c, err := d.contact(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		readings, err := source(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var found []cobra.Completion
		for _, r := range readings {
			what := string(r.request.Person) + " " + string(r.request.Role) + "@" + joined(r.request.Hosts)
			found = append(found, cobra.CompletionWithDesc(string(r.id()), what))
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

func anyRequests(ctx context.Context, c *contact) ([]reading, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	views, err := client.AllRequests(ctx)
	var found []reading
	for _, view := range views {
		if r, err := readDossier(c.pin, view.Dossier, c.clock()); err == nil {
			found = append(found, r)
		}
	}
	return found, err
}

func ownRequests(ctx context.Context, c *contact) ([]reading, error) {
	found, err := anyRequests(ctx, c)
	return slices.DeleteFunc(found, func(r reading) bool { return r.request.Person != c.person || !r.open(c.clock()) }), err
}

func inboxRequests(ctx context.Context, c *contact) ([]reading, error) {
	found, err := anyRequests(ctx, c)
	return slices.DeleteFunc(found, func(r reading) bool { return r.mayDecide(c.pin, c.clock()) != nil }), err
}

func anyGrants(ctx context.Context, c *contact) ([]reading, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	views, err := client.Grants(ctx)
	var found []reading
	for _, view := range views {
		if r, err := readDossier(c.pin, view.Dossier, c.clock()); err == nil && r.grant != nil {
			found = append(found, r)
		}
	}
	return found, err
}

func ownGrants(ctx context.Context, c *contact) ([]reading, error) {
	found, err := anyGrants(ctx, c)
	return slices.DeleteFunc(found, func(r reading) bool { return r.request.Person != c.person }), err
}

// completeRoles completes the roles the person may ask for, from the pinned policy alone.
func (d *desk) completeRoles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	p, err := d.pinned()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []cobra.Completion
	for _, name := range roleNames(p.chain.Current()) {
		if p.chain.Current().Eligible(p.person, statement.RoleName(name)) {
			found = append(found, name)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
