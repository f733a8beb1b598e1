package broker

import (
	"cmp"
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// spent is what one person used of one role that has a budget.
type spent struct {
	Person statement.Person   `json:"person"`
	Role   statement.RoleName `json:"role"`
	Spans  []span             `json:"spans"` // in the order opened

	sum statement.Hash
}

// span is one grant's window, cut where it ended.
type span struct {
	Grant GrantID        `json:"grant"`
	From  statement.Time `json:"from"`
	Until statement.Time `json:"until"`
}

// over reports whether a span counts no more: it is long past, or nothing was used of it.
func (one span) over(now statement.Time) bool {
	return one.Until <= max(one.From, now.Add(-policy.MaxPer))
}

// maxSpans is how many windows of one role within policy.MaxPer count for one person: all of them are hashed with each change.
const maxSpans = 2000

// spender says whose use of what is counted together.
type spender struct {
	person statement.Person
	role   statement.RoleName
}

// Used returns how much window time a person had of a role within the last per seconds before now, what is still to come of
// open grants included.
func (s *State) Used(person statement.Person, role statement.RoleName, per statement.Seconds, now statement.Time) statement.Seconds {
	used := statement.Seconds(0)
	if held := s.spent[spender{person, role}]; held != nil {
		for _, one := range held.Spans {
			used += max(0, one.Until.Sub(max(one.From, now.Add(-per))))
		}
	}
	return used
}

// affords holds so much more time to the role's budget.
func (t *turn) affords(person statement.Person, name statement.RoleName, role policy.Role, more statement.Seconds) error {
	b := role.Budget
	if b == (policy.Budget{}) {
		return nil
	}
	if held := t.s.spent[spender{person, name}]; held != nil && len(held.Spans) >= maxSpans && !slices.ContainsFunc(held.Spans, func(one span) bool { return one.over(t.now) }) {
		return Refuse(Denied, "ask for longer windows, and fewer", "%s had %d windows of %s within %d days", person, len(held.Spans), name, policy.MaxPer/statement.Day)
	}
	used := t.s.Used(person, name, b.Per, t.now)
	if used+more <= b.Time {
		return nil
	}
	left := max(0, b.Time-used)
	return Refuse(Denied, "ask for less: --for "+left.Std().String(), "%s: budget of %s per %s for %s; %s used %s, and this is %s more",
		left.Std(), b.Time.Std(), b.Per.Std(), name, person, used.Std(), more.Std())
}

// spend counts a grant that opened against its role's budget.
func (s *State) spend(g Grant) {
	if s.chain.Current().Roles[g.Role].Budget == (policy.Budget{}) {
		return
	}
	key := spender{g.Person, g.Role}
	held := &spent{Person: g.Person, Role: g.Role}
	if before := s.spent[key]; before != nil {
		held.Spans = slices.DeleteFunc(slices.Clone(before.Spans), func(one span) bool { return one.over(s.now) })
	}
	held.Spans = append(held.Spans, span{g.ID, g.From, g.Until})
	s.count(held)
}

// unspend cuts what a grant that ended early did not use.
func (s *State) unspend(g *Grant) {
	if g == nil || s.spent[spender{g.Person, g.Role}] == nil {
		return
	}
	before := s.spent[spender{g.Person, g.Role}]
	held := &spent{Person: g.Person, Role: g.Role, Spans: slices.Clone(before.Spans)}
	for i, one := range held.Spans {
		if one.Grant == g.ID {
			held.Spans[i].Until = max(one.From, min(one.Until, s.now))
		}
	}
	s.count(held)
}

// count puts what was spent, complete and from now on unchanged, in its place.
func (s *State) count(held *spent) {
	held.sum = hashOf(held)
	s.spent[spender{held.Person, held.Role}] = held
}

func compareSpent(a, b *spent) int {
	return cmp.Or(cmp.Compare(a.Person, b.Person), cmp.Compare(a.Role, b.Role))
}
