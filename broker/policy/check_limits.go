package policy

import (
	"net/netip"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// Bounds of what version 2 brings.
const (
	maxTicket  = 200  // characters of a pattern
	maxProgram = 2000 // instructions of a pattern
	maxSpans   = 50
	maxWeek    = 7 * 24 * 60
	maxEntries = 10_000
	MaxPer     = 30 * statement.Day
)

// limits holds what version 2 brings to its own rules, and a document of version 1 to having none of it.
func (c *checker) limits(path []string, name statement.RoleName, role Role) {
	if c.doc.V == 1 && (role.limited()) {
		c.say(path, "says what documents of version 1 have no words for")
	}
	c.entries(below(path, "eligible"), role.Dated, true)
	c.entries(below(path, "active"), role.Active, false)
	c.factors(path, role)
	if role.ReasonLeast < 0 || role.ReasonLeast > statement.MaxReason/4 {
		c.say(below(path, "reason"), "must be 1 to %d characters", statement.MaxReason/4)
	}
	c.ticket(below(path, "ticket"), role.Ticket)
	if b := role.Budget; b != (Budget{}) && (b.Time < 1 || b.Per <= b.Time || b.Per > MaxPer) {
		c.say(below(path, "budget"), "must be such as 8h per 7d: a time, then a longer one of at most 30d")
	}
	if b := role.Budget; b.Time > 0 && b.Time < role.Default {
		c.say(below(path, "budget"), "of %s is less than the default of %s: nobody who names no duration could get it", duration(b.Time), duration(role.Default))
	}
	if role.Emergency && role.Approvals.None {
		c.say(below(path, "emergency"), "needs approvals: who they name reviews afterwards what was done")
	}
	if role.ApproverReason && role.Unapproved() {
		c.say(below(path, "approver_reason"), "is for approvers, but nobody approves")
	}
	if role.PlainKey && !role.Unapproved() {
		c.say(below(path, "plain_key"), "is only for roles that open without approval")
	}
	c.presence(path, name, role)
	c.hours(below(path, "hours"), role.Hours)
	c.networks(below(path, "networks"), role.Networks)
	c.hook(below(path, "hook"), role.Hook)
}

// entries holds dated or active entries to mean somebody, some time.
func (c *checker) entries(path []string, entries []Eligibility, dated bool) {
	if len(entries) > maxEntries {
		c.say(path, "has %d dated entries: at most %d; use groups", len(entries), maxEntries)
		return
	}
	if !slices.IsSortedFunc(entries, compareEntries) {
		c.say(path, "is out of order")
	}
	for i, e := range entries {
		one := below(path, e.String())
		c.name(below(one, "who"), e.Who)
		if dated && e.From == 0 && e.Until == 0 && e.Hosts == nil {
			c.say(one, "is bound to nothing: write the name alone")
		}
		if e.Until != 0 && e.Until <= e.From {
			c.say(below(one, "until"), "ends before it begins")
		}
		if i > 0 && compareEntries(entries[i-1], e) == 0 {
			c.say(one, "is given twice")
		}
		if e.Hosts == nil {
			continue
		}
		c.selector(below(one, "hosts"), *e.Hosts)
		if e.Hosts.Any || !dated && len(e.Hosts.Labels) > 0 {
			c.say(below(one, "hosts"), "must be names%s, or be left out", map[bool]string{true: " or labels"}[dated])
		}
	}
}

func (c *checker) factors(path []string, role Role) {
	at := below(path, "second_factor")
	for _, kind := range []FactorKind{role.Factors.Ask, role.Factors.Approve} {
		if kind != NoFactor && kind != SecurityKey && kind != TOTP {
			c.say(at, "%q is no second factor: write security-key or totp", kind)
		}
	}
	if role.Factors.Approve != NoFactor && role.Unapproved() {
		c.say(at, "asks approvers for one, but nobody approves")
	}
	if f := role.Factors; f.Fresh < 0 || f.Fresh > MaxWindow || f.Fresh > 0 && f.Ask != TOTP && f.Approve != TOTP {
		c.say(below(at, "fresh"), "is for how long a totp code serves again: at most 7d, and only with totp")
	}
	if role.Factors.Ask == SecurityKey {
		c.someone(at, role, "ask")
	}
}

// presence: what opens without approval needs a touch, or the word that it does not.
func (c *checker) presence(path []string, name statement.RoleName, role Role) {
	if c.doc.V == 1 || !role.Unapproved() || role.PlainKey || role.Factors.Ask == SecurityKey {
		return
	}
	c.someone(below(path, "approvals"), role, "open it without approval")
}

func (c *checker) someone(at []string, role Role, do string) {
	names := slices.Clone(role.Eligible)
	for _, e := range role.Dated {
		names = append(names, e.Who)
	}
	if len(names) > 0 && len(c.doc.some(names, 1, c.doc.touches)) == 0 {
		c.say(at, "needs a security key, and nobody who may %s has one: enrol sk- keys%s", do, map[bool]string{true: ", or write plain_key: true"}[role.Unapproved()])
	}
}

// ticket holds a pattern to be one that stays fast, as RE2 is while it repeats little, and that every build reads alike.
func (c *checker) ticket(path []string, pattern string) {
	if len(pattern) > maxTicket {
		c.say(path, "is %d characters long: at most %d", len(pattern), maxTicket)
		return
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		c.say(path, "is no regular expression: %v", err)
		return
	}
	if program, err := syntax.Compile(parsed.Simplify()); err != nil || len(program.Inst) > maxProgram {
		c.say(path, "repeats too much: every judge matches it whenever it judges")
	}
	if strings.Contains(pattern, `\p`) || strings.Contains(pattern, `\P`) {
		c.say(path, "names a Unicode class, which two builds may read differently: write the letters, such as [A-Za-z]")
	}
}

// TicketFits reports whether the whole ticket matches the role's pattern.
func (r Role) TicketFits(ticket string) bool {
	if r.Ticket == "" {
		return true
	}
	pattern, err := regexp.Compile("^(?:" + r.Ticket + ")$")
	return err == nil && ticket != "" && pattern.MatchString(ticket)
}

func (c *checker) hours(path []string, hours *Hours) {
	if hours == nil {
		return
	}
	if !zone.MatchString(hours.Zone) || hours.Zone == "Local" {
		c.say(below(path, "zone"), "%.40q is no name of a time zone, such as Europe/Berlin", hours.Zone)
	}
	if len(hours.Weekly) == 0 || len(hours.Weekly) > maxSpans {
		c.say(below(path, "weekly"), "names %d spans: want 1 to %d", len(hours.Weekly), maxSpans)
	}
	for i, span := range hours.Weekly {
		one := below(path, "weekly", span.String())
		if span.From < 0 || span.Until <= span.From || span.Until > maxWeek {
			c.say(one, "must end after it begins, within the week")
		}
		if i > 0 && span.From < hours.Weekly[i-1].Until {
			c.say(one, "overlaps %s: make them one", hours.Weekly[i-1])
		}
	}
}

var zone = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,32}){0,2}$`)

func (c *checker) networks(path []string, networks []string) {
	set(c, path, networks)
	for _, network := range networks {
		prefix, err := netip.ParsePrefix(network)
		if err != nil || prefix.Masked().String() != network || prefix.Addr().Is4In6() {
			c.say(below(path, network), "%.50q is no network such as 10.0.0.0/8 or 2001:db8::/32", network)
		}
	}
}

func (c *checker) hook(path []string, hook *Hook) {
	if hook == nil {
		return
	}
	u, err := url.Parse(hook.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" || len(hook.URL) > 500 {
		c.say(below(path, "url"), "must be an http or https URL")
	}
	if _, err := statement.ParseKey(string(hook.Key)); err != nil {
		c.say(below(path, "key"), "%v", err)
	}
	if owner, held := c.doc.KeyOwner(hook.Key); held {
		c.say(below(path, "key"), "is a key of %s: people and hooks never share one", owner)
	}
	if owner, held := c.machines[hook.Key]; held {
		c.say(below(path, "key"), "is already the %s: every key has one purpose", owner)
	}
}
