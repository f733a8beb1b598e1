package broker

import (
	"cmp"
	"maps"
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Keep is how long, in seconds, what is over stays readable, and a repeated statement gets its first outcome.
const Keep statement.Seconds = 60 * 60

// State is the fold of the audit log: what brokers must know to decide, and never history. Only Evolve changes it. It
// is not safe for concurrent use: whoever owns it lets no reader in while it evolves.
type State struct {
	index    uint64
	now      statement.Time
	chain    policy.Chain
	adopted  []uint64 // adopted[i] is the index of the event that adopted revision i+1
	forked   uint64   // the revision that was signed twice, while it is the newest; else 0
	requests map[Stem]*Request
	hosts    map[statement.HostName]*Enrolled
	seen     map[statement.Hash]*seen
	cluster  cluster
	factors  map[statement.Person]*factor
	spent    map[spender]*spent
	reviews  map[GrantID]Review
	renewals map[spender]Renewal

	// What follows is derived from the above and never encoded.
	open       map[Stem]statement.Time       // requests without ClosedAt, and when time alone closes them
	openBy     map[statement.Person]int      // how many of open each person asked for
	wishes     map[wish]Stem                 // pending requests by what they ask for
	reach      map[statement.HostName][]Stem // requests by each host they name, in the order filed
	tokens     map[statement.Hash]statement.HostName
	identities map[statement.Key]statement.HostName
	sweepAt    statement.Time // no entry is due to be dropped before now passes this
}

// seen is the first outcome of a statement.
type seen struct {
	Hash    statement.Hash `json:"hash"`
	At      statement.Time `json:"at"`
	Outcome Outcome        `json:"outcome"`
	Refused *refused       `json:"refused"`

	sum statement.Hash // of the encoding
}

type refused struct {
	Kind Kind   `json:"kind"`
	Msg  string `json:"msg"`
	Hint string `json:"hint"`
}

// never is later than every time that parses.
const never statement.Time = 1 << 62

// NewState returns the state before the first event: it denies everything but a first policy.
func NewState() *State {
	return &State{
		requests: map[Stem]*Request{}, hosts: map[statement.HostName]*Enrolled{}, seen: map[statement.Hash]*seen{},
		open: map[Stem]statement.Time{}, openBy: map[statement.Person]int{}, wishes: map[wish]Stem{}, reach: map[statement.HostName][]Stem{},
		tokens: map[statement.Hash]statement.HostName{}, identities: map[statement.Key]statement.HostName{},
		factors: map[statement.Person]*factor{}, spent: map[spender]*spent{}, reviews: map[GrantID]Review{}, renewals: map[spender]Renewal{},
		sweepAt: never,
	}
}

// Index returns the index the next event will have: the number of events folded so far.
func (s *State) Index() uint64 { return s.index }

// Now returns the time of the latest event. It never goes back, but to the operator's clock when an epoch begins.
func (s *State) Now() statement.Time { return s.now }

// Due reports whether time alone has ended a request or a grant that the log does not yet say is over: a Tick would
// record it.
func (s *State) Due(now statement.Time) bool {
	for _, at := range s.open {
		if now >= at {
			return true
		}
	}
	return false
}

// Chain returns the policy chain.
func (s *State) Chain() policy.Chain { return s.chain }

// Forked returns the policy revision that was signed twice, while nothing is granted because of it; else 0.
func (s *State) Forked() uint64 { return s.forked }

// Request returns a request by its id.
func (s *State) Request(id RequestID) (Request, bool) {
	r, ok := s.requests[id.Stem()]
	if !ok {
		return Request{}, false
	}
	return *r, true
}

// Requests returns every request held, with its grant if it became one, in the order filed.
func (s *State) Requests() []Request {
	all := make([]Request, 0, len(s.requests))
	for _, r := range s.requests {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Request) int { return cmp.Compare(a.Index, b.Index) })
	return all
}

// RequestsAt returns every request held that names a host, in the order filed.
func (s *State) RequestsAt(host statement.HostName) []Request {
	all := make([]Request, len(s.reach[host]))
	for i, stem := range s.reach[host] {
		all[i] = *s.requests[stem]
	}
	return all
}

// Grants returns every request held that became a grant, in the order filed.
func (s *State) Grants() []Request {
	return slices.DeleteFunc(s.Requests(), func(r Request) bool { return r.Grant == nil })
}

// Inbox returns the requests that a person can decide at now, in the order filed.
func (s *State) Inbox(person statement.Person, now statement.Time) []Request {
	doc := s.chain.Current()
	var inbox []Request
	for stem := range s.open {
		r := s.requests[stem]
		if r.StateAt(now) == StatePending && mayDecide(doc, r.Body, person, now) == nil && !r.decidedAt(doc, person, now) {
			inbox = append(inbox, *r)
		}
	}
	slices.SortFunc(inbox, func(a, b Request) int { return cmp.Compare(a.Index, b.Index) })
	return inbox
}

// Needs returns what a pending request still lacks under the current policy at now; nothing for any other.
func (s *State) Needs(id RequestID, now statement.Time) []Need {
	r, ok := s.requests[id.Stem()]
	if !ok || r.State != StatePending {
		return nil
	}
	doc := s.chain.Current()
	role, known := doc.Roles[r.Body.Role]
	if !known {
		return nil
	}
	t := tallyOf(doc, r.Body, role, r.decided)
	return append(t.lacking(now), t.extra(r.More, now)...)
}

// Hosts returns every enrolled host, sorted by name.
func (s *State) Hosts() []Enrolled {
	all := make([]Enrolled, 0, len(s.hosts))
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		all = append(all, *s.hosts[name])
	}
	return all
}

// Host returns an enrolled host by its name.
func (s *State) Host(name statement.HostName) (Enrolled, bool) {
	h, ok := s.hosts[name]
	if !ok {
		return Enrolled{}, false
	}
	return *h, true
}

// HostOf returns the enrolled host whose identity key this is.
func (s *State) HostOf(identity statement.Key) (Enrolled, bool) {
	return s.Host(s.identities[identity])
}

// before returns the first outcome of a statement that was decided before.
func (s *State) before(o statement.Opened) (Outcome, error, bool) {
	if first, ok := s.seen[o.Hash]; ok {
		return first.Outcome, first.Refused.err(), true
	}
	h, enrolled := s.hosts[o.Body.Header().Host]
	switch {
	case enrolled && h.Enrolment.Hash() == o.Hash:
		return Outcome{Index: h.Index}, nil, true
	case enrolled && h.Last == o.Hash:
		return Outcome{Index: h.Reported}, nil, true
	default:
		return Outcome{}, nil, false
	}
}

func (r *refused) err() error {
	if r == nil {
		return nil
	}
	return &Error{Kind: r.Kind, Msg: r.Msg, Hint: r.Hint}
}

// adoption returns the outcome of the policy with this hash, which the chain holds.
func (s *State) adoption(hash statement.Hash) Outcome {
	for i, p := range s.chain.Proofs() {
		if p.Hash() == hash {
			return Outcome{Index: s.adopted[i]}
		}
	}
	return Outcome{}
}
