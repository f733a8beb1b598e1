package broker

import (
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// RequestState is where a request stands. All but StatePending are terminal.
type RequestState string

// The closed set of request states.
const (
	StatePending   RequestState = "pending"
	StateApproved  RequestState = "approved"
	StateDenied    RequestState = "denied"
	StateWithdrawn RequestState = "withdrawn"
	StateExpired   RequestState = "expired"
)

// Request is one filed request as the state holds it, with the grant it became. Read only.
type Request struct {
	ID       RequestID        `json:"id"`
	Index    uint64           `json:"index"` // of its RequestFiled
	FiledAt  statement.Time   `json:"filed_at"`
	State    RequestState     `json:"state"`
	ClosedAt statement.Time   `json:"closed_at,omitzero"` // once nothing more can happen to it, or to its grant
	EndedBy  statement.Person `json:"ended_by,omitzero"`  // who withdrew, returned or revoked; none when a policy did
	Dossier  Dossier          `json:"dossier"`
	Grant    *Grant           `json:"grant"` // null until approved
	Issued   []Issued         `json:"issued"`
	Waiting  bool             `json:"waiting,omitzero"` // its window is to begin later, and it is judged again then
	More     int              `json:"more,omitzero"`    // approvals that a hook demands beside the role's own
	Coded    bool             `json:"coded,omitzero"`   // it was asked with a code, or soon after one

	Body    statement.Request `json:"-"` // what Dossier.Request says
	decided []decided         // in the order filed
	sum     statement.Hash    // of the encoding
}

// decided is who filed a decision, and until when it may count.
type decided struct {
	person         statement.Person
	created, until statement.Time
}

func decidedBy(p statement.Proof) decided {
	d := bodyOf[statement.Decision](p)
	return decided{d.Person, d.Created, d.NotAfter}
}

// decidedAt reports whether a decision of the person still counts.
func (r *Request) decidedAt(doc *policy.Document, person statement.Person, now statement.Time) bool {
	return slices.ContainsFunc(r.decided, func(d decided) bool { return d.person == person && now <= valid(doc, d.until) })
}

// maxAgain is how often one person may approve one request, each time because the last one's not_after had passed: every decision
// stays in the dossier and is verified with each that follows.
const maxAgain = 10

func (r *Request) decisionsOf(person statement.Person) int {
	n := 0
	for _, d := range r.decided {
		if d.person == person {
			n++
		}
	}
	return n
}

// Issued is one certificate that may be signed: Serial is the index of the event that says so.
type Issued struct {
	Key    statement.Key `json:"key"`
	Serial uint64        `json:"serial"`
}

// StateAt returns the request's state at now: a pending request expires by itself, also before that is recorded.
func (r Request) StateAt(now statement.Time) RequestState {
	if r.State == StatePending && now > r.Body.Expires {
		return StateExpired
	}
	return r.State
}

// end is the last moment at which the request or its grant could matter.
func (r Request) end() statement.Time {
	if r.Grant != nil {
		return r.Grant.Until
	}
	return r.Body.Expires
}

// live reports whether the request became a grant that now or later still opens something.
func (r Request) live(now statement.Time) bool {
	if r.Grant == nil {
		return false
	}
	phase := r.Grant.Phase(now)
	return phase == PhaseWaiting || phase == PhaseActive
}

// due is when time alone closes an open request, or the grant it became.
func (r *Request) due() statement.Time {
	switch {
	case r.Grant != nil && r.Waiting:
		return r.Grant.From
	case r.Grant != nil:
		return r.Grant.Until
	default:
		return r.Body.Expires + 1
	}
}

// fileRequest decides a request for a role.
func (t *turn) fileRequest(r statement.Request, o statement.Opened, p statement.Proof) error {
	a := asked{Request: r, hash: o.Hash, signer: o.Signers[0]}
	id := a.stem().Request()
	if _, filed := t.s.requests[id.Stem()]; filed {
		return Refuse(Conflict, "pim-ssh status "+string(id), "%s was filed before", id)
	}
	if err := t.mayFile(a); err != nil {
		return err
	}
	t.add(&RequestFiled{Request: id, Person: r.Person, Role: r.Role, Judged: t.judged, Proof: p})
	w, err := weighAsked(t.chain, a, nil)
	if err != nil {
		return err
	}
	if w.missing() > 0 || t.judged.more() > 0 {
		return nil
	}
	return t.open(w, Dossier{Request: p}, o.Hash)
}

// mayFile holds a request to the limits that brokers set, beside those that every judge sets.
func (t *turn) mayFile(a asked) error {
	role, err := standing(t.chain.Current(), a)
	if err != nil {
		return err
	}
	switch {
	case a.Duration > role.Longest:
		return Refuse(Denied, "ask again with --for "+role.Longest.Std().String(), "%s is longer than %s, the longest that role %s allows",
			a.Duration.Std(), role.Longest.Std(), a.Role)
	case a.Expires <= t.now:
		return Refuse(Expired, "pim-ssh request "+string(a.Role), "the request expired at %s", a.Expires)
	case a.Expires > a.Created.Add(role.Pending):
		return Refuse(Denied, "update pim-ssh", "the request would stay open until %s, but role %s allows %s", a.Expires, a.Role, role.Pending.Std())
	}
	entries := t.chain.Current().Entries(a.Person, a.Role)
	for _, name := range a.Hosts {
		host, enrolled := t.s.hosts[name]
		if !enrolled {
			return Refuse(Missing, "pim-ssh roles", "no host %s is enrolled", name)
		}
		if !role.Hosts.Selects(name, host.Labels) {
			return Refuse(Denied, "pim-ssh roles", "role %s does not reach host %s", a.Role, name)
		}
		if !slices.ContainsFunc(entries, func(e policy.Eligibility) bool { return e.Covers(name, host.Labels, a.begins()) }) {
			return Refuse(Missing, "pim-ssh roles", "%s is not eligible for role %s on host %s at %s", a.Person, a.Role, name, a.begins())
		}
	}
	if err := t.notTwice(a); err != nil {
		return err
	}
	if err := t.notTooMany(a.Person); err != nil {
		return err
	}
	if err := t.reviewed(a.Person, role); err != nil {
		return err
	}
	return t.mayAsk(a, role)
}

// mayAsk holds a request to what rules 3 brought.
func (t *turn) mayAsk(a asked, role policy.Role) error {
	if err := t.mayExtend(a); err != nil {
		return err
	}
	if err := t.affords(a.Person, a.Role, role, a.Duration); err != nil {
		return err
	}
	if err := t.conditions(a.Role, role); err != nil {
		return err
	}
	if !t.chain.Current().ActiveFor(a.Person, a.Role, a.Hosts, a.begins()) {
		if err := t.proved(role.Factors.Ask, role.Factors.Fresh, a.Person, a.Code); err != nil {
			return err
		}
	}
	return t.hooked(a.Role, role)
}

// mayExtend holds an extension to a live grant of the asker's for the same role, without a gap and on no other hosts.
func (t *turn) mayExtend(a asked) error {
	if a.Extends == "" {
		return nil
	}
	id := GrantID(a.Extends)
	r, filed := t.s.requests[id.Stem()]
	if !filed || r.Grant == nil || r.Body.Person != a.Person {
		return Refuse(Missing, "pim-ssh status", "%s has no grant %s", a.Person, id)
	}
	if err := t.stillLive(r); err != nil {
		return err
	}
	again := "pim-ssh request " + string(a.Role) + " --why \"…\""
	switch {
	case r.Body.Role != a.Role:
		return Refuse(Invalid, again, "%s is a grant of role %s, not of %s", id, r.Body.Role, a.Role)
	case a.begins() > r.Grant.Until:
		return Refuse(Invalid, again, "%s lapses at %s, before this begins", id, r.Grant.Until)
	case slices.ContainsFunc(a.Hosts, func(h statement.HostName) bool { return !slices.Contains(r.Grant.Hosts, h) }):
		return Refuse(Invalid, again, "%s names hosts that %s is not for", a.stem().Request(), id)
	}
	return nil
}

// MaxOpen is how many requests of one person may be pending or live at once: each stays in every broker's memory, and a
// grant on its hosts, for as long as it lasts.
const MaxOpen = 200

func (t *turn) notTooMany(person statement.Person) error {
	if open := t.s.openBy[person]; open >= MaxOpen {
		return Refuse(Conflict, "pim-ssh status; then pim-ssh withdraw ID, or pim-ssh return ID", "%s has %d requests and grants open already", person, open)
	}
	return nil
}

// wish is what a request asks for; nobody has two pending requests for the same.
type wish struct {
	person statement.Person
	role   statement.RoleName
	hosts  statement.Hash // of the names, which contain no space
}

func wishOf(r statement.Request) wish {
	var names []byte
	for _, h := range r.Hosts {
		names = append(append(names, h...), ' ')
	}
	return wish{r.Person, r.Role, statement.HashOf(names)}
}

// notTwice refuses a second pending request for the same thing.
func (t *turn) notTwice(a asked) error {
	stem, wished := t.s.wishes[wishOf(a.Request)]
	if wished && t.s.requests[stem].StateAt(t.now) == StatePending {
		return Refuse(Conflict, "pim-ssh status "+string(stem.Request()), "%s asks for the same and is still pending", stem.Request())
	}
	return nil
}

// fileDecision decides an approver's yes or no.
func (t *turn) fileDecision(d statement.Decision, o statement.Opened, p statement.Proof) error {
	id := StemOf(d.Request).Request()
	r, err := t.requestFor(d.Person, id)
	if err != nil {
		return err
	}
	doc := t.chain.Current()
	if err := mayDecide(doc, r.Body, d.Person, d.Created); err != nil {
		return err
	}
	if err := t.stillPending(r); err != nil {
		return err
	}
	if r.decidedAt(doc, d.Person, t.now) {
		return Refuse(Conflict, "pim-ssh status "+string(id), "%s decided %s before", d.Person, id)
	}
	if r.decisionsOf(d.Person) >= maxAgain {
		return Refuse(Conflict, "pim-ssh deny "+string(id)+", or wait for the others", "%s decided %s %d times already", d.Person, id, maxAgain)
	}
	if err := t.mayApprove(r, d, o); err != nil {
		return err
	}
	t.add(&DecisionFiled{Request: id, Person: d.Person, Verdict: d.Verdict, Judged: t.judged, Proof: p})
	if d.Verdict != statement.Approve {
		t.add(&RequestDenied{Request: id, Person: d.Person})
		return nil
	}
	dossier := r.Dossier
	dossier.Decisions = append(slices.Clip(dossier.Decisions), p)
	w, err := weigh(t.chain, dossier)
	if err != nil {
		return err
	}
	if w.missing() > 0 || !w.more(max(r.More, t.judged.more()), t.now) {
		return nil
	}
	t.add(&RequestApproved{Request: id})
	return t.open(w, dossier, o.Hash)
}

// mayApprove holds a yes to what would make it count, so that an approver hears at once why it would not.
func (t *turn) mayApprove(r *Request, d statement.Decision, o statement.Opened) error {
	role := t.chain.Current().Roles[r.Body.Role]
	if d.Verdict != statement.Approve {
		return nil
	}
	if err := demanded(role, r.Body.Role, d, o); err != nil {
		return err
	}
	if err := t.conditions(r.Body.Role, role); err != nil {
		return err
	}
	if err := t.proved(role.Factors.Approve, role.Factors.Fresh, d.Person, d.Code); err != nil {
		return err
	}
	return t.hooked(r.Body.Role, role)
}

// requestFor finds a request that concerns the person; any other is as missing as one that never was.
func (t *turn) requestFor(person statement.Person, id RequestID) (*Request, error) {
	r, filed := t.s.requests[id.Stem()]
	if !filed || !Concerns(t.chain.Current(), r.Body, person) {
		return nil, Refuse(Missing, "pim-ssh status", "no request %s", id)
	}
	return r, nil
}

// stillPending reports why a request can no longer be decided or withdrawn.
func (t *turn) stillPending(r *Request) error {
	switch state := r.StateAt(t.now); state {
	case StatePending:
		return nil
	case StateExpired:
		return Refuse(Expired, "ask for a new request", "%s expired at %s", r.ID, r.Body.Expires)
	default:
		return Refuse(Conflict, "pim-ssh status "+string(r.ID), "%s is already %s", r.ID, state)
	}
}

// coded holds what was asked under an earlier policy to the code that the newest one demands.
func (t *turn) coded(w weighed) error {
	if r := t.s.requests[w.asked.stem()]; r == nil || r.Coded || w.role.Factors.Ask != policy.TOTP || w.unapproved() && !w.role.Unapproved() {
		return nil
	}
	return Refuse(Denied, "pim-ssh request "+string(w.asked.Role)+" --totp CODE", "%s was asked without a code, and role %s wants one now", w.asked.stem().Request(), w.asked.Role)
}

// open appends the grant that a dossier with a full quorum proves, and one certificate for each key it names.
func (t *turn) open(w weighed, d Dossier, by statement.Hash) error {
	g, err := w.grant(t.chain, d.Certificates)
	if err != nil {
		return err
	}
	if g.Until <= t.now {
		return Refuse(Expired, "pim-ssh request "+string(g.Role), "the window of %s was over at %s", g.ID, g.Until)
	}
	if err := t.affords(g.Person, g.Role, w.role, g.Until.Sub(g.From)); err != nil {
		return err
	}
	if err := t.coded(w); err != nil {
		return err
	}
	t.add(&GrantOpened{By: by, Grant: g})
	for _, key := range g.Keys {
		t.add(&CertificateIssued{Grant: g.ID, Key: key})
	}
	return nil
}
