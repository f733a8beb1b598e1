package main

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// endsSoon is how long before a dated eligibility ends its holder is told with every command that has to do with it.
const endsSoon = 14 * statement.Day

// limits holds a request to everything of its role's that this program can see, each with its name, so that nobody waits for
// a refusal. What it lets through brokers and hosts still judge.
func (c *contact) limits(body statement.Request, hosts map[statement.HostName]enrolled) error {
	doc := c.chain.Current()
	role := doc.Roles[body.Role]
	again := fmt.Sprintf("pim-ssh request %s@%s", body.Role, joined(body.Hosts))
	switch have := utf8.RuneCountInString(body.Reason); {
	case body.Duration > role.Longest:
		return usage("--for "+span(role.Longest), "%s: longest for %s; you asked %s", span(role.Longest), body.Role, span(body.Duration))
	case have < role.ReasonLeast:
		return usage(again+" --why \"…\"", "%d characters: the least reason for %s; yours has %d", role.ReasonLeast, body.Role, have)
	case body.Ticket == "" && role.Ticket != "":
		return usage(again+" --why \"…\" --ticket T", "%s wants a ticket such as %s", body.Role, role.Ticket)
	case !role.TicketFits(body.Ticket):
		return usage(again+" --why \"…\" --ticket T", "ticket %s is not such as %s wants: %s", body.Ticket, body.Role, role.Ticket)
	}
	return c.eligibleThere(body, hosts)
}

// eligibleThere holds a request to the person's dated eligibility: on each host, when the window begins.
func (c *contact) eligibleThere(body statement.Request, hosts map[statement.HostName]enrolled) error {
	from := max(body.Created, body.At)
	entries := c.chain.Current().Entries(c.person, body.Role)
	for _, name := range body.Hosts {
		held := slices.ContainsFunc(entries, func(e policy.Eligibility) bool { return e.Covers(name, hosts[name].token.Labels, from) })
		if !held {
			return missing("pim-ssh explain "+string(body.Role)+"@"+string(name), "you are not eligible for %s on %s at %s", body.Role, name, from)
		}
	}
	if ends := c.eligibleUntil(body.Role); ends != 0 && ends < from.Add(body.Duration) {
		c.term.Warn("%s: your eligibility for %s ends then, and the window with it", moment(ends, c.clock()), body.Role)
	}
	return nil
}

// eligibleUntil is when the last of the person's eligibilities for a role ends; zero when it does not.
func (p pin) eligibleUntil(role statement.RoleName) statement.Time {
	return broker.EligibleUntil(p.chain.Current(), p.person, role)
}

// ending says which of the person's eligibilities end soon, and what to type.
func (c *contact) ending(roles ...statement.RoleName) {
	now := c.clock()
	for _, role := range roles {
		if ends := c.eligibleUntil(role); ends > now && ends.Sub(now) <= endsSoon {
			c.term.Warn("your eligibility for %s ends %s: pim-ssh renew %s --until DATE --why …", role, moment(ends, now), role)
		}
	}
}
