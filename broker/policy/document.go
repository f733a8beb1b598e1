package policy

import (
	"slices"

	"pim-ssh/broker/statement"
)

// GroupName names a group of people: ^[a-z][a-z0-9-]{0,62}$, and never the name of a person.
type GroupName string

// Name is a group or a person, as written in a role.
type Name string

// Document is one revision of the policy: the JSON object that stewards sign. Every field is always written and the
// field order is frozen, so that one document has exactly one spelling. Every list is a set: sorted, each member once.
type Document struct {
	V         int                              `json:"v"`        // 1, or Version once it says what version 1 has no words for
	Kind      statement.Kind                   `json:"kind"`     // statement.KindPolicy
	Revision  uint64                           `json:"revision"` // 1, 2, 3 …
	Previous  string                           `json:"previous"` // hash of the revision before, 64 hex digits; "" for the first
	Expires   statement.Time                   `json:"expires"`  // past it nothing starts but break-glass
	People    map[statement.Person]PersonEntry `json:"people"`
	Groups    map[GroupName][]statement.Person `json:"groups"`
	Stewards  Stewards                         `json:"stewards"`
	Operators []statement.Person               `json:"operators"` // may enrol and remove hosts, and revoke
	Auditors  []statement.Person               `json:"auditors"`  // may read everything
	Brokers   map[statement.BrokerName]Broker  `json:"brokers"`
	Roles     map[statement.RoleName]Role      `json:"roles"`

	owners map[statement.Key]statement.Person // by key; nil in a document that nobody parsed
}

// Version is the newest version of a document. One of version 1 has none of the fields that later versions brought, and is
// judged as the builds judged it that knew no other.
const Version = 2

// PersonEntry is what the policy knows about one person.
type PersonEntry struct {
	Keys    []statement.Key   `json:"keys"`    // any one of them speaks for the person; at least one
	Account statement.Account `json:"account"` // the person's own login on every host
}

// Stewards may sign the next revision: Threshold distinct people of People, however many keys each has.
type Stewards struct {
	Threshold int                `json:"threshold"`
	People    []statement.Person `json:"people"`
}

// Broker is one member of the cluster.
type Broker struct {
	Address  string        `json:"address"`  // host:port that people, hosts and brokers dial
	Identity statement.Key `json:"identity"` // ssh-ed25519: its TLS and statement key
	CA       statement.Key `json:"ca"`       // signs certificates, never a security key
	Log      statement.Key `json:"log"`      // ssh-ed25519: signs checkpoints of the record and nothing else
}

// Role is a named bundle: where, as whom, who may ask, who must say yes, for how long.
type Role struct {
	Hosts     Selector            `json:"hosts"`
	Accounts  []statement.Account `json:"accounts"` // SSH logins
	Sudo      []SudoRule          `json:"sudo"`     // one rule for each account run as, sorted by it
	Eligible  []Name              `json:"eligible"` // who may ask
	Approvals Approvals           `json:"approvals"`
	Longest   statement.Seconds   `json:"longest"` // no window is longer
	Default   statement.Seconds   `json:"default"` // when a request names no duration
	Pending   statement.Seconds   `json:"pending"` // an unanswered request lives this long
	Offline   Offline             `json:"offline"`
	Permit    []string            `json:"permit"` // ssh permissions beyond a pty; none is enforced yet, so it is empty

	// From version 2 on, each left out while it is zero.
	Dated          []Eligibility `json:"dated,omitempty"`          // who may ask besides Eligible: for a while, or on some hosts
	Active         []Eligibility `json:"active,omitempty"`         // for whom the stewards' signatures are approval and second factor
	And            []Part        `json:"and,omitempty"`            // what the quorum needs beside Approvals
	Fallback       []Fallback    `json:"fallback,omitempty"`       // who may decide once nobody else has for a while, the earliest first
	Factors        Factors       `json:"factors,omitzero"`         // beside a signature
	ReasonLeast    int           `json:"reason_least,omitzero"`    // a reason has so many characters or more
	ApproverReason bool          `json:"approver_reason,omitzero"` // a yes without a reason does not count
	Ticket         string        `json:"ticket,omitzero"`          // RE2 that the whole ticket matches; none: a ticket is as one likes
	Budget         Budget        `json:"budget,omitzero"`          // zero: none
	Emergency      bool          `json:"emergency,omitzero"`       // opens at once and alarms; who would approve reviews it afterwards
	PlainKey       bool          `json:"plain_key,omitzero"`       // may open without approval for a signature without touch
	Hours          *Hours        `json:"hours,omitzero"`           // brokers' word
	Networks       []string      `json:"networks,omitempty"`       // CIDRs that people ask and decide from; brokers' word
	Hook           *Hook         `json:"hook,omitzero"`            // brokers' word
}

// SudoRule lets the holder run Commands as the account As.
type SudoRule struct {
	As       statement.Account `json:"as"`
	Commands []Command         `json:"commands"` // only ALL, or exact commands
}

// Approvals says what a request needs: either None, or Count distinct people of From, never counting the asker.
// The zero value is neither, and no request can satisfy it.
type Approvals struct {
	None  bool   `json:"none"`
	Count int    `json:"count"`
	From  []Name `json:"from"`
}

// OfflineMode says how long a cut-off host goes on starting sessions.
type OfflineMode string

// The closed set of offline modes. The zero value is none of them; judges treat it as OfflineStrict.
const (
	OfflineStrict OfflineMode = "strict" // no start without a fresh word from a broker
	OfflineGrace  OfflineMode = "grace"  // starts go on for Offline.Grace after the last fresh word
	OfflineWindow OfflineMode = "window" // starts go on to the window's end
)

// Offline is a role's staleness bound. Grace is set with OfflineGrace only.
type Offline struct {
	Mode  OfflineMode       `json:"mode"`
	Grace statement.Seconds `json:"grace"`
}

// Selector says which hosts a role reaches: any host, hosts by name, or hosts that carry every one of Labels. Exactly
// one of the three is given; the zero value selects no host.
type Selector struct {
	Any    bool                 `json:"any"`
	Names  []statement.HostName `json:"names"`
	Labels map[string]string    `json:"labels"`
}

// Selects reports whether the selector covers a host with this name and these labels. A label the host does not
// carry never matches, not even an empty value. Names and Labels together (which Check refuses) must both match.
func (s Selector) Selects(name statement.HostName, labels map[string]string) bool {
	if s.Any {
		return true
	}
	if len(s.Names) == 0 && len(s.Labels) == 0 {
		return false
	}
	if len(s.Names) > 0 && !slices.Contains(s.Names, name) {
		return false
	}
	for key, want := range s.Labels {
		if got, carried := labels[key]; !carried || got != want {
			return false
		}
	}
	return true
}
