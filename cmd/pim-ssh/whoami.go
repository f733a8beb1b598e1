package main

import (
	"context"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// whoamiJSON is what `whoami -o json` prints: the person as the verified policy knows them.
type whoamiJSON struct {
	Person     statement.Person     `json:"person"`
	Account    statement.Account    `json:"account"`
	Deployment statement.Hash       `json:"deployment"`
	Policy     statement.PolicyRef  `json:"policy"`
	Expires    statement.Time       `json:"policy_expires"`
	Eligible   []statement.RoleName `json:"eligible"`
	Approves   []statement.RoleName `json:"approves"`
	Steward    bool                 `json:"steward"`
	Operator   bool                 `json:"operator"`
	Auditor    bool                 `json:"auditor"`
	Keys       []statement.Key      `json:"keys"`
	Ends       []endingJSON         `json:"ends,omitempty"` // the dated ones of Eligible
	Codes      *factorJSON          `json:"codes,omitzero"` // by the brokers' word
}

// endingJSON is a role that the person may ask for until then.
type endingJSON struct {
	Role  statement.RoleName `json:"role"`
	Until statement.Time     `json:"until"`
}

func whoamiCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "show who you are here, and check that the brokers know you",
		Args:  none("pim-ssh whoami"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.whoami(cmd.Context())
		},
	}
}

func (c *contact) whoami(ctx context.Context) error {
	client, err := c.as(ctx)
	if err != nil {
		return err
	}
	known, err := client.Whoami(ctx)
	if err != nil {
		return err
	}
	if known.Person != c.person || known.Deployment != c.chain.Deployment() {
		return denied("tell an operator", "the broker takes us for %s of deployment %s", known.Person, known.Deployment)
	}
	me := c.me()
	me.Codes = &factorJSON{Person: c.person, Enrolled: known.Factor.Enrolled, LockedUntil: known.Factor.LockedUntil}
	if c.json() {
		return c.term.JSON(me)
	}
	c.term.Card(term.Card{Title: string(me.Person), Fields: []term.Field{
		{Label: "account", Lines: []string{string(me.Account)}},
		{Label: "may ask", Lines: me.mayAsk(c.clock())},
		{Label: "approves", Lines: lines(me.Approves)},
		{Label: "also", Lines: me.duties()},
		{Label: "keys", Lines: fingerprints(me.Keys)},
		{Label: "codes", Lines: []string{codes(known.Factor, c.clock())}},
		{Label: "policy", Lines: []string{"revision " + itoa(me.Policy.Revision) + ", expires " + moment(me.Expires, c.clock())}},
		{Label: "deployment", Lines: []string{me.Deployment.String()}},
	}})
	c.ending(me.Eligible...)
	return nil
}

// me is the person as the verified policy knows them.
func (c *contact) me() whoamiJSON {
	doc := c.chain.Current()
	entry := doc.People[c.person]
	me := whoamiJSON{
		Person: c.person, Account: entry.Account, Deployment: c.chain.Deployment(), Policy: c.chain.Ref(), Expires: doc.Expires,
		Steward: doc.Steward(c.person), Operator: doc.Operator(c.person), Auditor: doc.Auditor(c.person), Keys: entry.Keys,
	}
	for _, name := range roleNames(doc) {
		role := statement.RoleName(name)
		if doc.Eligible(c.person, role) {
			me.Eligible = append(me.Eligible, role)
		}
		if ends := c.eligibleUntil(role); ends != 0 {
			me.Ends = append(me.Ends, endingJSON{role, ends})
		}
		if approves(doc, c.person, role) {
			me.Approves = append(me.Approves, role)
		}
	}
	return me
}

// mayAsk is the roles the person may ask for, each with its end.
func (w whoamiJSON) mayAsk(now statement.Time) []string {
	said := lines(w.Eligible)
	for i, role := range w.Eligible {
		for _, ends := range w.Ends {
			if ends.Role == role {
				said[i] += ", until " + moment(ends.Until, now)
			}
		}
	}
	return said
}

func approves(doc *policy.Document, person statement.Person, role statement.RoleName) bool {
	for _, approver := range doc.Approvers(role) {
		if approver == person {
			return true
		}
	}
	return false
}

func (w whoamiJSON) duties() []string {
	var duties []string
	for _, duty := range []struct {
		has  bool
		word string
	}{{w.Steward, "steward"}, {w.Operator, "operator"}, {w.Auditor, "auditor"}} {
		if duty.has {
			duties = append(duties, duty.word)
		}
	}
	return duties
}
