package policy

import (
	"slices"

	"pim-ssh/broker/statement"
)

// maxSlots is how many approvals a role may need in all its parts: judging a dossier takes a bounded time.
const maxSlots = 20

// quorum holds the parts of a quorum to be within reach of everybody who may ask, none of whom counts for themselves.
func (c *checker) quorum(path []string, name statement.RoleName, role Role) {
	need, at := role.Approvals, below(path, "approvals")
	if need.None {
		if need.Count != 0 || len(need.From) != 0 || len(role.And) > 0 {
			c.say(at, "is either none, or count and from")
		}
		return
	}
	slots := 0
	for _, part := range role.Reviewers() {
		if need.Count < 1 { // Reviewers takes it for one
			part.Count = need.Count
		}
		if !c.part(at, part) {
			return
		}
		slots += part.Count
	}
	if slots > maxSlots {
		c.say(below(at, "count"), "is %d in all: at most %d", slots, maxSlots)
		return
	}
	c.fallback(path, role)
	if len(c.found) == 0 || !slices.ContainsFunc(c.found, func(p Problem) bool { return len(p.Path) > 1 && p.Path[1] == string(name) }) {
		c.within(at, role)
	}
}

func (c *checker) part(at []string, part Part) bool {
	if !c.names(below(at, "from"), part.From) {
		return false
	}
	if part.Count < 1 {
		c.say(below(at, "count"), "is %d, must be at least 1: write approvals: none if nobody needs to approve", part.Count)
		return false
	}
	if people := c.doc.Members(part.From); part.Count > len(people) {
		c.say(below(at, "count"), "is %d, but from names only %d people: nobody could ever be approved", part.Count, len(people))
		return false
	}
	return true
}

func (c *checker) fallback(path []string, role Role) {
	for i, f := range role.Fallback {
		at := below(path, "fallback")
		if f.After < 1 || f.After >= role.Pending {
			c.say(at, "stands in after %s: must be at least 1s and less than pending, %s", duration(f.After), duration(role.Pending))
		}
		if i > 0 && role.Fallback[i-1].After == f.After {
			c.say(at, "names two that stand in after %s: make them one", duration(f.After))
		}
		if len(f.From) == 0 {
			c.say(at, "names nobody who stands in")
		}
		c.names(below(at, "from"), f.From)
	}
}

// within says for whom of those who may ask the quorum can never be full.
func (c *checker) within(at []string, role Role) {
	var names []Name
	names = append(names, role.Eligible...)
	for _, e := range role.Dated {
		names = append(names, e.Who)
	}
	parts := role.Reviewers()
	var all []Name
	for _, part := range parts {
		all = append(all, part.From...)
	}
	approvers := c.doc.Members(all)
	fits := func(person statement.Person, part Part) bool { return c.doc.means(part.From, person) }
	if most := Filled(parts, approvers, fits); most < Slots(parts) {
		c.say(below(at, "count"), "is %d in all, but only %d different people can fill its parts", Slots(parts), most)
		return
	}
	for _, asker := range c.doc.Members(names) {
		if _, among := slices.BinarySearch(approvers, asker); !among {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(approvers), func(p statement.Person) bool { return p == asker })
		if most := Filled(parts, others, fits); most < Slots(parts) {
			c.say(below(at, "count"), "is %d, but when %s asks only %d of from can approve", Slots(parts), asker, most)
		}
	}
}

// Slots is how many approvals the parts need in all.
func Slots(parts []Part) int {
	slots := 0
	for _, part := range parts {
		slots += part.Count
	}
	return slots
}

// Fill returns how many slots of each part distinct people can fill, the most in all, each one slot of a part they fit.
func Fill(parts []Part, people []statement.Person, fits func(statement.Person, Part) bool) []int {
	m := matching{people: people, fits: fits}
	for i, part := range parts {
		for range part.Count {
			m.slots, m.of, m.taken = append(m.slots, part), append(m.of, i), append(m.taken, nobody)
		}
	}
	for person := range people {
		m.place(person, make([]bool, len(m.slots)))
	}
	filled := make([]int, len(parts))
	for i, person := range m.taken {
		if person != nobody {
			filled[m.of[i]]++
		}
	}
	return filled
}

// Filled is the sum of Fill.
func Filled(parts []Part, people []statement.Person, fits func(statement.Person, Part) bool) int {
	sum := 0
	for _, filled := range Fill(parts, people, fits) {
		sum += filled
	}
	return sum
}

const nobody = -1

// matching gives people slots, moving those who hold one when that makes room.
type matching struct {
	people []statement.Person
	fits   func(statement.Person, Part) bool
	slots  []Part
	of     []int // the part that a slot is of
	taken  []int // who holds a slot, or nobody
}

func (m *matching) place(person int, tried []bool) bool {
	for i, part := range m.slots {
		if tried[i] || !m.fits(m.people[person], part) {
			continue
		}
		tried[i] = true
		if m.taken[i] == nobody || m.place(m.taken[i], tried) {
			m.taken[i] = person
			return true
		}
	}
	return false
}
