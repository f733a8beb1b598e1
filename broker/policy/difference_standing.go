package policy

import (
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// standing says who may ask and approve, person by person, however groups are written.
func (c *changes) standing(role statement.RoleName) {
	before, after := c.old.Roles[role], c.new.Roles[role]
	c.rights(role, "can now ask for", "can no longer ask for", c.old.rights(before.Eligible, before.Dated), c.new.rights(after.Eligible, after.Dated))
	c.rights(role, "now has without approval", "no longer has without approval", c.old.rights(nil, before.Active), c.new.rights(nil, after.Active))
	gone, come := apart(c.old.Approvers(role), c.new.Approvers(role))
	for _, person := range come {
		c.say("%s can now approve %s", person, role)
	}
	for _, person := range gone {
		c.say("%s can no longer approve %s", person, role)
	}
}

// rights says in which words each person's right to a role changes: those who have more first.
func (c *changes) rights(role statement.RoleName, now, no string, before, after map[statement.Person][]string) {
	var lost []statement.Person
	for _, person := range either(before, after) {
		gone, come := apart(before[person], after[person])
		for _, bound := range come {
			c.say("%s %s %s%s%s", person, now, role, bound, instead(gone))
		}
		if len(gone) > 0 && len(come) == 0 {
			lost = append(lost, person)
		}
	}
	for _, person := range lost {
		gone, _ := apart(before[person], after[person])
		for _, bound := range gone {
			c.say("%s %s %s%s", person, no, role, bound)
		}
	}
}

// instead says what a person's right was until now.
func instead(gone []string) string {
	var words []string
	for _, bound := range gone {
		words = append(words, strings.TrimPrefix(bound, " "))
	}
	if slices.Contains(words, "") {
		return ", was always and everywhere"
	}
	return was(strings.Join(words, " and "))
}

// rights returns what binds each person's eligibility, " until 2026-12-24T12:00:00Z"; "" for one that nothing binds, beside which
// no other counts.
func (d *Document) rights(names []Name, entries []Eligibility) map[statement.Person][]string {
	bounds := map[statement.Person][]string{}
	for _, person := range d.Members(names) {
		bounds[person] = []string{""}
	}
	for _, e := range entries {
		bound := strings.TrimPrefix(e.String(), string(e.Who))
		for _, person := range d.Members([]Name{e.Who}) {
			switch held := bounds[person]; {
			case bound == "":
				bounds[person] = []string{""}
			case !slices.Contains(held, ""):
				bounds[person] = append(held, bound)
			}
		}
	}
	return bounds
}

// eligible is how a role writes who may ask.
func eligible(r Role) string {
	words := asWords(r.Eligible)
	for _, e := range r.Dated {
		words = append(words, e.String())
	}
	for _, e := range r.Active {
		words = append(words, e.String()+" without approval")
	}
	return strings.Join(words, ", ")
}

func asWords[T ~string](list []T) []string {
	words := make([]string, len(list))
	for i, member := range list {
		words[i] = string(member)
	}
	return words
}
