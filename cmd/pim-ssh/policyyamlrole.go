package main

import (
	"fmt"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// limits writes what only documents of version 2 say about a role.
func (y *yamlText) limits(r policy.Role) {
	if len(r.Active) > 0 {
		y.line(2, "active: %s", entries(r.Active))
	}
	for i, f := range r.Fallback {
		if i == 0 {
			y.line(2, "fallback:")
		}
		y.line(3, "- {after: %s, from: %s}", oneUnit(f.After), list(f.From))
	}
	if r.Factors != (policy.Factors{}) {
		y.line(2, "second_factor: %s", factors(r.Factors))
	}
	if r.ReasonLeast > 0 {
		y.line(2, "reason: {least: %d}", r.ReasonLeast)
	}
	for _, word := range []struct {
		name string
		said bool
	}{{"approver_reason", r.ApproverReason}, {"emergency", r.Emergency}, {"plain_key", r.PlainKey}} {
		if word.said {
			y.line(2, "%s: true", word.name)
		}
	}
	if r.Ticket != "" {
		y.line(2, "ticket: %s", quoted(r.Ticket))
	}
	if r.Budget != (policy.Budget{}) {
		y.line(2, "budget: %s per %s", oneUnit(r.Budget.Time), oneUnit(r.Budget.Per))
	}
	if r.Hours != nil {
		y.line(2, "hours: {zone: %s, weekly: %s}", quoted(r.Hours.Zone), list(weeklyWritten(r.Hours.Weekly)))
	}
	if len(r.Networks) > 0 {
		y.line(2, "networks: %s", list(r.Networks))
	}
	if r.Hook != nil {
		y.line(2, "hook: {url: %s, key: %s}", quoted(r.Hook.URL), quoted(r.Hook.Key))
	}
}

// eligible writes those who may ask: names, then what is bound to a time or to hosts.
func eligible(r policy.Role) string {
	var words []string
	for _, name := range r.Eligible {
		words = append(words, quoted(name))
	}
	for _, e := range r.Dated {
		words = append(words, entry(e))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func entries(all []policy.Eligibility) string {
	var words []string
	for _, e := range all {
		words = append(words, entry(e))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func entry(e policy.Eligibility) string {
	said := "{who: " + quoted(e.Who)
	if e.From != 0 {
		said += ", from: " + e.From.String()
	}
	if e.Until != 0 {
		said += ", until: " + e.Until.String()
	}
	if e.Hosts != nil {
		said += ", hosts: " + selector(*e.Hosts)
	}
	return said + "}"
}

// quorumWritten writes what a request needs.
func quorumWritten(r policy.Role) string {
	if r.Approvals.None {
		return "none"
	}
	parts := []string{fmt.Sprintf("{count: %d, from: %s}", r.Approvals.Count, list(r.Approvals.From))}
	for _, part := range r.And {
		parts = append(parts, fmt.Sprintf("{count: %d, from: %s}", part.Count, list(part.From)))
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func factors(f policy.Factors) string {
	var said []string
	if f.Ask != policy.NoFactor {
		said = append(said, "ask: "+string(f.Ask))
	}
	if f.Approve != policy.NoFactor {
		said = append(said, "approve: "+string(f.Approve))
	}
	if f.Fresh != 0 {
		said = append(said, "fresh: "+oneUnit(f.Fresh))
	}
	return "{" + strings.Join(said, ", ") + "}"
}

// weeklyWritten writes spans; one that only signed JSON can say, of more than a day, is written day by day.
func weeklyWritten(spans []policy.Span) []string {
	const day = 24 * 60
	var written []string
	for _, span := range spans {
		for from := span.From; from < span.Until; {
			until := span.Until
			if until-from > day {
				until = (from/day + 1) * day
			}
			written = append(written, policy.Span{From: from, Until: until}.String())
			from = until
		}
	}
	return written
}

// oneUnit writes a duration in the largest unit that divides it: the file takes no other form.
func oneUnit(d statement.Seconds) string {
	switch {
	case d%statement.Day == 0:
		return fmt.Sprintf("%dd", d/statement.Day)
	case d%3600 == 0:
		return fmt.Sprintf("%dh", d/3600)
	case d%60 == 0:
		return fmt.Sprintf("%dm", d/60)
	}
	return fmt.Sprintf("%ds", d)
}
