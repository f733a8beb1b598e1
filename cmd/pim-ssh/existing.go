package main

import (
	"context"
	"slices"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// pendingFor finds the person's own pending request for the same role on the same hosts: asking twice is asking once.
func (c *contact) pendingFor(ctx context.Context, role statement.RoleName, hosts []statement.HostName) (*reading, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	views, err := client.Requests(ctx)
	if err != nil {
		return nil, err
	}
	for _, view := range views {
		r, err := readDossier(c.pin, view.Dossier, c.clock())
		if err != nil || r.request.Person != c.person || r.request.Role != role || !slices.Equal(r.request.Hosts, hosts) {
			continue
		}
		if r.state(c.clock()) == api.Pending && r.why == nil {
			return &r, nil
		}
	}
	return nil, nil
}

// resume answers a request with the one that is pending for the same, and waits for that.
func (c *contact) resume(ctx context.Context, r reading, w wish) error {
	c.term.Say("you asked for the same %s ago, for %s: it is still pending, and stands as it was asked", roughly(c.clock().Sub(r.request.Created)), span(r.request.Duration))
	timeout, err := w.patience(r.request.Expires.Sub(c.clock()))
	if err != nil {
		return err
	}
	if err := c.announce(r); err != nil {
		return err
	}
	private, err := c.kept(r.stem())
	if err != nil {
		return err
	}
	return c.wait(ctx, waiting{pending: r, private: private, noWait: w.noWait, timeout: timeout})
}
