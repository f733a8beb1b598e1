package broker

import (
	"slices"
	"unicode/utf8"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// begins is the earliest moment at which what was asked can begin.
func (a asked) begins() statement.Time { return max(a.Created, a.At) }

// eligibleAt returns what makes the asker eligible at from, on any host, and when the last of it ends. Who is active has what
// nobody else approved for as long as they are active, and no longer.
func eligibleAt(doc *policy.Document, a asked, from statement.Time) (entries []policy.Eligibility, last statement.Time) {
	all := doc.Entries(a.Person, a.Role)
	if doc.ActiveFor(a.Person, a.Role, a.Hosts, a.begins()) {
		all = doc.Actives(a.Person, a.Role)
	}
	for _, e := range all {
		if from < e.From || e.Until != 0 && from >= e.Until {
			continue
		}
		entries = append(entries, e)
		if last = max(last, e.Until); e.Until == 0 {
			last = never
		}
	}
	return entries, last
}

// bounded returns the entries when none of them holds for ever and everywhere; else nil, which says that one does.
func bounded(entries []policy.Eligibility) []policy.Eligibility {
	if slices.ContainsFunc(entries, func(e policy.Eligibility) bool { return e.Until == 0 && e.Hosts == nil }) {
		return nil
	}
	return entries
}

// On returns the grant as it is on one host: no eligibility there outlasts it.
func (g Grant) On(h Host) Grant {
	until := statement.Time(0)
	for _, e := range g.Eligible {
		if !e.Covers(h.Name, h.Labels, g.From) {
			continue
		}
		if e.Until == 0 {
			return g
		}
		until = max(until, e.Until)
	}
	if until != 0 {
		g.Until = min(g.Until, until)
	}
	return g
}

// heldOn reports whether the person is eligible on this host when the window begins.
func (g Grant) heldOn(h Host) bool {
	return len(g.Eligible) == 0 || slices.ContainsFunc(g.Eligible, func(e policy.Eligibility) bool { return e.Covers(h.Name, h.Labels, g.From) })
}

// worded holds the words of a request, and the key that signed it, to what the role demands of them.
func worded(doc *policy.Document, role policy.Role, a asked) error {
	again := "pim-ssh request " + string(a.Role) + " --why \"…\""
	switch {
	case utf8.RuneCountInString(a.Reason) < role.ReasonLeast:
		return Refuse(Denied, again, "the reason has %d characters: role %s wants %d or more", utf8.RuneCountInString(a.Reason), a.Role, role.ReasonLeast)
	case !role.TicketFits(a.Ticket):
		return Refuse(Denied, again+" --ticket …", "ticket %.40q is not such as role %s wants: %s", a.Ticket, a.Role, role.Ticket)
	case doc.ActiveFor(a.Person, a.Role, a.Hosts, a.begins()):
		return nil
	case doc.V > 1 && role.Unapproved() && !role.PlainKey && !a.signer.Presence:
		return Refuse(Denied, "pim-ssh request "+string(a.Role)+" --key YOUR-SECURITY-KEY", "role %s opens without approval, so it wants a security key's signature", a.Role)
	}
	return touchedBy(role.Factors.Ask, a.signer, statement.KindRequest, "pim-ssh request "+string(a.Role)+" --key YOUR-SECURITY-KEY")
}

// touched holds a statement to a second factor that its signature shows.
func touched(kind policy.FactorKind, o statement.Opened) error {
	return touchedBy(kind, o.Signers[0], o.Body.Header().Kind, "sign with your security key: --key YOUR-SECURITY-KEY")
}

func touchedBy(kind policy.FactorKind, s statement.Signer, what statement.Kind, hint string) error {
	switch kind {
	case policy.NoFactor, policy.TOTP: // codes are for brokers to check
		return nil
	case policy.SecurityKey:
		if s.Key.SecurityKey() && s.Presence && s.Verified {
			return nil
		}
		return Refuse(Denied, hint, "the %s must be signed by a security key that verified its holder; key %s did not", what, s.Key.Fingerprint())
	default:
		return Refuse(Denied, "ask a steward", "second factor %q is not known here", kind)
	}
}
