package broker

import (
	"reflect"
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

// eligibleSince is eligibleAt in the revisions from the one that the asker saw to the one before the current, as far as they bound
// the window: what a later revision gives is for what is asked later.
func eligibleSince(c policy.Chain, a asked, from statement.Time) (earlier [][]policy.Eligibility, last statement.Time) {
	last = never
	for revision := a.Policy.Revision; revision < c.Ref().Revision; revision++ {
		doc, _ := c.At(revision)
		if role := doc.Roles[a.Role]; len(role.Dated) == 0 && len(role.Active) == 0 {
			continue
		}
		entries, until := eligibleAt(doc, a, from)
		if len(entries) == 0 || bounded(entries) == nil {
			continue
		}
		last = min(last, until)
		if !slices.ContainsFunc(earlier, func(known []policy.Eligibility) bool { return alike(known, entries) }) {
			earlier = append(earlier, entries)
		}
	}
	return earlier, last
}

func alike(a, b []policy.Eligibility) bool {
	return slices.EqualFunc(a, b, func(x, y policy.Eligibility) bool { return reflect.DeepEqual(x, y) })
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
	g.Until = min(g.Until, lastOn(g.Eligible, h, g.From))
	for _, entries := range g.Earlier {
		g.Until = min(g.Until, lastOn(entries, h, g.From))
	}
	return g
}

// lastOn is when the last of the entries ends that hold on a host when the window begins; never when none does.
func lastOn(entries []policy.Eligibility, h Host, from statement.Time) statement.Time {
	last := statement.Time(0)
	for _, e := range entries {
		if !e.Covers(h.Name, h.Labels, from) {
			continue
		}
		if e.Until == 0 {
			return never
		}
		last = max(last, e.Until)
	}
	if last == 0 {
		return never
	}
	return last
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
	case wantsTouch(doc, role) && !a.signer.Presence:
		return Refuse(Denied, "pim-ssh request "+string(a.Role)+" --key YOUR-SECURITY-KEY", "role %s opens without approval, so it wants a security key's signature", a.Role)
	}
	return touchedBy(role.Factors.Ask, a.signer, statement.KindRequest, "pim-ssh request "+string(a.Role)+" --key YOUR-SECURITY-KEY")
}

// wantsTouch reports whether a role opens without approval for nothing less than a security key's signature.
func wantsTouch(doc *policy.Document, role policy.Role) bool {
	return doc.V > 1 && role.Unapproved() && !role.PlainKey
}

// certified holds the statement that one more key may be certified to what its grant was opened with: whoever stole a plain key
// does not come in beside the one who touched.
func certified(doc *policy.Document, a asked, o statement.Opened) error {
	role := doc.Roles[a.Role]
	if wantsTouch(doc, role) && !o.Signers[0].Presence && !doc.ActiveFor(a.Person, a.Role, a.Hosts, a.begins()) {
		return Refuse(Denied, "sign with your security key: --key YOUR-SECURITY-KEY", "role %s opened without approval for a security key's signature, and wants one for another key too", a.Role)
	}
	return touched(role.Factors.Ask, o)
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
