package main

import (
	"fmt"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// card shows a request in full, from what was verified: who, what it gives by the policy in force here, where, how long, why.
func (r reading) card(p pin, now statement.Time) term.Card {
	role := p.chain.Current().Roles[r.request.Role]
	fields := []term.Field{
		{Label: "state", Lines: []string{string(r.state(now))}},
		{Label: "who", Lines: []string{r.who(p)}},
		{Label: "role", Lines: []string{string(r.request.Role)}},
		{Label: "hosts", Lines: lines(r.request.Hosts)},
		{Label: "gives", Lines: gives(role)},
		{Label: "for", Lines: []string{r.howLong(role)}},
		{Label: "from", Lines: r.start()},
		{Label: "goes on", Lines: r.goesOn()},
		{Label: "why", Lines: []string{r.request.Reason}, Quoted: true},
		{Label: "ticket", Lines: nonEmpty(r.request.Ticket), Quoted: true},
		{Label: "asked", Lines: []string{moment(r.request.Created, now)}},
		{Label: "expires", Lines: []string{moment(r.request.Expires, now)}},
		{Label: "signed by", Lines: append([]string{fingerprint(r.signer.Key)}, touchShown(r.signer)...)},
		{Label: "for key", Lines: fingerprints(r.request.Keys)},
	}
	for _, d := range r.decisions {
		fields = append(fields, d.fields(now)...)
	}
	for _, need := range r.needs {
		fields = append(fields, term.Field{Label: "needs", Lines: []string{need.String()}})
	}
	for _, more := range r.later(p, now) {
		fields = append(fields, term.Field{Label: "", Lines: []string{"from " + more}})
	}
	return term.Card{Title: "request " + string(r.id()), Fields: append(fields, r.outcome(now)...)}
}

func (r reading) who(p pin) string {
	account := p.chain.Current().People[r.request.Person].Account
	return fmt.Sprintf("%s, account %s", r.request.Person, account)
}

func (r reading) howLong(role policy.Role) string {
	if role.Longest > 0 && r.request.Duration > role.Longest {
		return fmt.Sprintf("%s (asked for %s, the role allows no more)", span(role.Longest), span(r.request.Duration))
	}
	return span(r.request.Duration)
}

func (r reading) start() []string {
	if r.request.At == 0 {
		return nil
	}
	return []string{r.request.At.String() + ", judged again then"}
}

// goesOn names the grant whose sessions go on under this one.
func (r reading) goesOn() []string {
	if r.request.Extends == "" {
		return nil
	}
	return []string{"the sessions of " + r.request.Extends}
}

// touchShown says what a security key's signature shows of its holder.
func touchShown(s statement.Signer) []string {
	switch {
	case !s.Key.SecurityKey():
		return nil
	case s.Verified:
		return []string{"touched, its holder verified"}
	}
	return []string{"touched"}
}

// gives says in words what a role lets its holder do.
func gives(role policy.Role) []string {
	var gifts []string
	for _, account := range role.Accounts {
		gifts = append(gifts, "log in as "+string(account))
	}
	for _, rule := range role.Sudo {
		for _, command := range rule.Commands {
			text := string(command)
			if text == "ALL" {
				text = "ALL commands"
			}
			gifts = append(gifts, fmt.Sprintf("sudo as %s: %s", rule.As, text))
		}
	}
	if len(gifts) == 0 {
		return []string{"nothing"}
	}
	return gifts
}

func (d decided) fields(now statement.Time) []term.Field {
	verb := map[statement.Verdict]string{statement.Approve: "approved", statement.Deny: "denied"}[d.Verdict]
	text := append([]string{fmt.Sprintf("%s, %s", d.Person, moment(d.Created, now))}, touchShown(d.signer)...)
	if d.Duration > 0 {
		text = append(text, "for no longer than "+span(d.Duration))
	}
	if d.Hosts != nil {
		text = append(text, "only on "+joined(d.Hosts))
	}
	if !d.counted {
		text = append(text, "does not count: no approver of this role today")
	} else if waits := d.NotAfter.Sub(d.Created); d.Verdict == statement.Approve && waits > freshFor {
		text = append(text, "waits for others until "+d.NotAfter.String())
	}
	return []term.Field{
		{Label: verb, Lines: text},
		{Label: "", Lines: nonEmpty(d.Reason), Quoted: true},
	}
}

// outcome is what became of the request: a grant with its window, or why it can be none.
func (r reading) outcome(now statement.Time) []term.Field {
	switch {
	case r.grant != nil:
		return []term.Field{
			{Label: "grant", Lines: []string{fmt.Sprintf("%s, %s", r.grant.ID, r.grant.Phase(now))}},
			{Label: "window", Lines: []string{fmt.Sprintf("%s to %s", r.grant.From, moment(r.grant.Until, now))}},
			{Label: "ended", Lines: ended(r.grant.Ended)},
			{Label: "alarm", Lines: alarm(r.grant)},
			{Label: "longer", Lines: r.longer(now)},
		}
	case r.why != nil:
		return []term.Field{{Label: "no grant", Lines: []string{r.why.Error()}}}
	}
	return nil
}

// alarm says that nobody approved a grant beforehand.
func alarm(g *broker.Grant) []string {
	if !g.Alarm {
		return nil
	}
	return []string{"nobody approved it beforehand: every alarm rang"}
}

// longer is what its holder types for more time.
func (r reading) longer(now statement.Time) []string {
	if r.grant.Phase(now) != broker.PhaseActive {
		return nil
	}
	return []string{r.extend()}
}

func ended(e *broker.Ended) []string {
	if e == nil {
		return nil
	}
	return []string{fmt.Sprintf("by %s at %s", e.How, e.At)}
}

func lines[T ~string](names []T) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = string(name)
	}
	return out
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func fingerprint(key statement.Key) string {
	kind := strings.TrimPrefix(key.Type(), "ssh-")
	if key.SecurityKey() {
		kind = "security key"
	}
	return fmt.Sprintf("%s (%s)", key.Fingerprint(), kind)
}

func fingerprints(keys []statement.Key) []string {
	out := make([]string, len(keys))
	for i, key := range keys {
		out[i] = fingerprint(key)
	}
	return out
}
