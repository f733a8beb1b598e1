package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

func extendCommand(d *desk) *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "extend ID",
		Short: "ask for more time before a grant's window ends; its sessions go on",
		Long: "Asks for the same role on the same hosts (or fewer) from the moment the grant's window ends. It is a request\n" +
			"like any other: the same people approve, the same limits hold. Once granted before that moment, the sessions\n" +
			"that are open go on; unanswered by then, it has expired.",
		Example:           "  pim-ssh extend g-7k2m9 --for 1h --why \"INC-42 still copying\"",
		Args:              one("ID", "pim-ssh status"),
		ValidArgsFunction: d.completeIDs(ownGrants),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.extend(cmd.Context(), args[0], w)
		},
	}
	askFlags(cmd, &w)
	cmd.Flags().StringSliceVar(&w.hosts, "hosts", nil, "only on these `HOST,…` of the grant's")
	return cmd
}

func (d *desk) extend(ctx context.Context, id string, w wish) error {
	if w.why == "" {
		return usage(fmt.Sprintf("pim-ssh extend %s --why \"…\"", id), "say why: approvers decide on the reason")
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	r, _, err := c.grant(ctx, id)
	if err != nil {
		return err
	}
	if err := c.usable(r); err != nil {
		return err
	}
	names := r.grant.Hosts
	if len(w.hosts) > 0 {
		if names, err = fewer(r.grant.Hosts, w.hosts); err != nil {
			return err
		}
	}
	hosts, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	if err := c.mayAsk(r.request.Role); err != nil {
		return err
	}
	body, err := c.draft(w, r.request.Role, names)
	if err != nil {
		return err
	}
	body.Extends, body.At = string(r.grantID()), r.grant.Until
	body.Expires = min(body.Expires, r.grant.Until)
	if body.Ticket == "" {
		body.Ticket = r.request.Ticket
	}
	if err := c.limits(body, hosts); err != nil {
		return err
	}
	return c.askOrResume(ctx, body, w)
}

// extend is what to type for more time.
func (r reading) extend() string {
	return fmt.Sprintf("pim-ssh extend %s --for %s --why …", short(r.grantID()), span(r.request.Duration))
}

// endsNow is how long before its window ends a grant is told with the command that extends it.
const endsNow = 30 * 60 * statement.Seconds(1)

// ends says which grants are about to end, and what to type for more time; and when those begin that wait.
func (c *contact) ends(own []reading) {
	now := c.clock()
	for _, r := range own {
		if r.grant == nil {
			continue
		}
		switch phase := r.grant.Phase(now); {
		case phase == broker.PhaseWaiting:
			c.term.Say("%s starts at %s; judged again then", short(r.grantID()), moment(r.grant.From, now))
		case phase == broker.PhaseActive && r.grant.Until.Sub(now) <= endsNow:
			c.term.Say("%s ends in %s: %s", short(r.grantID()), roughly(r.grant.Until.Sub(now)), r.extend())
		}
	}
}
