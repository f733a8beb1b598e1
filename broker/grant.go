package broker

import (
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Grant is what a proven dossier confers. Only Prove makes one; every field follows from signed bytes and policy.
type Grant struct {
	ID       GrantID                `json:"id"`
	Stem     Stem                   `json:"stem"`
	Request  statement.Hash         `json:"request"` // of the request's payload
	Person   statement.Person       `json:"person"`
	Account  statement.Account      `json:"account"` // the person's own login, whose sudo the grant unlocks
	Role     statement.RoleName     `json:"role"`
	Hosts    []statement.HostName   `json:"hosts"`    // sorted; at least one
	From     statement.Time         `json:"from"`     // the window is [From, Until)
	Until    statement.Time         `json:"until"`    // strictly after From
	Keys     []statement.Key        `json:"keys"`     // sorted; certificates may be for these and no others
	Accounts []statement.Account    `json:"accounts"` // SSH logins
	Sudo     []policy.SudoRule      `json:"sudo"`
	Offline  policy.Offline         `json:"offline"`
	Reach    policy.Selector        `json:"reach"`              // the role's selector, which hosts hold against their own labels
	Eligible []policy.Eligibility   `json:"eligible,omitempty"` // by which of these the person holds it, where they say less than for ever and everywhere
	Earlier  [][]policy.Eligibility `json:"earlier,omitempty"`  // the same in each revision since the asker's that said it otherwise: no later one prolongs a window
	Extends  GrantID                `json:"extends,omitzero"`   // whose sessions go on under this one
	Alarm    bool                   `json:"alarm,omitzero"`     // nobody approved it beforehand: whoever opens it rings
	Newest   statement.Time         `json:"newest"`             // the latest created in the dossier
	Expires  statement.Time         `json:"policy_expires"`     // when the policy that proved it expires
	Ended    *Ended                 `json:"ended"`              // null while nothing ended it; Prove never sets it
	Asked    statement.Time         `json:"-"`                  // when the request was created; known only of what Prove just made
}

// Phase is where a grant stands in its life. Waiting, active and lapsed are computed from time.
type Phase string

// The closed set of phases.
const (
	PhaseWaiting  Phase = "waiting"
	PhaseActive   Phase = "active"
	PhaseLapsed   Phase = "lapsed"
	PhaseReturned Phase = "returned"
	PhaseRevoked  Phase = "revoked"
)

// Phase returns the grant's phase at now. Any end but a return counts as revoked.
func (g Grant) Phase(now statement.Time) Phase {
	switch {
	case g.Ended != nil && g.Ended.How == EndedByReturn:
		return PhaseReturned
	case g.Ended != nil:
		return PhaseRevoked
	case now >= g.Until:
		return PhaseLapsed
	case now < g.From:
		return PhaseWaiting
	default:
		return PhaseActive
	}
}

// Host is one machine as it knows itself: its enrolled name, its own labels, and when the newest epoch that it has heard of
// began: what was asked before is void. Zero: no restore ever.
type Host struct {
	Name   statement.HostName
	Labels map[string]string
	Since  statement.Time
}

// MaxAhead is how far in the future, in seconds, a statement's created may lie before judges refuse it.
const MaxAhead statement.Seconds = 60

// LiveOn reports why the grant opens nothing on this host at this moment, and nil when it does. It covers what
// depends on host and clock: Prove has covered the rest.
func (g Grant) LiveOn(h Host, now statement.Time) error {
	switch {
	case g.Ended != nil:
		return Refuse(Denied, "pim-ssh request "+string(g.Role), "grant %s was ended by %s", g.ID, g.Ended.How)
	case h.Since != 0 && g.Asked <= h.Since:
		return Refuse(Denied, "pim-ssh request "+string(g.Role), "grant %s was asked for at %s, before the cluster was restored at %s", g.ID, g.Asked, h.Since)
	case g.Newest > now.Add(MaxAhead):
		return Refuse(Denied, "check the clock of this machine", "grant %s: a statement was made at %s, which is in the future", g.ID, g.Newest)
	case now >= g.Expires:
		return Refuse(Denied, "ask a steward for a new revision: pim-ssh policy sign", "the policy expired at %s", g.Expires)
	case !slices.Contains(g.Hosts, h.Name):
		return Refuse(Denied, "pim-ssh request "+string(g.Role)+"@"+string(h.Name), "grant %s does not name host %s", g.ID, h.Name)
	case !g.Reach.Selects(h.Name, h.Labels):
		return Refuse(Denied, "pim-ssh roles", "role %s does not reach host %s", g.Role, h.Name)
	case !g.heldOn(h):
		return Refuse(Missing, "pim-ssh roles", "%s is not eligible for role %s on host %s at %s", g.Person, g.Role, h.Name, g.From)
	case now < g.From:
		return Refuse(Denied, "wait, or pim-ssh status "+string(g.ID), "grant %s starts at %s", g.ID, g.From)
	case now >= g.Until:
		return Refuse(Expired, "pim-ssh request "+string(g.Role), "grant %s lapsed at %s", g.ID, g.Until)
	}
	return nil
}
