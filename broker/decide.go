package broker

import (
	"errors"
	"fmt"
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Decided is what a command makes happen.
type Decided struct {
	Events  []Event // to be evolved in order, also when Decide refuses
	Outcome Outcome
}

// Outcome is the answer to a statement: the index of the event that took it and what it made or touched. A repeated
// statement gets its first outcome again.
type Outcome struct {
	Index   uint64    `json:"index"`
	Request RequestID `json:"request,omitzero"`
	Grant   GrantID   `json:"grant,omitzero"`
}

// Fresh is how old, in seconds, a statement may be when it is filed (reports excepted).
const Fresh statement.Seconds = 60

// Decide says what a command makes happen in a state, and changes nothing. Now is the later of the state's and the
// command's time, stamped on every event.
//
// A refusal is an *Error. When the statement is authentic and fresh, a StatementRefused event comes with it: evolve the
// events whatever the error is. Anything else (bad signatures, unknown signers, another deployment, stale, Unavailable)
// leaves no event. An error for which MustStop holds stops the broker.
func Decide(s *State, c Command) (Decided, error) { return decide(s, c, (*turn).rejudge) }

// Foresee is Decide for those who only ask whether anything would happen: of a policy, it leaves out what follows for
// requests and grants, all of which Decide proves again.
func Foresee(s *State, c Command) (Decided, error) {
	return decide(s, c, func(*turn, statement.Hash) {})
}

func decide(s *State, c Command, followed func(t *turn, by statement.Hash)) (Decided, error) {
	if c.V != CommandVersion {
		return Decided{}, fmt.Errorf("command version %d: %w", c.V, ErrUnknownVersion)
	}
	if err := s.checkRules(c); err != nil {
		return Decided{}, err
	}
	t := &turn{s: s, chain: s.chain, now: max(s.now, c.At), rules: c.Rules, followed: followed}
	if c.Rules > 2 {
		t.judged = c.Judged
	}
	var out Outcome
	var err error
	switch c.Kind {
	case FileRequest, FileDecision, EndAccess, IssueCertificate, EnrolHost, ReportHost, ChangeFactor, ReviewGrant, AskRenewal:
		out, err = t.statement(c)
	case ChangeCluster, RaiseRules:
		out, err = t.cluster(c)
	case BeginEpoch:
		out, err = t.beginEpoch(c)
	case AdoptPolicy:
		out, err = t.adoptPolicy(c)
	case Tick:
		out, err = t.tick(c.State)
	default:
		err = fmt.Errorf("command kind %.40q: %w", c.Kind, ErrUnknownVersion)
	}
	return Decided{Events: t.events, Outcome: out}, err
}

// turn is one command being decided: it reads the state and collects events.
type turn struct {
	s      *State
	chain  policy.Chain // the state's, or the one just adopted
	now    statement.Time
	rules  int // the command's: those in force, or the next for one that raises to them
	judged Judged
	events []Event

	followed func(t *turn, by statement.Hash) // what a policy does to requests and grants
}

// add stamps the next event.
func (t *turn) add(e Event) {
	e.stamp(EventHead{V: EventVersion, Index: t.s.index + uint64(len(t.events)), At: t.now, Kind: e.kind()})
	t.events = append(t.events, e)
}

// statement decides what a person or host signed.
func (t *turn) statement(c Command) (Outcome, error) {
	o, err := statement.Open(c.Proof)
	if err != nil {
		return Outcome{}, Refuse(Invalid, "", "%w", err)
	}
	if kind, err := commandKind(o.Body); err != nil || kind != c.Kind {
		return Outcome{}, Refuse(Invalid, "", "a %s command carries a %s statement", c.Kind, o.Body.Header().Kind)
	}
	if err := t.worded(o.Body); err != nil {
		return Outcome{}, err
	}
	if out, err, seen := t.s.before(o); seen {
		return out, err
	}
	if err := t.authentic(o); err != nil {
		return Outcome{}, err
	}
	if err := t.fresh(o.Body); err != nil {
		return Outcome{}, err
	}
	err = t.take(o, c.Proof)
	if err != nil && KindOf(err) == Unavailable {
		t.events = nil
		return Outcome{}, err
	}
	if err != nil {
		t.refuse(o, c.Proof, err)
	}
	return outcomeOf(o.Hash, t.events), err
}

// authentic reports why a statement is not the word of the person or host in its head.
func (t *turn) authentic(o statement.Opened) error {
	h := o.Body.Header()
	if h.Deployment != t.chain.Deployment() {
		return Refuse(Denied, "pim-ssh join", "the %s statement is for another deployment", h.Kind)
	}
	switch body := o.Body.(type) {
	case statement.Enrolment:
		return tokenSigner(t.chain, body, t.now)
	case statement.Report:
		host, enrolled := t.s.hosts[body.Host]
		if !enrolled || host.Identity != o.Signers[0].Key {
			return Refuse(Denied, "pim-hostd enrol", "the report is not signed by the identity of host %s", body.Host)
		}
		return nil
	default:
		return speaks(t.chain.Current(), o)
	}
}

// fresh holds a statement to the moment it was made for, so that none is kept back and used later.
func (t *turn) fresh(b statement.Body) error {
	h := b.Header()
	switch {
	case h.Created > t.now.Add(MaxAhead):
		return Refuse(Denied, "check the clock of this machine", "the %s statement was made at %s, which is in the future", h.Kind, h.Created)
	case h.Kind == statement.KindReport:
		return t.inOrder(b.(statement.Report))
	case t.now > h.Created.Add(Fresh) || t.now > h.NotAfter:
		return Refuse(Expired, "type the command again", "the %s statement of %s is too old at %s", h.Kind, h.Created, t.now)
	}
	return nil
}

// take decides an authentic, fresh statement.
func (t *turn) take(o statement.Opened, p statement.Proof) error {
	if err := follows(t.chain, o.Body.Header()); err != nil {
		return err
	}
	if err := t.granting(o.Body); err != nil {
		return err
	}
	switch body := o.Body.(type) {
	case statement.Request:
		return t.fileRequest(body, o, p)
	case statement.Decision:
		return t.fileDecision(body, o, p)
	case statement.End:
		return t.endAccess(body, p)
	case statement.Certificate:
		return t.issueCertificate(body, p)
	case statement.Enrolment:
		return t.enrolHost(body, p)
	case statement.Report:
		return t.reportHost(body, p)
	case statement.Cluster:
		return t.changeCluster(body, p)
	case statement.Factor:
		return t.changeFactor(body, p)
	case statement.Review:
		return t.reviewGrant(body, p)
	case statement.Renewal:
		return t.askRenewal(body, p)
	default:
		return Refuse(Invalid, "", "a %s statement is nothing to file", body.Header().Kind)
	}
}

// granting refuses what could lead to access while the policy is expired or forked. Ends, reports and what keeps the
// cluster up always pass.
func (t *turn) granting(b statement.Body) error {
	switch b.(type) {
	case statement.End, statement.Report, statement.Cluster, statement.Review:
		return nil
	}
	if d, decides := b.(statement.Decision); decides && d.Verdict == statement.Deny {
		return nil
	}
	if err := t.s.ofThisEpoch(b.Header()); err != nil {
		return err
	}
	if expires := t.chain.Current().Expires; t.now >= expires {
		return Refuse(Denied, "ask a steward for a new revision: pim-ssh policy sign", "the policy expired at %s", expires)
	}
	if t.s.forked != 0 {
		return Refuse(Denied, "ask the stewards to sign the next revision", "policy revision %d was signed twice, with different words", t.s.forked)
	}
	return nil
}

// refuse replaces what was decided so far by the record of a refusal.
func (t *turn) refuse(o statement.Opened, p statement.Proof, err error) {
	h := o.Body.Header()
	event := &StatementRefused{Hash: o.Hash, Statement: h.Kind, Person: h.Person, Host: h.Host, Why: err.Error(), Judged: t.judged, Proof: p}
	var refusal *Error
	if errors.As(err, &refusal) {
		event.Error, event.Hint = refusal.Kind, refusal.Hint
	}
	t.events = nil
	t.add(event)
}

// tick records what time alone has ended, and compares this state with the leader's.
func (t *turn) tick(leader *StateAt) (Outcome, error) {
	if leader != nil && (leader.Index > t.s.index || leader.Index == t.s.index && leader.Digest != t.s.Digest()) {
		return Outcome{}, fmt.Errorf("at index %d: %w", leader.Index, ErrDiverged)
	}
	var due []Stem
	for stem, at := range t.s.open {
		if t.now >= at {
			due = append(due, stem)
		}
	}
	slices.Sort(due)
	for _, stem := range due {
		t.addDue(t.s.requests[stem])
	}
	return Outcome{Index: t.s.index}, nil
}

// addDue records what time alone has made of a request.
func (t *turn) addDue(r *Request) {
	switch {
	case r.Grant == nil:
		t.add(&RequestExpired{Request: r.ID})
	case t.now >= r.Grant.Until:
		t.add(&GrantLapsed{Grant: r.Grant.ID})
	default:
		t.start(r)
	}
}

// start judges a grant again whose window was asked to begin later.
func (t *turn) start(r *Request) {
	err := t.granting(r.Body)
	if err == nil {
		_, err = Prove(t.chain, r.Dossier)
	}
	if err != nil {
		t.add(&GrantRevoked{Grant: r.Grant.ID, Why: err.Error()})
		return
	}
	t.add(&GrantStarted{Grant: r.Grant.ID})
}

// worded refuses words that the rules in force do not know, as a build refuses them that knows no other rules.
func (t *turn) worded(b statement.Body) error {
	unknown := false
	switch b := b.(type) {
	case statement.Report:
		if b.Epoch != 0 && t.rules < 2 {
			return Refuse(Invalid, "", "rules 1 are in force, and know no epochs")
		}
	case statement.Request:
		unknown = b.Extends != "" || b.Code != ""
	case statement.Decision:
		unknown = b.Code != ""
	case statement.Factor, statement.Review, statement.Renewal:
		unknown = true
	}
	if unknown && t.rules < 3 {
		return Refuse(Invalid, "ask an operator: pim-ssh cluster rules 3", "rules %d are in force, and do not know what this %s says", t.rules, b.Header().Kind)
	}
	return nil
}
