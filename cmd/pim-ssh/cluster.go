package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

func clusterCommand(d *desk) *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "see how the brokers are, and who is one of them"}
	cmd.AddCommand(clusterStatusCommand(d), clusterAddCommand(d), clusterRemoveCommand(d), clusterRulesCommand(d), clusterBackupCommand(d), clusterRestoreCommand(d))
	return family(cmd)
}

// clusterWish is a change to the cluster, as typed.
type clusterWish struct {
	change   statement.Change
	name     string
	disk     string
	watching bool
	rules    string
	why      string
	yes      bool
}

func clusterAddCommand(d *desk) *cobra.Command {
	w := clusterWish{change: statement.Add}
	cmd := &cobra.Command{
		Use:   "add NAME --disk DISK",
		Short: "make a broker that policy lists a member, by the disk it has now",
		Long: "Signs that broker NAME, with this disk and no other, is one of the cluster. `pim-brokerd join` on that broker prints\n" +
			"the whole line. The broker follows first, and votes once it has the whole record.",
		Example:           "  pim-ssh cluster add b4 --disk 1f2e3d4c5b6a79880f1e2d3c4b5a6978",
		Args:              one("NAME", "pim-ssh cluster add b4 --disk DISK"),
		ValidArgsFunction: d.completeBrokers,
		RunE:              w.run(d, func(w *clusterWish, name string) { w.name = name }),
	}
	cmd.Flags().StringVar(&w.disk, "disk", "", "the `DISK` that pim-brokerd join printed there: 32 hex digits")
	cmd.Flags().BoolVar(&w.watching, "watching", false, "it follows and serves, and never votes")
	w.common(cmd, false)
	return cmd
}

func clusterRemoveCommand(d *desk) *cobra.Command {
	w := clusterWish{change: statement.Remove}
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "take a broker out of the cluster; the disk it has never comes back",
		Long: "Signs that broker NAME, with the disk it has now, is out of the cluster for ever. A broker whose disk was lost or\n" +
			"damaged comes back with a new one: this, then on the broker pim-brokerd quarantine and pim-brokerd join, then cluster add.",
		Args:              one("NAME", "pim-ssh cluster remove b3"),
		ValidArgsFunction: d.completeBrokers,
		RunE:              w.run(d, func(w *clusterWish, name string) { w.name = name }),
	}
	w.common(cmd, true)
	return cmd
}

func clusterRulesCommand(d *desk) *cobra.Command {
	w := clusterWish{change: statement.Raise}
	cmd := &cobra.Command{
		Use:   "rules [N]",
		Short: "print the rules that brokers decide under, or raise them once every broker is upgraded",
		Long: "Without N: which rules are in force, and which each broker knows. With N: signs that all brokers decide under rules N\n" +
			"from now on. There is no way back: an older pim-brokerd stops then.",
		Args: atMostOne("N", "pim-ssh cluster rules 2"),
		RunE: w.run(d, func(w *clusterWish, rules string) { w.rules = rules }),
	}
	w.common(cmd, true)
	return cmd
}

func (w *clusterWish) common(cmd *cobra.Command, asks bool) {
	cmd.Flags().StringVar(&w.why, "why", "", "a reason, in a `TEXT` that stays in the log")
	if asks {
		cmd.Flags().BoolVarP(&w.yes, "yes", "y", false, "do not ask")
	}
}

func (w *clusterWish) run(d *desk, take func(*clusterWish, string)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return d.clusterRules(cmd.Context())
		}
		take(w, args[0])
		return d.clusterChange(cmd.Context(), *w)
	}
}

// completeBrokers completes the brokers that the pinned policy lists.
func (d *desk) completeBrokers(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	p, err := d.pinned()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []cobra.Completion
	for _, name := range slices.Sorted(maps.Keys(p.chain.Current().Brokers)) {
		found = append(found, cobra.CompletionWithDesc(string(name), p.chain.Current().Brokers[name].Address))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// body reads what was typed strictly, before anybody is asked anything.
func (w clusterWish) body() (statement.Cluster, error) {
	body := statement.Cluster{Action: w.change, Watching: w.watching, Reason: w.why}
	var err error
	if w.change == statement.Raise {
		if body.Rules, err = strconv.Atoi(w.rules); err != nil || body.Rules < 2 {
			return body, usage("pim-ssh cluster rules", "rules %.20q: want a number from 2 on", w.rules)
		}
		return body, nil
	}
	if body.Broker, err = statement.ParseBrokerName(w.name); err != nil {
		return body, usage("pim-ssh cluster status", "%v", err)
	}
	if w.change == statement.Add {
		if body.Disk, err = statement.ParseDisk(w.disk); err != nil {
			return body, usage("on "+w.name+": pim-brokerd join prints the whole line", "%v", err)
		}
	}
	return body, nil
}

// clusterJSON is what add, remove and rules print with -o json.
type clusterJSON struct {
	Action statement.Change     `json:"action"`
	Broker statement.BrokerName `json:"broker,omitzero"`
	Disk   statement.Disk       `json:"disk,omitzero"`
	Rules  int                  `json:"rules,omitzero"`
	Index  uint64               `json:"index"`
}

func (d *desk) clusterChange(ctx context.Context, w clusterWish) error {
	body, err := w.body()
	if err != nil {
		return err
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	if !c.chain.Current().Operator(c.person) {
		return denied("ask one of: "+joined(c.chain.Current().Operators), "you are no operator")
	}
	if body.Action == statement.Remove {
		if body.Disk, err = c.diskOf(ctx, body.Broker); err != nil {
			return err
		}
	}
	if agreed, err := c.agreeToChange(ctx, body, w.yes || body.Action == statement.Add); err != nil || !agreed {
		return err
	}
	if body.Head, err = c.head(statement.KindCluster, freshFor); err != nil {
		return err
	}
	answer, _, err := c.file(ctx, body)
	if err != nil {
		return err
	}
	return c.tellChange(body, answer)
}

// diskOf returns the disk that a broker is a member with; "" is the one it was founded with. A broker that shows another
// makes the statement name a disk that is no member's, which is refused.
func (c *contact) diskOf(ctx context.Context, name statement.BrokerName) (statement.Disk, error) {
	client, err := c.as(ctx)
	if err != nil {
		return "", err
	}
	shown, err := client.Cluster(ctx)
	if err != nil {
		return "", err
	}
	for _, b := range shown.Brokers {
		switch {
		case b.Name != name:
		case b.Place == api.PlaceListed || b.Place == api.PlaceRemoved:
			return "", missing("pim-ssh cluster status", "%s is no member", name)
		case b.Founding:
			return "", nil
		default:
			return b.Disk, nil
		}
	}
	return "", missing("pim-ssh cluster status", "there is no broker %s%s", name, didYouMean(string(name), names(shown)))
}

func names(shown api.Cluster) []string {
	var all []string
	for _, b := range shown.Brokers {
		all = append(all, string(b.Name))
	}
	return all
}

// agreeToChange asks before what cannot be taken back.
func (c *contact) agreeToChange(ctx context.Context, body statement.Cluster, yes bool) (bool, error) {
	if yes {
		return true, nil
	}
	card := term.Card{Title: "remove " + string(body.Broker), Fields: []term.Field{
		{Label: "disk", Lines: []string{diskText(body.Disk)}},
		{Label: "then", Lines: []string{"it is out for ever with that disk; its name may come back with another"}}}}
	if body.Action == statement.Raise {
		card = term.Card{Title: fmt.Sprintf("rules %d", body.Rules), Fields: []term.Field{
			{Label: "then", Lines: []string{"every broker decides under them; an older pim-brokerd stops, and there is no way back"}}}}
	}
	agreed, err := c.term.Confirm(ctx, card, "sign and file it?")
	if err == nil && !agreed {
		c.term.Say("nothing was signed")
		return false, invalid("", "not changed")
	}
	return agreed, err
}

func diskText(disk statement.Disk) string {
	if disk == "" {
		return "the one it was founded with"
	}
	return string(disk)
}

func (c *contact) tellChange(body statement.Cluster, answer api.Answer) error {
	if c.json() {
		return c.term.JSON(clusterJSON{body.Action, body.Broker, body.Disk, body.Rules, answer.Index})
	}
	switch body.Action {
	case statement.Add:
		c.term.Result("%s", body.Broker)
		if body.Watching {
			c.term.Say("added; it follows without a vote: pim-ssh cluster status")
		} else {
			c.term.Say("added; it votes once it has the whole record: pim-ssh cluster status")
		}
	case statement.Remove:
		c.term.Result("%s", body.Broker)
		c.term.Say("removed for ever with that disk; to bring it back, on %s: pim-brokerd quarantine, then pim-brokerd join", body.Broker)
	default:
		c.term.Result("%d", body.Rules)
		c.term.Say("every broker decides under rules %d now", body.Rules)
	}
	return nil
}

// clusterRules prints the rules in force, and what each broker knows.
func (d *desk) clusterRules(ctx context.Context) error {
	shown, err := d.clusterShown(ctx)
	if err != nil {
		return err
	}
	newest := broker.Rules
	for _, b := range shown.Brokers {
		if b.Place != api.PlaceListed && b.Place != api.PlaceRemoved {
			newest = min(newest, b.Rules)
		}
	}
	if d.json() {
		known := map[statement.BrokerName]int{}
		for _, b := range shown.Brokers {
			known[b.Name] = b.Rules
		}
		return d.term.JSON(map[string]any{"rules": shown.Rules, "known": known})
	}
	d.term.Result("%d", shown.Rules)
	for _, b := range shown.Brokers {
		if b.Reachable && b.Rules < broker.Rules {
			d.term.Say("%s knows rules up to %d: upgrade it to go further", b.Name, b.Rules)
		}
	}
	if newest > shown.Rules {
		d.term.Say("every broker knows rules %d; raise them with: pim-ssh cluster rules %d", newest, shown.Rules+1)
	}
	return nil
}
