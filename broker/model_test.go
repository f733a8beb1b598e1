package broker

import (
	"slices"
)

// The naive model: the same promises told again in plain strings and seconds, without statements, keys, dossiers or
// events, and where the core computes, the model tries everything. It shares no code with the core.
type model struct {
	now      int64
	policies []map[string]modelRole // policies[i] is revision i+1
	asks     map[int]*modelAsk
	recorded map[int]bool // statements that were decided: their numbers in the walk
	cluster  *modelCluster
}

type modelRole struct {
	eligible, approvers []string
	count               int // 0: nobody needs to approve
	longest, pending    int64
	hosts               []string
}

type modelAsk struct {
	person, role               string
	hosts                      []string
	created, at, expires, wish int64
	revision                   int

	state        string // pending approved denied withdrawn expired
	yes          []modelYes
	decided      []string
	from, until  int64
	open         []string // hosts
	over         string   // "", returned, revoked, lapsed
	closedAt     int64
	certificates int
}

type modelYes struct {
	person  string
	created int64
	hosts   []string // nil: all
	wish    int64    // 0: all
}

func (m *model) role(name string) modelRole { return m.policies[len(m.policies)-1][name] }

// hear decides whether a statement made at created is taken at now at all, and if so moves the clock.
func (m *model) hear(number int, created, at int64, authentic bool) (now int64, heard bool) {
	now = max(m.now, at)
	if m.recorded[number] || !authentic || created > now+60 || now > created+60 {
		return now, false
	}
	m.recorded[number] = true
	m.now = now
	return now, true
}

func (m *model) fresh() []*modelAsk {
	var all []*modelAsk
	for _, a := range m.asks {
		all = append(all, a)
	}
	return all
}

func (a *modelAsk) pending(now int64) bool { return a.state == "pending" && now <= a.expires }

func (a *modelAsk) live(now int64) bool {
	return a.state == "approved" && a.over == "" && now < a.until
}

// gone reports whether the state has forgotten the request.
func (a *modelAsk) gone(now int64) bool {
	end := a.expires
	if a.state == "approved" {
		end = a.until
	}
	return a.closedAt != 0 && now > max(end, a.closedAt)+3600
}

func (m *model) file(number int, a modelAsk, now int64) bool {
	role := m.role(a.role)
	switch {
	case !slices.Contains(role.eligible, a.person),
		a.wish > role.longest, a.expires <= now, a.expires > a.created+role.pending:
		return false
	}
	for _, h := range a.hosts {
		if !slices.Contains(role.hosts, h) {
			return false
		}
	}
	for _, b := range m.fresh() {
		if b.pending(now) && b.person == a.person && b.role == a.role && slices.Equal(b.hosts, a.hosts) {
			return false
		}
	}
	a.state = "pending"
	if role.count == 0 {
		if !m.grant(&a) || a.until <= now {
			return false
		}
	}
	m.asks[number] = &a
	return true
}

// grant computes what the decisions so far amount to: all sets of approvals are tried.
func (m *model) grant(a *modelAsk) bool {
	role := m.role(a.role)
	if !slices.Contains(role.eligible, a.person) {
		return false
	}
	longest := role.longest
	for _, then := range m.policies[a.revision-1:] {
		longest = min(longest, then[a.role].longest)
	}
	var counting []modelYes
	wish, open := a.wish, slices.Clone(a.hosts)
	for _, y := range a.yes {
		if y.wish != 0 {
			wish = min(wish, y.wish)
		}
		if y.hosts != nil {
			open = slices.DeleteFunc(open, func(h string) bool { return !slices.Contains(y.hosts, h) })
		}
		if slices.Contains(role.approvers, y.person) && y.person != a.person {
			counting = append(counting, y)
		}
	}
	last, full := earliest(counting, role.count)
	if !full || len(open) == 0 {
		return false
	}
	a.from = max(a.created, a.at, last)
	a.until = a.from + min(wish, longest)
	a.open, a.state = open, "approved"
	return true
}

// earliest tries every set of approvals of the wanted size and returns when the first of them was complete.
func earliest(yes []modelYes, wanted int) (int64, bool) {
	best, full := int64(0), false
	for set := range 1 << len(yes) {
		people, last := map[string]bool{}, int64(0)
		for i, y := range yes {
			if set&(1<<i) != 0 {
				people[y.person] = true
				last = max(last, y.created)
			}
		}
		if len(people) >= wanted && (!full || last < best) {
			best, full = last, true
		}
	}
	return best, full
}

func (m *model) approve(a *modelAsk, y modelYes, now int64) bool {
	if !m.mayDecide(a, y.person, now) || y.wish > a.wish {
		return false
	}
	for _, h := range y.hosts {
		if !slices.Contains(a.hosts, h) {
			return false
		}
	}
	if !slices.Contains(m.role(a.role).eligible, a.person) || y.created > a.expires {
		return false
	}
	after := *a
	after.yes, after.decided = append(slices.Clone(a.yes), y), append(slices.Clone(a.decided), y.person)
	if m.enough(&after) && (!m.grant(&after) || after.until <= now) {
		return false
	}
	*a = after
	return true
}

// enough counts the approvers among those who said yes.
func (m *model) enough(a *modelAsk) bool {
	n := 0
	for _, y := range a.yes {
		if slices.Contains(m.role(a.role).approvers, y.person) && y.person != a.person {
			n++
		}
	}
	return n >= m.role(a.role).count
}

func (m *model) deny(a *modelAsk, person string, now int64) bool {
	if !m.mayDecide(a, person, now) {
		return false
	}
	a.decided = append(a.decided, person)
	a.state, a.closedAt = "denied", now
	return true
}

func (m *model) mayDecide(a *modelAsk, person string, now int64) bool {
	return a != nil && a.pending(now) && person != a.person && slices.Contains(m.role(a.role).approvers, person) && !slices.Contains(a.decided, person)
}

func (m *model) end(a *modelAsk, person, how string, now int64) bool {
	switch {
	case a == nil:
		return false
	case how == "withdraw":
		if !a.pending(now) || person != a.person {
			return false
		}
		a.state, a.closedAt = "withdrawn", now
		return true
	case !a.live(now):
		return false
	case how == "return" && person == a.person:
		a.over = "returned"
	case how == "revoke" && (person == "dave" || slices.Contains(m.role(a.role).approvers, person)):
		a.over = "revoked"
	default:
		return false
	}
	a.closedAt = now
	return true
}

func (m *model) certify(a *modelAsk, person string, created, now int64) bool {
	if a == nil || !a.live(now) || person != a.person || created >= a.until || a.certificates >= 32 {
		return false
	}
	a.certificates++
	return true
}

func (m *model) adopt(roles map[string]modelRole, at int64) {
	m.now = max(m.now, at)
	m.policies = append(m.policies, roles)
	for _, a := range m.asks {
		after := *a
		switch {
		case a.live(m.now) && !m.grant(&after):
			a.over, a.closedAt = "revoked", m.now
		case a.live(m.now):
			after.until = min(after.until, a.until)
			*a = after
		case a.pending(m.now) && m.grant(&after) && after.until > m.now:
			*a = after
		}
	}
}

func (m *model) tick(at int64) {
	now := max(m.now, at)
	for _, a := range m.asks {
		switch {
		case a.state == "pending" && now > a.expires:
			a.state, a.closedAt, m.now = "expired", now, now
		case a.state == "approved" && a.over == "" && now >= a.until:
			a.over, a.closedAt, m.now = "lapsed", now, now
		}
	}
}
