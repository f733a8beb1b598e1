package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// endJSON is what withdraw, return and revoke print with -o json.
type endJSON struct {
	Request broker.RequestID `json:"request,omitzero"`
	Grant   broker.GrantID   `json:"grant,omitzero"`
	How     statement.How    `json:"how"`
	Index   uint64           `json:"index"`
}

func withdrawCommand(d *desk) *cobra.Command {
	return endCommand(d, statement.Withdraw, "withdraw ID", "take back your own pending request", ownRequests)
}

func returnCommand(d *desk) *cobra.Command {
	return endCommand(d, statement.Return, "return ID", "give back your own grant before its window ends", ownGrants)
}

func revokeCommand(d *desk) *cobra.Command {
	return endCommand(d, statement.Revoke, "revoke ID", "end somebody's grant at once", anyGrants)
}

func endCommand(d *desk, how statement.How, use, short string, ids idSource) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:               use,
		Short:             short,
		Args:              one("ID", "pim-ssh status"),
		ValidArgsFunction: d.completeIDs(ids),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.end(cmd.Context(), how, args[0], why)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "a reason, in a `TEXT` that stays in the log")
	return cmd
}

func (c *contact) end(ctx context.Context, how statement.How, id, why string) error {
	stem, err := c.whole(ctx, how, id)
	if err != nil {
		return err
	}
	head, err := c.head(statement.KindEnd, freshFor)
	if err != nil {
		return err
	}
	body, said := statement.End{Head: head, How: how, Reason: why}, endJSON{How: how}
	if how == statement.Withdraw {
		body.Request, said.Request = string(stem.Request()), stem.Request()
	} else {
		body.Grant, said.Grant = string(stem.Grant()), stem.Grant()
	}
	answer, _, err := c.file(ctx, body)
	if err != nil {
		return err
	}
	if how != statement.Revoke {
		err = c.letGo(stem)
	}
	said.Index = answer.Index
	if c.json() {
		return errors.Join(err, c.term.JSON(said))
	}
	c.term.Result("%s%s", said.Request, said.Grant)
	c.term.Say("%s", map[statement.How]string{
		statement.Withdraw: "withdrawn", statement.Return: "returned; its sessions end now", statement.Revoke: "revoked; its sessions end now",
	}[how])
	return err
}

// whole resolves an id's prefix. A whole id of the right kind needs no broker's answer, so that ending works also when
// what a broker shows does not verify.
func (c *contact) whole(ctx context.Context, how statement.How, id string) (broker.Stem, error) {
	if stem, err := broker.ParseStem(bareID(id)); err == nil {
		return stem, nil
	}
	r, _, err := c.requestByID(ctx, id)
	if broker.KindOf(err) == broker.Missing && how != statement.Withdraw {
		return "", missing("pim-ssh status", "no grant %s", id)
	}
	if err != nil {
		return "", err
	}
	if how != statement.Withdraw && r.grant == nil {
		return "", missing("pim-ssh withdraw "+short(r.id()), "%s is no grant", r.id())
	}
	return r.stem(), nil
}
