package main

import (
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// exception is one way in that nobody has to say yes to.
type exception string

// The closed set of exceptions.
const (
	heldActive   exception = "active"     // the stewards approved it beforehand, for these people
	nobodyAsked  exception = "unapproved" // whoever is eligible opens it
	forEmergency exception = "emergency"  // the same, and somebody reviews it afterwards
)

// standingJSON is one line of `standing -o json`.
type standingJSON struct {
	Exception exception          `json:"exception"`
	Role      statement.RoleName `json:"role"`
	Who       []policy.Name      `json:"who"`
	People    []statement.Person `json:"people"` // whom the names mean
	Hosts     string             `json:"hosts"`
	From      statement.Time     `json:"from,omitzero"`
	Until     statement.Time     `json:"until,omitzero"` // none: for ever
	Signed    string             `json:"signed"`         // what a signature must show: any key, touch, verified
	Gives     []string           `json:"gives"`
}

func standingCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "standing",
		Short: "list what people can open without anybody's yes",
		Long: "Lists every exception in the policy that was verified here: roles that stewards gave beforehand (active), roles\n" +
			"that open without approval, and roles for emergencies. Accounts that a host exempts stand in its host.yaml.",
		Args: none("pim-ssh standing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.standing()
		},
	}
}

func (c *contact) standing() error {
	doc := c.chain.Current()
	var all []standingJSON
	for _, name := range roleNames(doc) {
		all = append(all, exceptions(doc, statement.RoleName(name), c.clock())...)
	}
	if c.json() {
		for _, one := range all {
			if err := c.term.JSON(one); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		c.term.Say("none: every role of policy revision %d needs somebody's yes", c.chain.Ref().Revision)
		return nil
	}
	rows := make([][]string, len(all))
	for i, one := range all {
		until := "for ever"
		if one.Until != 0 {
			until = one.Until.String()
		}
		rows[i] = []string{string(one.Exception), string(one.Role), joined(one.People), one.Hosts, until, one.Signed, strings.Join(one.Gives, "; ")}
	}
	c.term.Table([]string{"EXCEPTION", "ROLE", "WHO", "HOSTS", "UNTIL", "SIGNED BY", "GIVES"}, rows)
	return nil
}

// exceptions are those of one role, what is over left out.
func exceptions(doc *policy.Document, name statement.RoleName, now statement.Time) []standingJSON {
	role := doc.Roles[name]
	var found []standingJSON
	for _, e := range role.Active {
		if e.Until != 0 && e.Until <= now {
			continue
		}
		who := []policy.Name{e.Who}
		found = append(found, standingJSON{
			Exception: heldActive, Role: name, Who: who, People: doc.Members(who), Hosts: reach(role, e), From: e.From, Until: e.Until,
			Signed: "any key", Gives: gives(role),
		})
	}
	if !role.Unapproved() {
		return found
	}
	open := standingJSON{Exception: nobodyAsked, Role: name, Hosts: selected(role.Hosts), Signed: signedBy(doc, role), Gives: gives(role)}
	if role.Emergency {
		open.Exception = forEmergency
	}
	open.Who = append(open.Who, role.Eligible...)
	for _, e := range role.Dated {
		if e.Until == 0 || e.Until > now {
			open.Who = append(open.Who, e.Who)
		}
	}
	open.People = doc.Members(open.Who)
	return append(found, open)
}

func reach(role policy.Role, e policy.Eligibility) string {
	if e.Hosts == nil {
		return selected(role.Hosts)
	}
	return selected(*e.Hosts)
}

// signedBy says what the signature on a request must show where nobody approves.
func signedBy(doc *policy.Document, role policy.Role) string {
	switch {
	case role.Factors.Ask == policy.SecurityKey:
		return "security key, holder verified"
	case doc.V < 2 || role.PlainKey:
		return "any key"
	}
	return "security key, touched"
}
