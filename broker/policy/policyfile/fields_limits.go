package policyfile

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // what a zone is does not depend on the machine that reads

	"github.com/goccy/go-yaml/ast"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// limits are the fields of a role that documents of version 1 have no words for.
func (r *reader) limits(role *policy.Role) []field {
	return []field{
		{"active", false, func(n ast.Node) { role.Active = r.active(n) }},
		{"fallback", false, func(n ast.Node) { role.Fallback = items(r, n, "fallback", "{after: 1h, from: [a, b]}", r.fallback) }},
		{"reason", false, func(n ast.Node) { role.ReasonLeast = r.reason(n) }},
		{"approver_reason", false, func(n ast.Node) { role.ApproverReason = r.truth(n, "approver_reason") }},
		{"ticket", false, func(n ast.Node) { role.Ticket = r.ticket(n) }},
		{"budget", false, func(n ast.Node) { role.Budget = r.budget(n) }},
		{"emergency", false, func(n ast.Node) { role.Emergency = r.truth(n, "emergency") }},
		{"plain_key", false, func(n ast.Node) { role.PlainKey = r.truth(n, "plain_key") }},
		{"hours", false, func(n ast.Node) { role.Hours = r.hours(n) }},
		{"networks", false, func(n ast.Node) { role.Networks = r.networks(n) }},
		{"hook", false, func(n ast.Node) { role.Hook = r.hook(n) }},
	}
}

// parseText takes any text: what it means is the policy's own rule.
func parseText(written string) (string, error) { return written, nil }

// items reads a list whose members are mappings, or what else one reads.
func items[T any](r *reader, n ast.Node, what, shape string, one func(ast.Node) T) []T {
	sequence, is := n.(*ast.SequenceNode)
	if !is {
		r.say(where(n), "%s must be a list of %s, not %s", what, shape, kindOf(n))
		return nil
	}
	if len(sequence.Values) == 0 {
		r.say(where(n), "%s is empty: want at least one", what)
	}
	var list []T
	for _, item := range sequence.Values {
		list = append(list, one(item))
	}
	return list
}

// eligible reads names of those who may ask, and mappings of those who may for a while or on some hosts.
func (r *reader) eligible(n ast.Node) ([]policy.Name, []policy.Eligibility) {
	sequence, is := n.(*ast.SequenceNode)
	if !is {
		r.say(where(n), "eligible must be a list such as [a, {who: b, until: 2027-01-31T00:00:00Z}], not %s", kindOf(n))
		return nil, nil
	}
	names := []policy.Name{}
	var dated []policy.Eligibility
	for _, item := range sequence.Values {
		if _, is := item.(*ast.MappingNode); is {
			dated = append(dated, r.entry(item))
			continue
		}
		written, is := r.text(item, "each of eligible")
		switch name := policy.Name(written); {
		case !is:
		case slices.Contains(names, name):
			r.say(where(item), "%q stands twice in eligible", shortened(written))
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, dated
}

func (r *reader) active(n ast.Node) []policy.Eligibility {
	return items(r, n, "active", "names and {who: backup, hosts: {names: [db1]}}", func(item ast.Node) policy.Eligibility {
		if word, is := item.(*ast.StringNode); is {
			return policy.Eligibility{Who: policy.Name(word.Value)}
		}
		return r.entry(item)
	})
}

func (r *reader) entry(n ast.Node) policy.Eligibility {
	var e policy.Eligibility
	r.object(n, "an eligibility", nil,
		field{"who", true, func(n ast.Node) { oneOf(r, n, "who", &e.Who, parseName) }},
		field{"from", false, func(n ast.Node) { oneOf(r, n, "from", &e.From, statement.ParseTime) }},
		field{"until", false, func(n ast.Node) { oneOf(r, n, "until", &e.Until, statement.ParseTime) }},
		field{"hosts", false, func(n ast.Node) { hosts := r.selector(n); e.Hosts = &hosts }},
	)
	return e
}

// approvals reads none, one part of a quorum, or a list of parts that are all needed.
func (r *reader) approvals(n ast.Node) (policy.Approvals, []policy.Part) {
	switch node := n.(type) {
	case *ast.StringNode:
		if node.Value != "none" {
			r.say(where(n), "approvals must be none, {count: N, from: […]} or a list of those, not %q", shortened(node.Value))
		}
		return policy.Approvals{None: node.Value == "none"}, nil
	case *ast.SequenceNode:
		parts := items(r, n, "approvals", "{count: N, from: […]}", r.part)
		if len(parts) == 0 {
			return policy.Approvals{}, nil
		}
		return policy.Approvals{Count: parts[0].Count, From: parts[0].From}, parts[1:]
	}
	if _, is := n.(*ast.MappingNode); !is {
		r.say(where(n), "approvals must be none, {count: N, from: […]} or a list of those, not %s", kindOf(n))
		return policy.Approvals{}, nil
	}
	part := r.part(n)
	return policy.Approvals{Count: part.Count, From: part.From}, nil
}

func (r *reader) part(n ast.Node) policy.Part {
	var part policy.Part
	if _, is := n.(*ast.MappingNode); !is {
		r.say(where(n), "each of approvals must be {count: N, from: […]}, not %s", kindOf(n))
		return part
	}
	r.object(n, "approvals", nil,
		field{"count", true, func(n ast.Node) { part.Count = r.number(n, "count") }},
		field{"from", true, func(n ast.Node) { part.From = texts(r, n, "from", parseName) }},
	)
	return part
}

func (r *reader) fallback(n ast.Node) policy.Fallback {
	var fallback policy.Fallback
	r.object(n, "a fallback", nil,
		field{"after", true, func(n ast.Node) { fallback.After = r.duration(n, "after") }},
		field{"from", true, func(n ast.Node) { fallback.From = texts(r, n, "from", parseName) }},
	)
	return fallback
}

// secondFactor is what stands there; what one word means depends on the rest of the role.
type secondFactor struct {
	factors policy.Factors
	word    bool
}

// of returns the factors: one word is for asking, and for approving where anybody approves.
func (f secondFactor) of(role policy.Role) policy.Factors {
	if f.word && !role.Unapproved() {
		f.factors.Approve = f.factors.Ask
	}
	return f.factors
}

func (r *reader) secondFactor(n ast.Node) secondFactor {
	if _, is := n.(*ast.MappingNode); !is {
		return secondFactor{policy.Factors{Ask: r.factor(n, "second_factor")}, true}
	}
	var factors policy.Factors
	r.object(n, "second_factor", nil,
		field{"ask", false, func(n ast.Node) { factors.Ask = r.factor(n, "ask") }},
		field{"approve", false, func(n ast.Node) { factors.Approve = r.factor(n, "approve") }},
		field{"fresh", false, func(n ast.Node) { factors.Fresh = r.duration(n, "fresh") }},
	)
	if factors == (policy.Factors{}) && len(r.found) == 0 {
		r.say(where(n), "second_factor asks for nothing: write none, or leave it out")
	}
	return secondFactor{factors, false}
}

// factorWords are the ways to write a second factor.
var factorWords = map[string]policy.FactorKind{"none": policy.NoFactor, string(policy.SecurityKey): policy.SecurityKey, string(policy.TOTP): policy.TOTP}

func (r *reader) factor(n ast.Node, what string) policy.FactorKind {
	written, is := r.text(n, what)
	kind, known := factorWords[written]
	if is && !known {
		r.say(where(n), "%s must be none, security-key or totp, not %q%s", what, shortened(written), meant(written, "none", "security-key", "totp"))
	}
	return kind
}

func meant(written string, words ...string) string {
	if near, found := policy.Nearest(written, words); found {
		return ": did you mean " + strconv.Quote(near) + "?"
	}
	return ""
}

func (r *reader) reason(n ast.Node) int {
	least := 0
	r.object(n, "reason", nil, field{"least", true, func(n ast.Node) {
		if least = r.number(n, "least"); least == 0 {
			r.say(where(n), "least must be at least 1: leave reason out, every request has one")
		}
	}})
	return least
}

// truth reads true or false.
func (r *reader) truth(n ast.Node, what string) bool {
	switch n.GetToken().Value {
	case "true":
		if _, is := n.(*ast.BoolNode); is {
			return true
		}
	case "false":
		if _, is := n.(*ast.BoolNode); is {
			return false
		}
	}
	r.say(where(n), "%s must be true or false", what)
	return false
}

func (r *reader) ticket(n ast.Node) string {
	pattern, is := r.text(n, "ticket")
	if is && pattern == "" {
		r.say(where(n), "ticket is empty: leave it out")
	}
	return pattern
}

func (r *reader) budget(n ast.Node) policy.Budget {
	written := ""
	if scalar, is := n.(*ast.StringNode); is {
		written = scalar.Value
	}
	time, per, _ := strings.Cut(written, " per ")
	var b policy.Budget
	var fits, also bool
	if b.Time, fits = parseDuration(time); fits {
		b.Per, also = parseDuration(per)
	}
	if !also {
		r.say(where(n), "budget must be a duration per a longer one, such as 8h per 7d")
		return policy.Budget{}
	}
	return b
}

func (r *reader) hook(n ast.Node) *policy.Hook {
	hook := &policy.Hook{}
	r.object(n, "a hook", nil,
		field{"url", true, func(n ast.Node) { hook.URL, _ = r.text(n, "url") }},
		field{"key", true, func(n ast.Node) { oneOf(r, n, "key", &hook.Key, parseKey) }},
	)
	return hook
}

func (r *reader) hours(n ast.Node) *policy.Hours {
	hours := &policy.Hours{}
	r.object(n, "hours", nil,
		field{"zone", true, func(n ast.Node) { hours.Zone = r.zone(n) }},
		field{"weekly", true, func(n ast.Node) {
			for _, spans := range items(r, n, "weekly", `spans such as "mon-fri 08:00-18:00"`, r.spans) {
				hours.Weekly = append(hours.Weekly, spans...)
			}
		}},
	)
	return hours
}

// zone reads the name of a time zone: one that nobody knows would keep everybody out.
func (r *reader) zone(n ast.Node) string {
	name, is := r.text(n, "zone")
	if _, err := time.LoadLocation(name); is && (err != nil || name == "Local" || name == "") {
		r.say(where(n), "%q is no time zone: write one such as Europe/Berlin or UTC", shortened(name))
	}
	return name
}

func (r *reader) networks(n ast.Node) []string {
	list := texts(r, n, "networks", parseText)
	if _, is := n.(*ast.SequenceNode); is && len(list) == 0 {
		r.say(where(n), "networks is empty: leave it out")
	}
	return list
}

func (r *reader) spans(n ast.Node) []policy.Span {
	written, is := r.text(n, "each of weekly")
	if !is {
		return nil
	}
	spans, hint := parseSpans(written)
	if hint != "" {
		r.say(where(n), "%q is no weekly span: %s", shortened(written), hint)
	}
	return spans
}

var (
	spanGrammar = regexp.MustCompile(`^([a-z]+)(?:-([a-z]+))? ([0-9:]+)-([0-9:]+)$`)
	timeOfDay   = regexp.MustCompile(`^([01][0-9]|2[0-4]):([0-5][0-9])$`)
	weekdays    = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
)

const (
	day  = 24 * 60 // minutes
	week = 7 * day
)

// parseSpans reads "mon-fri 08:00-18:00": one span for each day named. One that ends before it begins ends on the next day, and
// what passes the end of the week goes on at its beginning.
func parseSpans(written string) (spans []policy.Span, hint string) {
	parts := spanGrammar.FindStringSubmatch(written)
	if parts == nil {
		return nil, `write such as "mon-fri 08:00-18:00" or "sat 22:00-06:00"`
	}
	first, last := slices.Index(weekdays, parts[1]), slices.Index(weekdays, parts[2])
	if parts[2] == "" {
		last = first
	}
	if first < 0 || last < 0 {
		return nil, "days are " + strings.Join(weekdays, ", ")
	}
	from, fits := parseClock(parts[3])
	until, also := parseClock(parts[4])
	if !fits || !also || from == day || from == until {
		return nil, "times are 00:00 to 24:00, and differ"
	}
	if until < from {
		until += day
	}
	for one := first; ; one = (one + 1) % 7 {
		start, end := one*day+from, one*day+until
		spans = append(spans, policy.Span{From: start, Until: min(end, week)})
		if end > week {
			spans = append(spans, policy.Span{From: 0, Until: end - week})
		}
		if one == last {
			return spans, ""
		}
	}
}

func parseClock(written string) (minutes int, fits bool) {
	parts := timeOfDay.FindStringSubmatch(written)
	if parts == nil {
		return 0, false
	}
	hours, _ := strconv.Atoi(parts[1]) // two digits
	minutes, _ = strconv.Atoi(parts[2])
	minutes += hours * 60
	return minutes, minutes <= day
}
