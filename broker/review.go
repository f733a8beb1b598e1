package broker

import (
	"cmp"
	"maps"
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Review is an emergency grant that nobody has looked at yet.
type Review struct {
	Grant  GrantID            `json:"grant"`
	Person statement.Person   `json:"person"` // who held it
	Role   statement.RoleName `json:"role"`
	At     statement.Time     `json:"at"` // when it opened
	Reason string             `json:"reason"`
}

// Renewal is a person's wish for a later end of a dated eligibility.
type Renewal struct {
	Person statement.Person   `json:"person"`
	Role   statement.RoleName `json:"role"`
	Until  statement.Time     `json:"until"`
	At     statement.Time     `json:"at"` // when it was asked
	Reason string             `json:"reason"`
}

// Reviews returns the emergency grants that wait for a review, the oldest first.
func (s *State) Reviews() []Review {
	return slices.SortedFunc(maps.Values(s.reviews), func(a, b Review) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Grant, b.Grant))
	})
}

// Renewals returns the renewals that stewards have not answered by a policy revision, the oldest first.
func (s *State) Renewals() []Renewal {
	return slices.SortedFunc(maps.Values(s.renewals), func(a, b Renewal) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Person, b.Person), cmp.Compare(a.Role, b.Role))
	})
}

// MayReview reports whether a person may close the review of what another did: auditors, and the role's approvers.
func MayReview(doc *policy.Document, r Review, person statement.Person) bool {
	return person != r.Person && (doc.Auditor(person) || doc.Decides(person, r.Role, policy.MaxWindow))
}

// reviewed refuses another emergency while MaxOpen of a person's wait for somebody to look at them: each stays until then.
func (t *turn) reviewed(person statement.Person, role policy.Role) error {
	open := 0
	for _, r := range t.s.reviews {
		if r.Person == person {
			open++
		}
	}
	if !role.Emergency || open < MaxOpen {
		return nil
	}
	return Refuse(Conflict, "ask who reviews: pim-ssh review", "%d emergencies of %s wait for a review already", open, person)
}

// reviewGrant decides whether a person closes a review.
func (t *turn) reviewGrant(b statement.Review, p statement.Proof) error {
	r, open := t.s.reviews[GrantID(b.Grant)]
	if !open || !MayReview(t.chain.Current(), r, b.Person) && b.Person != r.Person {
		return Refuse(Missing, "pim-ssh inbox", "no review of %s is open", b.Grant)
	}
	if b.Person == r.Person {
		return Refuse(Denied, "ask somebody else to review", "nobody reviews what they did themselves")
	}
	t.add(&GrantReviewed{Grant: r.Grant, Person: b.Person, Proof: p})
	return nil
}

// askRenewal decides whether a person may ask the stewards for more time.
func (t *turn) askRenewal(b statement.Renewal, p statement.Proof) error {
	doc := t.chain.Current()
	ends := endOf(doc, b.Person, b.Role)
	switch {
	case !doc.Eligible(b.Person, b.Role):
		return Refuse(Missing, "pim-ssh roles", "%s is not eligible for role %s", b.Person, b.Role)
	case ends == never:
		return Refuse(Conflict, "pim-ssh roles", "%s is eligible for role %s for ever", b.Person, b.Role)
	case b.Until <= ends:
		return Refuse(Conflict, "pim-ssh roles", "%s is eligible for role %s until %s already", b.Person, b.Role, ends)
	}
	t.add(&RenewalAsked{Person: b.Person, Role: b.Role, Until: b.Until, Proof: p})
	return nil
}

// endOf is when the last of a person's eligibilities for a role ends; never when one does not.
func endOf(doc *policy.Document, person statement.Person, role statement.RoleName) statement.Time {
	last := statement.Time(0)
	for _, e := range doc.Entries(person, role) {
		if e.Until == 0 {
			return never
		}
		last = max(last, e.Until)
	}
	return last
}

// EligibleUntil returns when a person's eligibility for a role ends; zero when it does not, or when there is none.
func EligibleUntil(doc *policy.Document, person statement.Person, role statement.RoleName) statement.Time {
	if last := endOf(doc, person, role); last != never {
		return last
	}
	return 0
}

// settleRenewals drops what a new policy has answered, and what nobody can answer any more.
func (s *State) settleRenewals() {
	doc := s.chain.Current()
	for key, r := range s.renewals {
		if endOf(doc, r.Person, r.Role) >= r.Until || !doc.Eligible(r.Person, r.Role) {
			delete(s.renewals, key)
		}
	}
}
