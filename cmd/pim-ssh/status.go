package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

func statusCommand(d *desk) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "status [ID]",
		Short: "show your open requests and grants, or one of them",
		Long: "Without an ID: your pending requests and your waiting and active grants; with --all also what is over.\n" +
			"With an ID: that request in full. Certificates that are ready for you are collected on the way.",
		Args:              atMostOne("ID", "pim-ssh status"),
		ValidArgsFunction: d.completeIDs(ownRequests),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return c.statusOf(cmd.Context(), args[0])
			}
			return c.status(cmd.Context(), all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also what is denied, withdrawn, expired or over")
	return cmd
}

// status lists what is the person's own.
func (c *contact) status(ctx context.Context, all bool) error {
	client, err := c.as(ctx)
	if err != nil {
		return err
	}
	views, err := client.AllRequests(ctx)
	if err != nil {
		return err
	}
	now := c.clock()
	var own []reading
	for _, view := range views {
		r, ok := c.believe(view.Dossier, string(view.ID))
		if !ok || r.request.Person != c.person {
			continue
		}
		c.collectQuietly(ctx, r)
		if all || r.open(now) {
			own = append(own, r)
		}
	}
	if c.json() {
		return c.statusJSON(ctx, own)
	}
	if len(own) == 0 {
		c.term.Say("nothing is open; ask with: pim-ssh request ROLE@HOST --for 1h --why …")
		return nil
	}
	rows := make([][]string, len(own))
	for i, r := range own {
		rows[i] = r.row(now)
	}
	c.term.Table([]string{"ID", "ROLE", "HOSTS", "STATE", "UNTIL", "WHY"}, rows)
	c.ends(own)
	return nil
}

// believe reads a dossier that stands in a list; what does not verify is said and left out.
func (c *contact) believe(d broker.Dossier, id string) (reading, bool) {
	r, err := c.read(d, id)
	if err != nil {
		c.term.Warn("left out: %s", err)
		return reading{}, false
	}
	return r, true
}

// open reports whether anything may still come of the request.
func (r reading) open(now statement.Time) bool {
	switch r.state(now) {
	case api.Pending:
		return r.why == nil
	case api.Approved:
		phase := r.grant.Phase(now)
		return phase == broker.PhaseWaiting || phase == broker.PhaseActive
	}
	return false
}

// row is one line of a list: the grant's id and phase once there is one.
func (r reading) row(now statement.Time) []string {
	id, state, until := string(r.id()), string(r.state(now)), r.request.Expires
	if r.grant != nil {
		id, state, until = string(r.grantID()), string(r.grant.Phase(now)), r.grant.Until
	}
	return []string{short(id), string(r.request.Role), joined(r.request.Hosts), state, until.String(), r.request.Reason}
}

func (c *contact) statusJSON(ctx context.Context, own []reading) error {
	now := c.clock()
	for _, r := range own {
		if err := c.term.JSON(r.asJSON(now)); err != nil {
			return err
		}
		if r.grant == nil {
			continue
		}
		if err := c.term.JSON(r.grantAsJSON(now, c.endedBy(ctx, r))); err != nil {
			return err
		}
	}
	return nil
}

// collectQuietly picks up a certificate that an earlier `request` did not wait for: its key still lies in the runtime
// directory. What is over is thrown away instead.
func (c *contact) collectQuietly(ctx context.Context, r reading) {
	if !r.open(c.clock()) {
		c.clearAway(r.stem())
		return
	}
	private, err := c.kept(r.stem())
	if err != nil || private == nil || r.grant == nil {
		return
	}
	if certificate, _ := c.inHand(c.pin, *r.grant); certificate != nil {
		return
	}
	if _, view, err := c.grant(ctx, string(r.grantID())); err == nil {
		if _, where, err := c.collectWith(ctx, *r.grant, view, private); err == nil {
			c.term.Say("%s is granted; certificate in: %s", short(r.grantID()), where)
			return
		}
	}
	c.term.Warn("%s is granted, but its certificate could not be collected: try pim-ssh cert %s", short(r.grantID()), short(r.grantID()))
}

// clearAway takes what is left of a request or grant that is over out of the ssh-agent and the runtime directory.
func (c *contact) clearAway(stem broker.Stem) {
	path, err := c.keyPath(stem)
	if err != nil {
		return
	}
	if left, _ := filepath.Glob(path + "*"); len(left) == 0 {
		return
	}
	if err := c.letGo(stem); err != nil {
		c.term.Warn("%s is over, but its key could not be removed: %s", short(stem.Grant()), err)
	}
}

// statusOf shows one request or grant in full.
func (c *contact) statusOf(ctx context.Context, id string) error {
	r, view, err := c.requestByID(ctx, id)
	if err != nil {
		return err
	}
	if r.request.Person == c.person {
		c.collectQuietly(ctx, r)
	}
	return c.present(ctx, r, view, id)
}

// requestByID fetches one request and verifies its dossier.
func (c *contact) requestByID(ctx context.Context, id string) (reading, api.RequestView, error) {
	if err := checkID(id); err != nil {
		return reading{}, api.RequestView{}, err
	}
	client, err := c.as(ctx)
	if err != nil {
		return reading{}, api.RequestView{}, err
	}
	view, err := client.Request(ctx, id)
	if err != nil {
		return reading{}, api.RequestView{}, err
	}
	r, err := c.read(view.Dossier, id)
	return r, view, err
}
