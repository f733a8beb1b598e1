package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// standing says who may ask and approve, person by person, however groups are written.
func (c *changes) standing(role statement.RoleName) {
	before, after := c.old.Roles[role], c.new.Roles[role]
	c.rights(role, "can now ask for", "can no longer ask for", right{before.Eligible, before.Dated}, right{after.Eligible, after.Dated})
	c.rights(role, "now has without approval", "no longer has without approval", right{nil, before.Active}, right{nil, after.Active})
	gone, come := c.moved(before.deciders(), after.deciders())
	for _, person := range come {
		c.say("%s can now approve %s", person, role)
	}
	for _, person := range gone {
		c.say("%s can no longer approve %s", person, role)
	}
}

// right is what a role writes of who may do something: names for whom nothing binds it, and entries.
type right struct {
	names   []Name
	entries []Eligibility
}

// rights says in which words each person's right to a role changes: those who have more first.
func (c *changes) rights(role statement.RoleName, now, no string, before, after right) {
	old, new := c.old.bounds(before.entries), c.new.bounds(after.entries)
	gone, come := c.moved(before.names, after.names)
	concerned := slices.Concat(gone, come, slices.Collect(maps.Keys(old)), slices.Collect(maps.Keys(new)))
	slices.Sort(concerned)
	var lost []string
	for _, person := range slices.Compact(concerned) {
		gone, come := apart(c.held(c.old, before.names, old, person), c.held(c.new, after.names, new, person))
		for _, bound := range come {
			c.say("%s %s %s%s%s", person, now, role, bound, instead(gone))
		}
		for _, bound := range gone {
			if len(come) == 0 {
				lost = append(lost, fmt.Sprintf("%s %s %s%s", person, no, role, bound))
			}
		}
	}
	c.lines = append(c.lines, lost...)
}

// held is what binds a person's right: "" alone for one that nothing binds, beside which no other counts.
func (c *changes) held(d *Document, names []Name, bounds map[statement.Person][]string, person statement.Person) []string {
	_, free := slices.BinarySearch(c.crowd(d, names), person)
	if own := bounds[person]; !free && !slices.Contains(own, "") {
		return own
	}
	return []string{""}
}

// bounds returns what binds the rights of those whom the entries mean: " until 2026-12-24T12:00:00Z", or "".
func (d *Document) bounds(entries []Eligibility) map[statement.Person][]string {
	bounds := map[statement.Person][]string{}
	for _, e := range entries {
		for _, person := range d.Members([]Name{e.Who}) {
			bounds[person] = append(bounds[person], strings.TrimPrefix(e.String(), string(e.Who)))
		}
	}
	return bounds
}

// crowd is Members, asked for once: many roles write the same names.
func (c *changes) crowd(d *Document, names []Name) []statement.Person {
	asked := crowdOf{d, list(names)}
	people, known := c.crowds[asked]
	if !known {
		people = d.Members(names)
		c.crowds[asked] = people
	}
	return people
}

// moved returns who is only among those whom the old document's names mean, and who only among the new one's.
func (c *changes) moved(before, after []Name) (gone, come []statement.Person) {
	asked := [2]string{list(before), list(after)}
	if both, known := c.moves[asked]; known {
		return both[0], both[1]
	}
	old, new := c.crowd(c.old, before), c.crowd(c.new, after)
	gone, come = without(old, new), without(new, old)
	c.moves[asked] = [2][]statement.Person{gone, come}
	return gone, come
}

// crowdOf is whom names mean in one of the documents.
type crowdOf struct {
	doc   *Document
	names string
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
