package main

import (
	"context"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

func inboxCommand(d *desk) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "inbox",
		Short: "list what waits for you: requests, reviews, renewals",
		Long: "Lists the requests you can decide now; emergency grants that wait for your review; and, for stewards, what\n" +
			"people ask of them about their eligibility. With --watch it goes on, and says each thing once, when it comes.",
		Args: none("pim-ssh inbox"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			if watch {
				return c.watchInbox(cmd.Context())
			}
			return c.inbox(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and print a line as each thing comes, until Ctrl-C")
	return cmd
}

// item is one thing that waits for the person: what it is called, how it is told, and what to type.
type item struct {
	key  string // told once
	row  []string
	json any
	next string
}

// inboxHeader stands over the items of a table.
var inboxHeader = []string{"ID", "WHO", "ROLE", "HOSTS", "FOR", "ASKED", "WHY"}

func (c *contact) inbox(ctx context.Context) error {
	items, err := c.waitingItems(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, one := range items {
		if c.json() {
			if err := c.term.JSON(one.json); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, one.row)
	}
	if c.json() {
		return nil
	}
	if len(rows) == 0 {
		c.term.Say("nothing waits for you")
		return nil
	}
	c.term.Table(inboxHeader, rows)
	said := map[string]bool{}
	for _, one := range items {
		if !said[one.next] {
			c.term.Say("%s", one.next)
		}
		said[one.next] = true
	}
	return nil
}

// waitingItems is everything that waits for the person, the requests first.
func (c *contact) waitingItems(ctx context.Context) ([]item, error) {
	items, err := c.requestItems(ctx)
	if err != nil {
		return nil, err
	}
	more, err := c.otherItems(ctx)
	if err != nil && ctx.Err() == nil {
		c.term.Warn("reviews and renewals are left out: %s", err)
	}
	return append(items, more...), nil
}

func (c *contact) requestItems(ctx context.Context) ([]item, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	views, err := client.Inbox(ctx)
	if err != nil {
		return nil, err
	}
	now := c.clock()
	var items []item
	for _, view := range views {
		r, ok := c.believe(view.Dossier, string(view.ID))
		if !ok || r.mayDecide(c.pin, now) != nil {
			continue
		}
		items = append(items, item{
			key: string(r.id()), row: inboxRow(r, now), json: r.asJSON(now),
			next: "decide with: pim-ssh approve ID, or pim-ssh deny ID --why …",
		})
	}
	return items, nil
}

func inboxRow(r reading, now statement.Time) []string {
	asked := roughly(now.Sub(r.request.Created)) + " ago"
	return []string{
		short(r.id()), string(r.request.Person), string(r.request.Role), joined(r.request.Hosts), span(r.request.Duration), asked, r.request.Reason,
	}
}

// watchInbox says each thing once, as it comes, until the context ends.
func (c *contact) watchInbox(ctx context.Context) error {
	told := map[string]bool{}
	heard := c.listening(nil)
	heard.others = true
	c.term.Say("watching; decide with: pim-ssh approve ID, or pim-ssh deny ID --why …")
	for {
		err := c.sayNew(ctx, told)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && broker.KindOf(err) != broker.Unavailable {
			return err
		}
		if err := heard.nextWord(ctx); err != nil {
			return err
		}
	}
}

// sayNew prints what was not told before, by the newest policy: it may have changed while nothing came.
func (c *contact) sayNew(ctx context.Context, told map[string]bool) error {
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	items, err := c.waitingItems(ctx)
	if err != nil {
		return err
	}
	for _, one := range items {
		if told[one.key] {
			continue
		}
		told[one.key] = true
		if c.json() {
			if err := c.term.JSON(one.json); err != nil {
				return err
			}
			continue
		}
		c.term.Table(one.row, nil)
	}
	return nil
}

// catchUp walks the policy forward on what a broker shows.
func (c *contact) catchUp(ctx context.Context) error {
	shown, err := c.posts.Policies(ctx, c.chain.Ref().Revision-1)
	if err != nil {
		return err
	}
	c.pin, err = c.forward(c.pin, shown)
	return err
}
