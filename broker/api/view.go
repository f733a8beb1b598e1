package api

import (
	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Policies answers GET /v1/policy: revisions in order.
type Policies struct {
	Policies []statement.Proof `json:"policies"`
}

// Answer answers POST /v1/statements: the log index the statement became, and what it made or touched.
type Answer struct {
	Index   uint64           `json:"index"`
	Request broker.RequestID `json:"request,omitzero"`
	Grant   *broker.GrantID  `json:"grant"` // null when there is none
}

// Problem is the body of every answer that is not a 2xx.
type Problem struct {
	Kind    string `json:"kind"` // a broker.Kind's word
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Whoami answers GET /v1/whoami.
type Whoami struct {
	Person     statement.Person     `json:"person"`
	Account    statement.Account    `json:"account"`
	Deployment statement.Hash       `json:"deployment"`
	Policy     statement.PolicyRef  `json:"policy"`
	Eligible   []statement.RoleName `json:"eligible"` // sorted
	Steward    bool                 `json:"steward"`
	Operator   bool                 `json:"operator"`
	Auditor    bool                 `json:"auditor"`
	Keys       []statement.Key      `json:"keys"`
	Factor     FactorView           `json:"factor,omitzero"`
}

// FactorView is how a person's codes stand.
type FactorView struct {
	Enrolled    bool           `json:"enrolled"`
	LockedUntil statement.Time `json:"locked_until,omitzero"` // no code is taken before; none: they are not locked
}

// Roles answers GET /v1/roles, sorted by name.
type Roles struct {
	Roles []RoleView `json:"roles"`
}

// RoleView is one role as the caller sees it.
type RoleView struct {
	Role      statement.RoleName   `json:"role"`
	Hosts     []statement.HostName `json:"hosts"` // enrolled hosts it selects, sorted
	Accounts  []statement.Account  `json:"accounts"`
	Sudo      []policy.SudoRule    `json:"sudo"`
	Longest   statement.Seconds    `json:"longest"`
	Default   statement.Seconds    `json:"default"`
	Approvals int                  `json:"approvals"` // of the first part of the quorum; 0: none needed
	Approvers []statement.Person   `json:"approvers"` // without the caller, who never approves an own request
	Eligible  bool                 `json:"eligible"`  // may the caller ask

	// From policies of version 2 on, each left out while it says nothing. Who reads the policy has it at first hand.
	Parts          []policy.Part     `json:"parts,omitempty"`          // of the quorum, when there are several
	Fallback       []policy.Fallback `json:"fallback,omitempty"`       // who stands in, and after how long
	Factors        policy.Factors    `json:"factors,omitzero"`         // beside a signature
	ReasonLeast    int               `json:"reason_least,omitzero"`    // characters
	ApproverReason bool              `json:"approver_reason,omitzero"` // approvers say why
	Ticket         string            `json:"ticket,omitzero"`          // RE2 that the whole ticket matches
	Emergency      bool              `json:"emergency,omitzero"`       // opens at once, alarms, and is reviewed
	PlainKey       bool              `json:"plain_key,omitzero"`       // opens without approval for a signature without touch
	Hours          *policy.Hours     `json:"hours,omitzero"`           // brokers' word
	Networks       []string          `json:"networks,omitempty"`       // brokers' word
	Hook           bool              `json:"hook,omitzero"`            // somebody else is asked first; brokers' word
	Budget         *BudgetView       `json:"budget,omitzero"`          // the caller's; brokers' word
	EligibleUntil  statement.Time    `json:"eligible_until,omitzero"`  // when the caller's eligibility ends; none: it does not, or there is none
}

// BudgetView is what one person may use of a role, and has used: so much window time within each span of Per.
type BudgetView struct {
	Time statement.Seconds `json:"time"`
	Per  statement.Seconds `json:"per"`
	Used statement.Seconds `json:"used"` // what open grants still have before them included
}

// State is where a request stands.
type State = broker.RequestState

// The closed set of request states; all but Pending are terminal.
const (
	Pending   = broker.StatePending
	Approved  = broker.StateApproved
	Denied    = broker.StateDenied
	Withdrawn = broker.StateWithdrawn
	Expired   = broker.StateExpired
)

// Requests answers GET /v1/requests and /v1/inbox, newest first.
type Requests struct {
	Requests []RequestView `json:"requests"`
}

// RequestView is one request. Dossier is the signed truth; the other fields are the broker's reading of it.
type RequestView struct {
	ID        broker.RequestID     `json:"id"`
	Role      statement.RoleName   `json:"role"`
	Scope     []statement.HostName `json:"scope"`
	Person    statement.Person     `json:"person"`
	State     State                `json:"state"`
	Reason    string               `json:"reason"`
	Ticket    string               `json:"ticket"`
	Duration  statement.Seconds    `json:"duration"`
	FiledAt   statement.Time       `json:"filed_at"`
	ExpiresAt statement.Time       `json:"expires_at"`
	Needs     []Need               `json:"needs"` // empty when nothing is missing
	Decisions []DecisionView       `json:"decisions"`
	Grant     *broker.GrantID      `json:"grant"` // null until approved
	Dossier   broker.Dossier       `json:"dossier"`

	// What only brokers know; each left out while there is nothing to say.
	Judged broker.Judged `json:"judged,omitzero"` // by the broker that took the request
	More   int           `json:"more,omitzero"`   // approvals that a hook demands beside the role's own
	Budget *BudgetView   `json:"budget,omitzero"` // the asker's, of a role that has one
	First  bool          `json:"first,omitzero"`  // the asker never had this role before, as far as the record goes back
}

// Reviews answers GET /v1/reviews: emergency grants that nobody has looked at yet, the oldest first.
type Reviews struct {
	Reviews []broker.Review `json:"reviews"`
}

// Renewals answers GET /v1/renewals: wishes for a later end of an eligibility that no policy has answered, the oldest first.
type Renewals struct {
	Renewals []broker.Renewal `json:"renewals"`
}

// Need is a missing part of the quorum: Count more of From.
type Need = broker.Need

// DecisionView is one decision that was filed.
type DecisionView struct {
	Person  statement.Person  `json:"person"`
	Verdict statement.Verdict `json:"verdict"`
	Reason  string            `json:"reason"`
	At      statement.Time    `json:"at"` // the decision's own created
}

// Grants answers GET /v1/grants, newest first.
type Grants struct {
	Grants []GrantView `json:"grants"`
}

// GrantView is one grant. Dossier is the signed truth; the other fields are the broker's reading of it.
type GrantView struct {
	ID           broker.GrantID       `json:"id"`
	Request      broker.RequestID     `json:"request"`
	Person       statement.Person     `json:"person"`
	Role         statement.RoleName   `json:"role"`
	Hosts        []statement.HostName `json:"hosts"`
	Accounts     []statement.Account  `json:"accounts"`
	From         statement.Time       `json:"from"`
	Until        statement.Time       `json:"until"`
	Phase        broker.Phase         `json:"phase"`
	EndedBy      statement.Person     `json:"ended_by,omitzero"`     // who returned or revoked it, when a person did
	Certificates []CertificateView    `json:"certificates,omitzero"` // for the holder of a live grant only
	Dossier      broker.Dossier       `json:"dossier"`
}

// CertificateView is one certificate, signed on this read; Serial is the index of the event that allowed it.
type CertificateView struct {
	Key         statement.Key `json:"key"`
	Serial      uint64        `json:"serial"`
	Certificate string        `json:"certificate"` // one authorized_keys line
}

// Hosts answers GET /v1/hosts, sorted by name.
type Hosts struct {
	Hosts []HostView `json:"hosts"`
}

// HostView is one enrolled host. Enrolment is the signed truth: it holds the operator's token and the host's keys.
type HostView struct {
	Name       statement.HostName `json:"name"`
	Labels     map[string]string  `json:"labels"`
	Addresses  []string           `json:"addresses"`
	Enrolment  statement.Proof    `json:"enrolment"`
	EnrolledAt statement.Time     `json:"enrolled_at"`
	LastSeen   statement.Time     `json:"last_seen,omitzero"` // the last report or open watch this broker knows of
}

// Health answers GET /healthz.
type Health struct {
	Ready bool `json:"ready"` // it leads, or knows who does
}

// PeerIndex answers GET /v1/peer/index.
type PeerIndex struct {
	Events uint64 `json:"events"` // how many there are: the index the next one will have
}

// PeerSum answers GET /v1/peer/sum: the end of the chain that every broker makes of its events. Equal sums, equal events.
type PeerSum struct {
	Sum statement.Hash `json:"sum"`
}

// PeerEvents answers GET /v1/peer/events: some events in order, none when there are none.
type PeerEvents struct {
	Events [][]byte `json:"events"` // each an event's bytes, in base64
}
