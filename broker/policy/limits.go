package policy

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// What follows stands in documents of version 2 only.

// Eligibility is the right of Who to ask for a role from From until Until on the hosts of Hosts. A zero From is always, a
// zero Until for ever, no Hosts every host that the role reaches.
type Eligibility struct {
	Who   Name           `json:"who"`
	From  statement.Time `json:"from,omitzero"`
	Until statement.Time `json:"until,omitzero"`
	Hosts *Selector      `json:"hosts,omitzero"`
}

// Covers reports whether the eligibility holds at this moment on this host.
func (e Eligibility) Covers(name statement.HostName, labels map[string]string, now statement.Time) bool {
	return now >= e.From && (e.Until == 0 || now < e.Until) && (e.Hosts == nil || e.Hosts.Selects(name, labels))
}

// String is the entry in words, which tell it from every other of its list: "erin from 2026-12-01T00:00:00Z on the hosts db1".
func (e Eligibility) String() string {
	said := string(e.Who)
	if e.From != 0 {
		said += " from " + e.From.String()
	}
	if e.Until != 0 {
		said += " until " + e.Until.String()
	}
	if e.Hosts != nil {
		said += " on " + cmp.Or(selected(*e.Hosts), "no host")
	}
	return said
}

// Part is one part of a quorum: Count distinct people of From, none of whom counts for another part.
type Part struct {
	Count int    `json:"count"`
	From  []Name `json:"from"`
}

// String is the part in words: "2 of approvers, sre".
func (p Part) String() string { return fmt.Sprintf("%d of %s", p.Count, list(p.From)) }

// Fallback lets From stand in for the approvers of every part once a request is After seconds old.
type Fallback struct {
	After statement.Seconds `json:"after"`
	From  []Name            `json:"from"`
}

// String is the fallback in words: "after 1h sre".
func (f Fallback) String() string { return "after " + duration(f.After) + " " + list(f.From) }

// FactorKind is a second factor.
type FactorKind string

// The closed set of second factors. The zero value is none: the statement's own signature is enough.
const (
	NoFactor    FactorKind = ""
	SecurityKey FactorKind = "security-key" // the signature is a security key's, with touch and verification; hosts check it
	TOTP        FactorKind = "totp"         // a code of RFC 6238; brokers check it, hosts take their word
)

// Factors is what a role demands beside a signature.
type Factors struct {
	Ask     FactorKind        `json:"ask,omitzero"`
	Approve FactorKind        `json:"approve,omitzero"`
	Fresh   statement.Seconds `json:"fresh,omitzero"` // for so long one code serves a person's further statements; 0: each needs its own
}

// Budget bounds how much window time one person gets of a role: Time within the last Per.
type Budget struct {
	Time statement.Seconds `json:"time"`
	Per  statement.Seconds `json:"per"`
}

// Hours is when a role may be asked for, approved and started: within Weekly by the clock of Zone. Brokers judge it.
type Hours struct {
	Zone   string `json:"zone"`   // of the IANA database, such as Europe/Berlin
	Weekly []Span `json:"weekly"` // sorted
}

// Span is one span of each week in minutes since Monday 00:00 local time: [From, Until), From < Until ≤ 7 days.
type Span struct {
	From  int `json:"from"`
	Until int `json:"until"`
}

var weekdays = [...]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// String is the span as policy.yaml writes it, "mon 08:00-18:00" or, past midnight, "mon 22:00-06:00"; one of more than a day is
// "mon 08:00 to thu 09:00".
func (s Span) String() string {
	from := weekday(s.From) + " " + clock(s.From%day)
	switch length := s.Until - s.From; {
	case length > day:
		return from + " to " + weekday(s.Until) + " " + clock(s.Until%day)
	case s.From%day+length == day:
		return from + "-24:00"
	default:
		return from + "-" + clock(s.Until%day)
	}
}

// day is one of minutes, as spans count them.
const day = 24 * 60

func weekday(minutes int) string { return weekdays[max(minutes, 0)/day%7] }

func clock(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }

// Hook asks somebody else before a request is taken or a grant opens. What it says only refuses, or demands more approvals.
type Hook struct {
	URL string        `json:"url"`
	Key statement.Key `json:"key"` // signs its answers
}

// Entries returns what makes a person eligible for a role: Eligible, Dated and Active, in that order.
func (d *Document) Entries(person statement.Person, name statement.RoleName) []Eligibility {
	role := d.Roles[name]
	var entries []Eligibility
	if d.means(role.Eligible, person) {
		entries = append(entries, Eligibility{Who: Name(person)})
	}
	return append(append(entries, d.entries(role.Dated, person)...), d.Actives(person, name)...)
}

// Actives returns what makes a person active in a role.
func (d *Document) Actives(person statement.Person, name statement.RoleName) []Eligibility {
	return d.entries(d.Roles[name].Active, person)
}

func (d *Document) entries(all []Eligibility, person statement.Person) []Eligibility {
	return slices.DeleteFunc(slices.Clone(all), func(e Eligibility) bool { return !d.means([]Name{e.Who}, person) })
}

// ActiveFor reports whether the stewards have approved beforehand what a person asks: on every one of the hosts, at from.
func (d *Document) ActiveFor(person statement.Person, name statement.RoleName, hosts []statement.HostName, from statement.Time) bool {
	entries := d.Actives(person, name)
	for _, host := range hosts {
		if !slices.ContainsFunc(entries, func(e Eligibility) bool { return e.Covers(host, nil, from) }) {
			return false
		}
	}
	return len(hosts) > 0
}

// Parts returns the parts of a role's quorum; none when it needs no approval. A role that says neither needs one approval,
// by nobody.
func (r Role) Parts() []Part {
	if r.Approvals.None || r.Emergency {
		return nil
	}
	return r.Reviewers()
}

// Reviewers is Parts also of an emergency role, whose approvers look at what they would have been asked.
func (r Role) Reviewers() []Part {
	if r.Approvals.None {
		return nil
	}
	return append([]Part{{Count: max(r.Approvals.Count, 1), From: r.Approvals.From}}, r.And...)
}

// Unapproved reports whether the role opens for a signature and nothing else.
func (r Role) Unapproved() bool { return r.Approvals.None || r.Emergency }

// Approves reports whether a person's decision counts for a part of the role's quorum when the request is so old.
func (d *Document) Approves(person statement.Person, name statement.RoleName, part Part, age statement.Seconds) bool {
	if d.means(part.From, person) {
		_, known := d.People[person]
		return known
	}
	return d.standsIn(person, d.Roles[name], age)
}

func (d *Document) standsIn(person statement.Person, role Role, age statement.Seconds) bool {
	_, known := d.People[person]
	return known && slices.ContainsFunc(role.Fallback, func(f Fallback) bool { return age >= f.After && d.means(f.From, person) })
}

// Decides reports whether a person may decide requests for the role that are so old.
func (d *Document) Decides(person statement.Person, name statement.RoleName, age statement.Seconds) bool {
	for _, part := range d.Roles[name].Reviewers() {
		if d.Approves(person, name, part, age) {
			return true
		}
	}
	return false
}

// means reports whether one of the names is the person's, or a group's the person is in.
func (d *Document) means(names []Name, person statement.Person) bool {
	for _, name := range names {
		members, isGroup := d.Groups[GroupName(name)]
		if !isGroup && statement.Person(name) == person {
			return true
		}
		if isGroup && d.holds(members, person) {
			return true
		}
	}
	return false
}

// holds looks a person up: lists are sorted in a document that was parsed.
func (d *Document) holds(people []statement.Person, person statement.Person) bool {
	if d.owners == nil {
		return slices.Contains(people, person)
	}
	_, held := slices.BinarySearch(people, person)
	return held
}

// words is the oldest version that has words for what the document says. Whoever writes in version 2 that a role opens without
// approval means what version 2 makes of that.
func (d *Document) words() int {
	for _, role := range d.Roles {
		if role.limited() || d.V > 1 && role.Unapproved() {
			return 2
		}
	}
	return 1
}

// limited reports whether a role says anything that version 1 has no word for.
func (r Role) limited() bool {
	return !reflect.ValueOf(r.limits()).IsZero()
}

// limits is the role without what version 1 knows.
func (r Role) limits() Role {
	return Role{
		Dated: r.Dated, Active: r.Active, And: r.And, Fallback: r.Fallback, Factors: r.Factors, ReasonLeast: r.ReasonLeast, ApproverReason: r.ApproverReason,
		Ticket: r.Ticket, Budget: r.Budget, Emergency: r.Emergency, PlainKey: r.PlainKey, Hours: r.Hours, Networks: r.Networks, Hook: r.Hook,
	}
}

// sortedLimits sorts the lists that are sets. The first part of a quorum stands in Approvals.
func (r Role) sortedLimits() Role {
	r.Dated, r.Active = sortedEntries(r.Dated), sortedEntries(r.Active)
	r.Networks = nilOrSorted(r.Networks)
	r.Fallback = slices.Clone(r.Fallback)
	for i := range r.Fallback {
		r.Fallback[i].From = slices.Sorted(slices.Values(r.Fallback[i].From))
	}
	slices.SortStableFunc(r.Fallback, func(a, b Fallback) int { return cmp.Compare(a.After, b.After) })
	if len(r.And) > 0 {
		parts := append([]Part{{r.Approvals.Count, r.Approvals.From}}, r.And...)
		for i := range parts {
			parts[i].From = slices.Sorted(slices.Values(parts[i].From))
		}
		slices.SortStableFunc(parts, compareParts)
		r.Approvals.Count, r.Approvals.From, r.And = parts[0].Count, parts[0].From, parts[1:]
	}
	if r.Hours != nil {
		hours := *r.Hours
		hours.Weekly = slices.Clone(hours.Weekly)
		slices.SortStableFunc(hours.Weekly, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
		r.Hours = &hours
	}
	return r
}

func compareParts(a, b Part) int {
	return cmp.Or(slices.Compare(a.From, b.From), cmp.Compare(a.Count, b.Count))
}

func sortedEntries(entries []Eligibility) []Eligibility {
	entries = slices.Clone(entries)
	for i, e := range entries {
		if e.Hosts != nil {
			hosts := *e.Hosts
			hosts.Names = slices.Sorted(slices.Values(hosts.Names))
			entries[i].Hosts = &hosts
		}
	}
	slices.SortStableFunc(entries, compareEntries)
	return entries
}

func compareEntries(a, b Eligibility) int {
	return cmp.Or(cmp.Compare(a.Who, b.Who), cmp.Compare(a.From, b.From), cmp.Compare(a.Until, b.Until), strings.Compare(a.Hosts.spelled(), b.Hosts.spelled()))
}

// spelled tells two selectors apart.
func (s *Selector) spelled() string {
	if s == nil {
		return ""
	}
	return selected(*s)
}

func nilOrSorted(list []string) []string {
	if list == nil {
		return nil
	}
	return slices.Sorted(slices.Values(list))
}
