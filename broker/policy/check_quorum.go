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
		if len(role.Fallback) > 0 {
			c.say(below(path, "fallback"), "stands in for nobody: the role needs no approval")
		}
		return
	}
	parts := role.Reviewers()
	parts[0].Count = need.Count // which Reviewers takes for one or more
	sound := slices.IsSortedFunc(parts, compareParts)
	if !sound {
		c.say(at, "parts are out of order")
	}
	for _, part := range parts {
		one := at
		if len(parts) > 1 {
			one = below(at, part.String())
		}
		sound = c.part(one, part) && sound
	}
	sound = c.fallback(path, role) && sound
	if slots := Slots(parts); sound && slots > maxSlots {
		c.say(below(at, "count"), "is %d in all: at most %d", slots, maxSlots)
	} else if sound {
		c.within(path, role, parts)
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
	if people := c.doc.some(part.From, part.Count, anybody); len(people) < part.Count {
		c.say(below(at, "count"), "is %d, but from names only %d people: nobody could ever be approved", part.Count, len(people))
		return false
	}
	return true
}

func (c *checker) fallback(path []string, role Role) bool {
	before := len(c.found)
	for i, f := range role.Fallback {
		one := below(path, "fallback", f.String())
		if f.After < 1 || f.After >= role.Pending {
			c.say(below(one, "after"), "is %s: must be at least 1s and less than pending, %s", duration(f.After), duration(role.Pending))
		}
		if i > 0 && role.Fallback[i-1].After >= f.After {
			c.say(below(one, "after"), "is %s, as in another one: make them one", duration(f.After))
		}
		if len(f.From) == 0 {
			c.say(one, "names nobody who stands in")
		}
		c.names(below(one, "from"), f.From)
	}
	return len(c.found) == before
}

// within says for whom of those who may ask the quorum can never be full. Only those who hold a place in one way to fill it can
// be missed: without anybody else it is as full as before.
func (c *checker) within(path []string, role Role, parts []Part) {
	at, with, able := below(path, "approvals", "count"), "", anybody
	if role.Factors.Approve == SecurityKey {
		at, with, able = below(path, "second_factor"), " with security keys", c.doc.touches
	}
	fits := func(person statement.Person, part Part) bool { return able(person) && c.doc.means(part.From, person) }
	approvers := c.candidates(parts, able)
	m := fill(parts, approvers, fits)
	if m.filled < Slots(parts) {
		c.say(at, "needs %s by different people%s, but at most %d could come", count(Slots(parts), "approval"), with, m.filled)
		return
	}
	for _, asker := range m.holders() {
		if !c.doc.asks(asker, role) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(approvers), func(p statement.Person) bool { return p == asker })
		if most := Filled(parts, others, fits); most < Slots(parts) {
			c.say(at, "needs %s by different people%s, but when %s asks at most %d could come", count(Slots(parts), "approval"), with, asker, most)
		}
	}
}

// candidates are enough people of each part to fill all parts as far as everybody of it could, also when one of them is left out.
func (c *checker) candidates(parts []Part, able func(statement.Person) bool) []statement.Person {
	var all []statement.Person
	for _, part := range parts {
		all = append(all, c.doc.some(part.From, Slots(parts)+1, able)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func anybody(statement.Person) bool { return true }

// asks reports whether the person may ask for the role on the strength of their signature and others'.
func (d *Document) asks(person statement.Person, role Role) bool {
	return d.means(role.Eligible, person) || len(d.entries(role.Dated, person)) > 0
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
	m, each := fill(parts, people, fits), make([]int, len(parts))
	for i, person := range m.taken {
		if person != nobody {
			each[m.of[i]]++
		}
	}
	return each
}

// Filled is the sum of Fill.
func Filled(parts []Part, people []statement.Person, fits func(statement.Person, Part) bool) int {
	return fill(parts, people, fits).filled
}

func fill(parts []Part, people []statement.Person, fits func(statement.Person, Part) bool) *matching {
	m := &matching{people: people, fits: fits}
	for i, part := range parts {
		for range part.Count {
			m.slots, m.of, m.taken = append(m.slots, part), append(m.of, i), append(m.taken, nobody)
		}
	}
	for person := range people {
		if m.filled == len(m.slots) {
			break
		}
		if m.place(person, make([]bool, len(m.slots))) {
			m.filled++
		}
	}
	return m
}

const nobody = -1

// matching gives people slots, moving those who hold one when that makes room.
type matching struct {
	people []statement.Person
	fits   func(statement.Person, Part) bool
	slots  []Part
	of     []int // the part that a slot is of
	taken  []int // who holds a slot, or nobody
	filled int   // how many are held
}

// holders are the people who hold a slot, sorted.
func (m *matching) holders() []statement.Person {
	var holders []statement.Person
	for _, person := range m.taken {
		if person != nobody {
			holders = append(holders, m.people[person])
		}
	}
	return slices.Sorted(slices.Values(holders))
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
