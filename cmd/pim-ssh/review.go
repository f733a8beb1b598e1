package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// reviewedJSON is what `review -o json` prints.
type reviewedJSON struct {
	Grant broker.GrantID `json:"grant"`
	Index uint64         `json:"index"`
}

func reviewCommand(d *desk) *cobra.Command {
	var why, key string
	cmd := &cobra.Command{
		Use:   "review ID",
		Short: "close an emergency grant that you have looked into",
		Long: "A role for emergencies opens at once, without anybody's yes, and stays in the inbox of its approvers and of\n" +
			"auditors until one of them, and not its holder, signs what they found.",
		Example:           "  pim-ssh review g-7k2m9 --why \"read the session's log: only postgresql was restarted\"",
		Args:              one("ID", "pim-ssh inbox"),
		ValidArgsFunction: d.completeIDs(openReviews),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usage(fmt.Sprintf("pim-ssh review %s --why \"…\"", args[0]), "say what you found: it stays in the log")
			}
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.review(cmd.Context(), args[0], why, key)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "what you found, in a `TEXT` that stays in the log")
	cmd.Flags().StringVar(&key, "key", "", "sign with this key of yours: a `FILE`, or the SHA256:… of one in the ssh-agent")
	return cmd
}

func (c *contact) review(ctx context.Context, id, why, key string) error {
	stem, err := c.reviewable(ctx, id)
	if err != nil {
		return err
	}
	if r, view, err := c.requestByID(ctx, string(stem.Grant())); err == nil {
		c.term.TalkCard(c.fullCard(r, view))
	} else if broker.KindOf(err) == broker.Missing {
		c.term.Warn("brokers no longer hold what was signed for %s; it is in the log: pim-ssh audit show %s", stem.Grant(), stem.Grant())
	} else {
		return err
	}
	head, err := c.head(statement.KindReview, freshFor)
	if err != nil {
		return err
	}
	answer, _, err := c.fileBy(ctx, statement.Review{Head: head, Grant: string(stem.Grant()), Reason: why}, hand{key: key})
	if err != nil {
		return err
	}
	if c.json() {
		return c.term.JSON(reviewedJSON{Grant: stem.Grant(), Index: answer.Index})
	}
	c.term.Result("%s", stem.Grant())
	c.term.Say("reviewed")
	return nil
}

// openReviews are the emergency grants whose review the person may close, for completion.
func openReviews(ctx context.Context, c *contact) ([]reading, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	open, err := client.Reviews(ctx)
	var found []reading
	for _, one := range open {
		if r, _, err := c.requestByID(ctx, string(one.Grant)); err == nil && broker.MayReview(c.chain.Current(), one, c.person) {
			found = append(found, r)
		}
	}
	return found, err
}

// reviewable finds the one open review that an id or its first characters name. Brokers remember it for longer than the grant.
func (c *contact) reviewable(ctx context.Context, id string) (broker.Stem, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	client, err := c.as(ctx)
	if err != nil {
		return "", err
	}
	open, err := client.Reviews(ctx)
	if err != nil {
		return "", err
	}
	var found []broker.GrantID
	for _, r := range open {
		if strings.HasPrefix(string(r.Grant), "g-"+bareID(id)) {
			found = append(found, r.Grant)
		}
	}
	switch len(found) {
	case 0:
		if stem, err := broker.ParseStem(bareID(id)); err == nil {
			return stem, nil // brokers say why not
		}
		return "", missing("pim-ssh inbox", "no review of %s waits for you", id)
	case 1:
		return broker.ParseStem(bareID(string(found[0])))
	}
	return "", &broker.Error{Kind: broker.Conflict, Msg: fmt.Sprintf("%s could be %s or %s", id, found[0], found[1]), Hint: "pim-ssh inbox"}
}

// renewedJSON is what `renew -o json` prints.
type renewedJSON struct {
	Role  statement.RoleName `json:"role"`
	Until statement.Time     `json:"until"`
	Index uint64             `json:"index"`
}

func renewCommand(d *desk) *cobra.Command {
	var until, why string
	cmd := &cobra.Command{
		Use:   "renew ROLE",
		Short: "ask the stewards for a later end of your eligibility",
		Long: "Where the policy says until when you may ask for a role, this asks the stewards for more. They see it in\n" +
			"their inbox and answer with a new revision of the policy.",
		Example:           "  pim-ssh renew db-admin --until 2027-06-30 --why \"the project goes on until summer\"",
		Args:              one("ROLE", "pim-ssh whoami"),
		ValidArgsFunction: d.completeRoles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if until == "" || why == "" {
				return usage(fmt.Sprintf("pim-ssh renew %s --until DATE --why \"…\"", args[0]), "say until when, and why: stewards decide on it")
			}
			return d.renew(cmd.Context(), args[0], until, why)
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "the new end, a `DATE`: 2027-06-30, +90d or RFC 3339")
	cmd.Flags().StringVar(&why, "why", "", "the reason, in a `TEXT` that stewards read")
	return cmd
}

func (d *desk) renew(ctx context.Context, name, typed, why string) error {
	role, err := statement.ParseRoleName(name)
	if err != nil {
		return usage("pim-ssh whoami", "%v", err)
	}
	until, err := parseDate(typed, d.now())
	if err != nil {
		return err
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	if err := c.mayAsk(role); err != nil {
		return err
	}
	switch ends := c.eligibleUntil(role); {
	case ends == 0:
		return &broker.Error{Kind: broker.Conflict, Msg: fmt.Sprintf("your eligibility for %s has no end", role), Hint: "pim-ssh request " + name}
	case until <= ends:
		return &broker.Error{Kind: broker.Conflict, Msg: fmt.Sprintf("your eligibility for %s lasts until %s already", role, ends), Hint: "pim-ssh renew " + name + " --until a later DATE"}
	}
	head, err := c.head(statement.KindRenewal, freshFor)
	if err != nil {
		return err
	}
	answer, _, err := c.file(ctx, statement.Renewal{Head: head, Role: role, Until: until, Reason: why})
	if err != nil {
		return err
	}
	if c.json() {
		return c.term.JSON(renewedJSON{Role: role, Until: until, Index: answer.Index})
	}
	c.term.Say("asked the stewards (%s) for %s until %s", joined(c.chain.Current().Stewards.People), role, until)
	return nil
}

// parseDate reads a day, whose end it means, in local time; or an instant as parseWhen does.
func parseDate(text string, now time.Time) (statement.Time, error) {
	day, err := time.ParseInLocation(time.DateOnly, text, now.Location())
	if err != nil {
		return parseWhen(text, now)
	}
	return statement.TimeOf(day.AddDate(0, 0, 1)), nil
}
