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

// Needs returns what a dossier still lacks, for display: nothing when the quorum is full, and nothing when it breaks
// a rule or was denied or ended, because then no approval helps. Whether it is a grant is Prove's word, not this one.
func Needs(c policy.Chain, d Dossier) []Need {
	w, err := weigh(c, d)
	if err != nil {
		return nil
	}
	return lacking(c.Current(), w.asked.Request, w.people())
}

// lacking returns the open part of a request's quorum, given who has decided.
func lacking(doc *policy.Document, r statement.Request, decided []statement.Person) []Need {
	role, known := doc.Roles[r.Role]
	if !known || role.Approvals.None {
		return nil
	}
	have, left := 0, []statement.Person{}
	for _, person := range doc.Approvers(r.Role) {
		switch {
		case person == r.Person:
		case slices.Contains(decided, person):
			have++
		default:
			left = append(left, person)
		}
	}
	if have >= max(role.Approvals.Count, 1) {
		return nil
	}
	return []Need{{Count: max(role.Approvals.Count, 1) - have, From: left}}
}

// mayDecide reports why a person may not decide a request under this policy.
func mayDecide(doc *policy.Document, r statement.Request, person statement.Person) error {
	if person == r.Person {
		return Refuse(Denied, "ask somebody else to approve", "nobody decides a request of their own")
	}
	if !slices.Contains(doc.Approvers(r.Role), person) {
		return Refuse(Denied, "pim-ssh inbox", "%s is no approver of %s", person, r.Role)
	}
	return nil
}

// approval is one approver's yes that counts.
type approval struct {
	person  statement.Person
	created statement.Time
}

// tally is what the decisions on one request amount to under the current policy.
type tally struct {
	wanted    int        // how many approvals the role needs; 0: none
	approvals []approval // of distinct current approvers, the earliest first
	ignored   error      // why the last decision that does not count does not
	hosts     []statement.HostName
	duration  statement.Seconds // the least that asker and approvers named
	newest    statement.Time    // the latest created
}

// missing is how many approvals are still to come.
func (t tally) missing() int { return max(t.wanted-len(t.approvals), 0) }

// filled is when the earliest set that fills the quorum was complete; zero when none is needed.
func (t tally) filled() statement.Time {
	if t.wanted == 0 {
		return 0
	}
	return t.approvals[t.wanted-1].created
}

func (t tally) people() []statement.Person {
	people := make([]statement.Person, len(t.approvals))
	for i, a := range t.approvals {
		people[i] = a.person
	}
	return people
}

func (t tally) unmet() error {
	if t.ignored != nil {
		return Refuse(Denied, "pim-ssh status", "%d more approvals needed; one does not count: %w", t.missing(), t.ignored)
	}
	return Refuse(Denied, "pim-ssh status", "%d more approvals needed", t.missing())
}

// count weighs every decision. A denial in the dossier kills it, whoever signed it: brokers put none there but an
// approver's. An approval always narrows, but counts only while its signer is an approver.
func count(c policy.Chain, a asked, role policy.Role, decisions []statement.Proof) (tally, error) {
	t := tally{hosts: slices.Clone(a.Hosts), duration: a.Duration, newest: a.Created}
	if !role.Approvals.None {
		t.wanted = max(role.Approvals.Count, 1)
	}
	for _, p := range decisions {
		if err := t.add(c, a, p); err != nil {
			return tally{}, err
		}
	}
	slices.SortFunc(t.approvals, func(x, y approval) int {
		return cmp.Or(cmp.Compare(x.created, y.created), cmp.Compare(x.person, y.person))
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
	if err := mayDecide(c.Current(), a.Request, d.Person); err != nil {
		t.ignored = err
		return nil
	}
	t.approve(approval{d.Person, d.Created})
	return nil
}

// approve counts each person once, by the earliest approval.
func (t *tally) approve(one approval) {
	at := slices.IndexFunc(t.approvals, func(x approval) bool { return x.person == one.person })
	if at < 0 {
		t.approvals = append(t.approvals, one)
		return
	}
	t.approvals[at].created = min(t.approvals[at].created, one.created)
	t.ignored = Refuse(Denied, "", "%s approved more than once", one.person)
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
