package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Need is a part of the quorum that is still missing: Count more distinct people of From.
type Need struct {
	Count int                `json:"count"`
	From  []statement.Person `json:"from"` // who may fill it now: sorted, without the asker and those who decided
}

// String says the need in words, "1 of bob, carol, gwen".
func (n Need) String() string {
	if len(n.From) == 0 {
		return fmt.Sprintf("%d more, but nobody is left who may approve", n.Count)
	}
	names := make([]string, len(n.From))
	for i, person := range n.From {
		names[i] = string(person)
	}
	return fmt.Sprintf("%d of %s", n.Count, strings.Join(names, ", "))
}

// Needs returns what a dossier still lacks at now, for display: nothing when the quorum is full, and nothing when it breaks
// a rule or was denied or ended, because then no approval helps. Whether it is a grant is Prove's word, not this one.
func Needs(c policy.Chain, d Dossier, now statement.Time) []Need {
	w, err := weigh(c, d)
	if err != nil || w.missing() == 0 {
		return nil
	}
	return w.lacking(now)
}

// lacking returns the open parts of the quorum.
func (t tally) lacking(now statement.Time) []Need {
	people, age := t.counting(now), now.Sub(t.asked)
	filled := policy.Fill(t.parts, people, t.fits(now))
	var needs []Need
	for i, part := range t.parts {
		if part.Count <= filled[i] {
			continue
		}
		left := slices.DeleteFunc(t.doc.Approvers(t.role), func(p statement.Person) bool {
			return p == t.asker || slices.Contains(people, p) || !t.doc.Approves(p, t.role, part, age)
		})
		needs = append(needs, Need{Count: part.Count - filled[i], From: left})
	}
	return needs
}

// extra returns what a hook demands beside the quorum and nobody has given yet.
func (t tally) extra(more int, now statement.Time) []Need {
	people := t.counting(now)
	left := more - max(0, len(people)-policy.Slots(t.parts))
	if left <= 0 {
		return nil
	}
	from := slices.DeleteFunc(t.doc.Approvers(t.role), func(p statement.Person) bool {
		return slices.Contains(people, p) || !t.doc.Decides(p, t.role, now.Sub(t.asked)) || p == t.asker
	})
	return []Need{{Count: left, From: from}}
}

// mayDecide reports why a person may not decide a request under this policy, at this moment.
func mayDecide(doc *policy.Document, r statement.Request, person statement.Person, at statement.Time) error {
	if person == r.Person {
		return Refuse(Denied, "ask somebody else to approve", "nobody decides a request of their own")
	}
	if !doc.Decides(person, r.Role, at.Sub(r.Created)) {
		return Refuse(Denied, "pim-ssh inbox", "%s is no approver of %s", person, r.Role)
	}
	return nil
}

// approval is one approver's yes that counts, from created to until.
type approval struct {
	person         statement.Person
	created, until statement.Time
}

func (a approval) countsAt(at statement.Time) bool { return a.created <= at && at <= a.until }

// tally is what the decisions on one request amount to under the current policy.
type tally struct {
	doc       *policy.Document
	role      statement.RoleName
	asker     statement.Person
	asked     statement.Time // when the request was created
	parts     []policy.Part  // of the quorum; none: no approval is needed
	approvals []approval     // of current approvers, the earliest first
	ignored   error          // why the last decision that does not count does not
	hosts     []statement.HostName
	duration  statement.Seconds // the least that asker and approvers named
	newest    statement.Time    // the latest created
}

// counting returns the distinct people whose approvals count at a moment.
func (t tally) counting(at statement.Time) []statement.Person {
	var people []statement.Person
	for _, a := range t.approvals {
		if a.countsAt(at) && !slices.Contains(people, a.person) {
			people = append(people, a.person)
		}
	}
	return people
}

// fits returns what reports whether a person has an approval that counts for a part at a moment, made when it was.
func (t tally) fits(at statement.Time) func(statement.Person, policy.Part) bool {
	return func(person statement.Person, part policy.Part) bool {
		return slices.ContainsFunc(t.approvals, func(a approval) bool {
			return a.person == person && a.countsAt(at) && t.doc.Approves(person, t.role, part, a.created.Sub(t.asked))
		})
	}
}

// full returns how many approvals were missing when most were there, and when that was: the earliest such moment.
func (t tally) full() (missing int, at statement.Time) {
	missing = policy.Slots(t.parts)
	for _, a := range t.approvals {
		left := policy.Slots(t.parts) - policy.Filled(t.parts, t.counting(a.created), t.fits(a.created))
		if left < missing {
			missing, at = left, a.created
		}
	}
	return missing, at
}

// missing is how many approvals are still to come.
func (t tally) missing() int {
	missing, _ := t.full()
	return missing
}

// filled is when the earliest set that fills the quorum was complete; zero when none is needed.
func (t tally) filled() statement.Time {
	_, at := t.full()
	return at
}

// unapproved reports whether nobody needs to approve.
func (t tally) unapproved() bool { return len(t.parts) == 0 }

func (t tally) unmet() error {
	if t.ignored != nil {
		return Refuse(Denied, "pim-ssh status", "%d more approvals needed; one does not count: %w", t.missing(), t.ignored)
	}
	return Refuse(Denied, "pim-ssh status", "%d more approvals needed", t.missing())
}

// tallyOf is the tally of decisions that were filed: nothing about them is proven again.
func tallyOf(doc *policy.Document, r statement.Request, role policy.Role, filed []decided) tally {
	t := tally{doc: doc, role: r.Role, asker: r.Person, asked: r.Created, parts: role.Parts()}
	if doc.ActiveFor(r.Person, r.Role, r.Hosts, max(r.Created, r.At)) {
		t.parts = nil
	}
	for _, d := range filed {
		t.approvals = append(t.approvals, approval{d.person, d.created, valid(doc, d.until)})
	}
	return t
}

// count weighs every decision. A denial in the dossier kills it, whoever signed it: brokers put none there but an
// approver's. An approval always narrows, but counts only while its signer is an approver.
func count(c policy.Chain, a asked, role policy.Role, decisions []statement.Proof) (tally, error) {
	t := tallyOf(c.Current(), a.Request, role, nil)
	t.hosts, t.duration, t.newest = slices.Clone(a.Hosts), a.Duration, a.Created
	for _, p := range decisions {
		if err := t.add(c, a, p); err != nil {
			return tally{}, err
		}
	}
	slices.SortFunc(t.approvals, func(x, y approval) int {
		return cmp.Or(cmp.Compare(x.created, y.created), cmp.Compare(x.person, y.person), cmp.Compare(x.until, y.until))
	})
	return t, nil
}

func (t *tally) add(c policy.Chain, a asked, p statement.Proof) error {
	d, o, err := openStatement[statement.Decision](c, p)
	if err != nil {
		return err
	}
	id := a.stem().Request()
	switch {
	case d.Request != a.hash:
		return Refuse(Denied, "", "%s decided %s, not %s", d.Person, StemOf(d.Request).Request(), id)
	case d.Verdict != statement.Approve:
		return Refuse(Denied, "pim-ssh request "+string(a.Role), "%s denied %s", d.Person, id)
	case d.Created > a.Expires:
		return Refuse(Expired, "", "%s approved %s after it expired at %s", d.Person, id, a.Expires)
	}
	if err := t.narrow(a, d); err != nil {
		return err
	}
	t.newest = max(t.newest, d.Created)
	if err := speaks(c.Current(), o); err != nil {
		t.ignored = err
		return nil
	}
	if err := t.counts(a, d, o); err != nil {
		t.ignored = err
		return nil
	}
	if slices.ContainsFunc(t.approvals, func(x approval) bool { return x.person == d.Person }) {
		t.ignored = Refuse(Denied, "", "%s approved more than once", d.Person)
	}
	t.approvals = append(t.approvals, approval{d.Person, d.Created, valid(t.doc, d.NotAfter)})
	return nil
}

// counts reports why an approval does not.
func (t *tally) counts(a asked, d statement.Decision, o statement.Opened) error {
	if err := mayDecide(t.doc, a.Request, d.Person, d.Created); err != nil {
		return err
	}
	return demanded(t.doc.Roles[a.Role], a.Role, d, o)
}

// demanded holds a yes to the words and the key that the role wants of its approvers.
func demanded(role policy.Role, name statement.RoleName, d statement.Decision, o statement.Opened) error {
	if role.ApproverReason && strings.TrimSpace(d.Reason) == "" {
		return Refuse(Denied, "approve again with --why", "%s gave no reason, and role %s wants one of its approvers", d.Person, name)
	}
	return touched(role.Factors.Approve, o)
}

// more reports whether so many people approved beside those that the role needs.
func (t tally) more(extra int, now statement.Time) bool {
	return extra == 0 || len(t.counting(now)) >= policy.Slots(t.parts)+extra
}

// valid is until when an approval may wait for the others. Documents of version 1 knew no end to that.
func valid(doc *policy.Document, until statement.Time) statement.Time {
	if doc.V < 2 {
		return never
	}
	return until
}

// narrow applies what an approver leaves of a request. Asking for more than the request is refused.
func (t *tally) narrow(a asked, d statement.Decision) error {
	for _, h := range d.Hosts {
		if _, named := slices.BinarySearch(a.Hosts, h); !named {
			return Refuse(Invalid, "approve again without it", "%s approved host %s, which the request does not name", d.Person, h)
		}
	}
	if d.Duration > a.Duration {
		return Refuse(Invalid, "approve again with a shorter one", "%s approved %d s, but %d s were asked", d.Person, d.Duration, a.Duration)
	}
	if d.Hosts != nil {
		t.hosts = slices.DeleteFunc(t.hosts, func(h statement.HostName) bool { return !slices.Contains(d.Hosts, h) })
	}
	if d.Duration != 0 {
		t.duration = min(t.duration, d.Duration)
	}
	return nil
}
