package policy

import (
	"fmt"
	"strings"

	"pim-ssh/broker/statement"
)

// limits says what changes of what only documents of version 2 have words for.
func (c *changes) limits(name statement.RoleName, before, after Role) {
	c.bound(name, "opens without approval for", "is not opened without approval any more", opening(c.old, before), opening(c.new, after))
	c.bound(name, "alarms when it opens, and then", "is no emergency role any more", emergency(before), emergency(after))
	c.bound(name, "takes approvals", "takes approvals from nobody else", fallbacks(before.Fallback), fallbacks(after.Fallback))
	c.bound(name, "asks who asks for", "asks who asks for no second factor", factor(before.Factors.Ask), factor(after.Factors.Ask))
	c.bound(name, "asks who approves for", "asks who approves for no second factor", factor(before.Factors.Approve), factor(after.Factors.Approve))
	c.bound(name, "lets one code serve for", "wants a new code every time", duration(before.Factors.Fresh), duration(after.Factors.Fresh))
	c.bound(name, "wants reasons of so many characters or more:", "takes reasons of any length", number(before.ReasonLeast), number(after.ReasonLeast))
	c.bound(name, "wants its approvers to give", "takes approvals without a reason", said(before.ApproverReason, "a reason"), said(after.ApproverReason, "a reason"))
	c.bound(name, "wants a ticket such as", "takes any ticket, or none", before.Ticket, after.Ticket)
	c.bound(name, "gives each person at most", "has no budget any more", budget(before.Budget), budget(after.Budget))
	c.bound(name, "is for", "is for any hour", hours(before.Hours), hours(after.Hours))
	c.bound(name, "is for people in", "is for people anywhere", list(before.Networks), list(after.Networks))
	c.bound(name, "asks the hook", "asks no hook", hook(before.Hook), hook(after.Hook))
}

// bound says that a field of a role reads differently, and in words of its own that it is gone.
func (c *changes) bound(role statement.RoleName, what, gone, before, after string) {
	if before != "" && after == "" {
		c.say("%s %s%s", role, gone, was(before))
		return
	}
	c.changed(role, what, before, after)
}

func said(is bool, word string) string {
	if is {
		return word
	}
	return ""
}

// opening is which keys open the role without approval: what that means depends on the document's version.
func opening(d *Document, r Role) string {
	switch {
	case !r.Unapproved():
		return ""
	case d.V > 1 && !r.PlainKey:
		return "a security key's touch only"
	}
	return "any key"
}

func emergency(r Role) string {
	if !r.Emergency {
		return ""
	}
	return "its approvers review it"
}

func fallbacks(all []Fallback) string {
	var words []string
	for _, f := range all {
		words = append(words, "after "+duration(f.After)+" also from "+list(f.From))
	}
	return strings.Join(words, ", ")
}

func factor(kind FactorKind) string {
	switch kind {
	case NoFactor:
		return ""
	case SecurityKey:
		return "a security key with touch and verification"
	case TOTP:
		return "a totp code"
	}
	return string(kind)
}

func budget(b Budget) string {
	if b == (Budget{}) {
		return ""
	}
	return duration(b.Time) + " per " + duration(b.Per)
}

func hours(h *Hours) string {
	if h == nil {
		return ""
	}
	var spans []string
	for _, span := range h.Weekly {
		spans = append(spans, span.String())
	}
	return strings.Join(spans, ", ") + " in " + h.Zone
}

func hook(h *Hook) string {
	if h == nil {
		return ""
	}
	return fmt.Sprintf("%s, which answers with the key %s", h.URL, inWords(h.Key))
}

// quorum is what a request needs, in all its parts.
func quorum(r Role) string {
	words := approvals(r.Approvals)
	for _, part := range r.And {
		words += " and " + approvals(Approvals{Count: part.Count, From: part.From})
	}
	if r.Emergency && words != "" {
		words += ", afterwards"
	}
	return words
}

func approvals(a Approvals) string {
	switch {
	case a.None && a.Count == 0 && len(a.From) == 0:
		return "no approval"
	case !a.None && a.Count == 0 && len(a.From) == 0:
		return ""
	}
	words := count(a.Count, "approval") + " from " + list(a.From)
	if a.None {
		words += " or none"
	}
	return words
}
