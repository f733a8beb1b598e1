package policy

import (
	"maps"
	"slices"

	"pim-ssh/broker/statement"
)

// Warnings returns what the document may say and its stewards may regret, in document order with map keys sorted: rules that
// undo each other, commands that give more than they seem to, powers of one, what ended. It is for documents that pass Check.
func (d *Document) Warnings(now statement.Time) Problems {
	c := check(d)
	c.alone()
	for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
		path, role := at("roles", string(name)), c.doc.Roles[name]
		c.open(path, role)
		c.few(path, role)
		c.untouching(path, role)
		c.ended(path, role, now)
		for _, rule := range role.Sudo {
			c.escapes(below(path, "sudo", string(rule.As), "commands"), rule)
		}
	}
	c.overlaps()
	return c.found
}

// alone warns of what one steward can do, or one lost key undo.
func (c *checker) alone() {
	stewards := c.doc.Stewards
	switch path := at("stewards", "threshold"); {
	case stewards.Threshold == 1:
		c.say(path, "is 1: one stolen key rewrites every rule; 2 or more want two people's")
	case stewards.Threshold == len(stewards.People):
		c.say(path, "is everybody: when one of them is gone, nobody can change the policy again")
	}
}

// open warns of what opens for a signature alone.
func (c *checker) open(path []string, role Role) {
	switch {
	case role.PlainKey && role.Emergency:
		c.say(below(path, "plain_key"), "lets whoever copies one person's key file open an emergency role")
	case role.PlainKey:
		c.say(below(path, "plain_key"), "lets whoever copies one person's key file open this role: nobody approves, nothing is touched")
	}
	for _, e := range role.Active {
		c.say(below(path, "active", e.String()), "needs neither approval nor second factor: an exception that pim-ssh standing lists")
	}
}

// few warns of quorums that hang on single people.
func (c *checker) few(path []string, role Role) {
	if len(role.Fallback) > 0 {
		return
	}
	parts := role.Reviewers()
	for _, part := range parts {
		one := below(path, "approvals")
		if len(parts) > 1 {
			one = below(one, part.String())
		}
		people := c.doc.some(part.From, part.Count+1, anybody)
		switch {
		case len(people) == 1:
			c.say(below(one, "from"), "is %s alone: nobody can answer when %s is away; name a second person, or a fallback", people[0], people[0])
		case len(people) <= part.Count:
			c.say(below(one, "from"), "needs every one of %s: name more people, or a fallback", list(people))
		}
	}
}

// untouching warns of people who are named for what only a security key opens, and have none.
func (c *checker) untouching(path []string, role Role) {
	askers := slices.Clone(role.Eligible)
	for _, e := range role.Dated {
		askers = append(askers, e.Who)
	}
	if role.Factors.Ask == SecurityKey || c.doc.V > 1 && role.Unapproved() && !role.PlainKey {
		c.keyless(below(path, "eligible"), askers, "ask")
	}
	if role.Factors.Approve == SecurityKey {
		c.keyless(below(path, "approvals"), role.deciders(), "approve")
	}
}

func (c *checker) keyless(path []string, names []Name, what string) {
	const told = 3
	people := c.doc.some(names, told+1, func(person statement.Person) bool { return !c.doc.touches(person) })
	switch {
	case len(people) > told:
		c.say(path, "needs security keys, and %s and others have none: they cannot %s", list(people[:told]), what)
	case len(people) > 0:
		c.say(path, "needs security keys, and %s without one cannot %s", list(people), what)
	}
}

// ended warns of eligibility that is over, and of what says less than what stands beside it.
func (c *checker) ended(path []string, role Role, now statement.Time) {
	over := 0
	for i, e := range append(slices.Clone(role.Dated), role.Active...) {
		one := below(path, "eligible", e.String())
		if i >= len(role.Dated) {
			one[len(path)] = "active"
		}
		if e.Until != 0 && e.Until <= now {
			over++
			c.say(one, "ended: remove it")
		} else if i < len(role.Dated) && slices.Contains(role.Eligible, e.Who) {
			c.say(one, "changes nothing: %s is eligible without it", e.Who)
		}
	}
	if over > 0 && len(role.Eligible) == 0 && over == len(role.Dated)+len(role.Active) {
		c.say(below(path, "eligible"), "names nobody who may still ask: nobody can get this role any more")
	}
}
