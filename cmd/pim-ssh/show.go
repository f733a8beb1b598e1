package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

func showCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "show a request in full, as its signed bytes say",
		Long: "Fetches the request with every statement that belongs to it, verifies them here against the policy you\n" +
			"pinned, and shows what they say: who asks, for what, where, how long, why, and who decided.",
		Args:              one("ID", "pim-ssh inbox"),
		ValidArgsFunction: d.completeIDs(anyRequests),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			r, view, err := c.requestByID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.present(cmd.Context(), r, view, args[0])
		},
	}
}

// present prints a request in full; in JSON the grant when it was asked for by a grant's id.
func (c *contact) present(ctx context.Context, r reading, view api.RequestView, id string) error {
	now := c.clock()
	if state := r.state(now); view.State != state {
		c.term.Warn("the broker says that %s is %s; the signed statements it shows say %s", short(r.id()), view.State, state)
	}
	switch {
	case !c.json():
		c.term.Card(c.fullCard(r, view))
		return nil
	case r.grant != nil && strings.HasPrefix(id, "g-"):
		return c.term.JSON(r.grantAsJSON(now, c.endedBy(ctx, r)))
	}
	said := r.asJSON(now)
	word := c.word(r, view)
	said.Brokers = &word
	return c.term.JSON(said)
}

// endedBy is who ended the grant, by the broker's word: an end travels without its statement. "" when nobody did, a policy
// did, or no broker says.
func (c *contact) endedBy(ctx context.Context, r reading) statement.Person {
	if r.grant.Ended == nil {
		return ""
	}
	client, err := c.as(ctx)
	if err != nil {
		return ""
	}
	view, _ := client.Grant(ctx, string(r.grantID()))
	return view.EndedBy
}
