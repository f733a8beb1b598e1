//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// A stretch is a dossier of real statements that somebody hopes to be worth more than people signed, and what it is worth.
type stretch struct {
	sentence string
	forge    func(a attempt) broker.Dossier
	from     statement.Seconds // after the request was made
	lasts    statement.Seconds
}

var stretches = []stretch{
	{sentence: "asked for longer than the role allows: the role's longest", lasts: 4 * 3600, forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Duration = 100 * 3600 })
		return with(r, a.yes(r))
	}},
	{sentence: "narrowed by the approver: what is left", lasts: 120, forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Approve("bob", r, shorter(120)))
	}},
	{sentence: "narrowed by one approver of three: the least, though two would have done", lasts: 60, forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "root", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r), a.Approve("carol", r, nil), a.Approve("gwen", r, shorter(60)))
	}},
	{sentence: "approved again later: from the first approval that filled the quorum", from: 5, lasts: 600, forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Created -= 300 })
		return with(r, a.after(r, "bob", 5), a.after(r, "carol", 300))
	}},
	{sentence: "approved again later and shown in another order: the same window", from: 5, lasts: 600, forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Created -= 300 })
		return with(r, a.after(r, "carol", 300), a.after(r, "bob", 5))
	}},
	{sentence: "approved before it was asked: from the request", lasts: 600, forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.after(r, "bob", -50))
	}},
	{sentence: "scheduled and approved late: from the approval, not longer", from: 300, lasts: 600, forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Created -= 300; r.At = r.Created + 10 })
		return with(r, a.after(r, "bob", 300))
	}},
}

func shorter(s statement.Seconds) func(*statement.Decision) {
	return func(d *statement.Decision) { d.Duration = s }
}

// after is a person's approval so many seconds after the request was made.
func (a attempt) after(request statement.Proof, p statement.Person, seconds statement.Seconds) statement.Proof {
	return a.Approve(p, request, func(d *statement.Decision) { d.Created = madeAt(a.T, request).Add(seconds) })
}

// madeAt is when a statement was signed, as it says itself.
func madeAt(t testing.TB, p statement.Proof) statement.Time {
	t.Helper()
	opened, err := statement.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	return opened.Body.Header().Created
}

// windows holds the host to the window that the signed bytes give: in its journal, its reaper and its sudo rule.
func (g *ground) windows(t *testing.T) {
	for _, s := range stretches {
		t.Run(s.sentence, func(t *testing.T) {
			d := s.forge(attempt{g, g.w, forger.Key(t)})
			until := madeAt(t, d.Request).Add(s.from + s.lasts)
			g.show(t, d)
			g.opens(t, d)
			g.until(t, d, until)
			g.end(t, d)
		})
	}
}

// until wants a grant that stands to end at a moment, by the clocks of sudo and systemd.
func (g *ground) until(t testing.TB, d broker.Dossier, until statement.Time) {
	t.Helper()
	stem := d.Stem()
	rule := g.do(t, "cat /run/pim-ssh/sudoers.d/"+stem.SudoersFile())
	if last := "NOTAFTER=" + (until - 1).Std().Format("20060102150405Z"); !strings.Contains(rule, last) {
		t.Errorf("%s: the sudo rule is not %s:\n%s", g.host, last, rule)
	}
	timer := g.do(t, "systemctl show -P NextElapseUSecRealtime "+stem.Principal()+"-end.timer")
	if at := until.Std().Format(time.DateTime); !strings.Contains(timer, at) {
		t.Errorf("%s: the reaper strikes at %q, want %s", g.host, timer, at)
	}
}

// end shows that a grant was revoked, and waits until nothing of it stands.
func (g *ground) end(t testing.TB, d broker.Dossier) {
	t.Helper()
	d.Ended = &broker.Ended{How: broker.EndedByRevoke, At: forger.Now()}
	g.show(t, d)
	g.closed(t, d)
}
