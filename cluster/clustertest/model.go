package clustertest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// What the model believes of time.
const (
	fresh    = 60      // a statement is taken within this many seconds of its making
	kept     = 60 * 60 // what is over stays readable so long
	operator = statement.Person("dave")
	auditor  = statement.Person("frank")
)

// job is a role as DESIGN §9 writes it down.
type job struct {
	hosts     []statement.HostName
	eligible  []statement.Person
	approvers []statement.Person
	count     int // approvals it takes
	longest   statement.Seconds
}

// jobs are the lab's roles, on the hosts that a run enrols. Nothing here is read from a policy.
var jobs = map[statement.RoleName]job{
	"db-admin":   {[]statement.HostName{"db1", "db2"}, []statement.Person{"alice", "erin"}, []statement.Person{"bob", "carol", "gwen"}, 1, 4 * 3600},
	"root":       {[]statement.HostName{"db1", "db2", "web1"}, []statement.Person{"alice", "bob"}, []statement.Person{"bob", "carol", "gwen"}, 2, 3600},
	"web-deploy": {[]statement.HostName{"web1"}, []statement.Person{"alice", "erin"}, nil, 0, 8 * 3600},
}

var enrolled = []statement.HostName{"db1", "db2", "web1"}

// approval is a yes that counts.
type approval struct {
	by statement.Person
	at statement.Time
}

// story is one request as the model has it. It is never changed: a step makes another.
type story struct {
	body      statement.Request
	state     broker.RequestState
	decided   []statement.Person
	approvals []approval
	hosts     []statement.HostName
	duration  statement.Seconds
	until     statement.Time // of the grant
	ended     broker.EndedHow
}

// answered is how a statement was answered when it was decided.
type answered struct {
	known bool // somebody was told
	told  told
	lo    statement.Time
}

// world is everything the model knows of the requests for one wish.
type world struct {
	stories map[statement.Hash]*story
	firsts  map[statement.Hash]answered
	last    uint64 // the index of the latest event that somebody was told
	key     string
}

func newWorld(stories map[statement.Hash]*story, firsts map[statement.Hash]answered, last uint64) *world {
	var b strings.Builder
	hashes := slices.SortedFunc(maps.Keys(stories), func(x, y statement.Hash) int { return slices.Compare(x[:], y[:]) })
	for _, hash := range hashes {
		s := stories[hash]
		fmt.Fprintf(&b, "%x %s %v %v %v %d %d %s;", hash[:6], s.state, s.decided, s.approvals, s.hosts, s.duration, s.until, s.ended)
	}
	for _, hash := range slices.SortedFunc(maps.Keys(firsts), func(x, y statement.Hash) int { return slices.Compare(x[:], y[:]) }) {
		fmt.Fprintf(&b, "%x%t%s%d%s;", hash[:6], firsts[hash].known, firsts[hash].told.kind, firsts[hash].told.index, firsts[hash].told.grant)
	}
	fmt.Fprint(&b, last)
	return &world{stories, firsts, last, b.String()}
}

// model is the specification that a history of one wish is held to.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{newWorld(nil, nil, 0)} },
		Step: func(state, input, _ any) []any {
			var next []any
			for _, w := range state.(*world).step(input.(*Op)) {
				next = append(next, w)
			}
			return next
		},
		Equal:             func(a, b any) bool { return a.(*world).key == b.(*world).key },
		DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
	return m.ToModel()
}

// operations are the ops as porcupine reads them. What nobody knows may happen at any time later, or never.
func operations(ops []*Op) []porcupine.Operation {
	var all []porcupine.Operation
	for _, op := range ops {
		back := op.Return
		if back == 0 && op.Body == nil {
			continue // a read that was not answered is none
		}
		if back == 0 {
			back = math.MaxInt64
		}
		all = append(all, porcupine.Operation{Input: op, Call: op.Call, Return: back})
	}
	return all
}

// outcome is one way in which a statement may be decided.
type outcome struct {
	kind     broker.Kind
	grants   bool   // it says which grant
	becomes  *story // nil: nothing happens to the request
	unstored bool   // the refusal leaves no record: the same statement may be decided anew
}

// step returns what may be after an operation: nothing when the operation is not allowed.
func (w *world) step(op *Op) []*world {
	if op.Body == nil {
		if w.shows(op) {
			return []*world{w}
		}
		return nil
	}
	if before, decided := w.firsts[op.Proof]; decided {
		return w.repeat(op, before)
	}
	var next []*world
	for _, o := range w.outcomes(op) {
		if op.Return == 0 || w.fits(o, op) {
			next = append(next, w.after(o, op))
		}
	}
	if op.Return == 0 {
		next = append(next, w) // never
	}
	return next
}

// repeat holds a statement that was decided before to its first answer.
func (w *world) repeat(op *Op, before answered) []*world {
	switch {
	case op.Return == 0 || op.Hi > before.lo+kept:
		return []*world{w}
	case !before.known && op.Told.kind == before.told.kind:
		return []*world{w.tell(op, op.Told)} // nobody was told the first time
	case op.Told.kind == before.told.kind && op.Told.message == before.told.message && op.Told.index == before.told.index && op.Told.grant == before.told.grant:
		return []*world{w}
	default:
		return nil
	}
}

func (w *world) tell(op *Op, t told) *world {
	firsts := maps.Clone(w.firsts)
	firsts[op.Proof] = answered{true, t, op.Lo}
	return newWorld(w.stories, firsts, w.last)
}

// fits reports whether what somebody was told is this outcome.
func (w *world) fits(o outcome, op *Op) bool {
	if op.Told.kind != o.kind {
		return false
	}
	if o.kind != "" {
		return true
	}
	id := broker.StemOf(op.About)
	grant := broker.GrantID("")
	if o.grants {
		grant = id.Grant()
	}
	return op.Told.index > w.last && op.Told.request == id.Request() && op.Told.grant == grant
}

// after is the world once an outcome has happened.
func (w *world) after(o outcome, op *Op) *world {
	if o.unstored {
		return w
	}
	stories, firsts, last := w.stories, maps.Clone(w.firsts), w.last
	if firsts == nil {
		firsts = map[statement.Hash]answered{}
	}
	t := op.Told
	if op.Return == 0 {
		t = told{kind: o.kind}
	}
	firsts[op.Proof] = answered{op.Return != 0, t, op.Lo}
	if o.becomes != nil {
		stories = maps.Clone(stories)
		if stories == nil {
			stories = map[statement.Hash]*story{}
		}
		stories[op.About] = o.becomes
		last = max(last, t.index)
	}
	return newWorld(stories, firsts, last)
}

// outcomes are all the ways in which a statement may be decided, between Lo and Hi by the clocks of those who decide.
func (w *world) outcomes(op *Op) []outcome {
	var may []outcome
	head := op.Body.Header()
	if op.Hi > head.Created+fresh {
		may = append(may, outcome{kind: broker.Expired, unstored: true})
	}
	if head.Created > op.Lo+fresh {
		may = append(may, outcome{kind: broker.Denied, unstored: true})
	}
	switch body := op.Body.(type) {
	case statement.Request:
		return append(may, w.requested(op, body)...)
	case statement.Decision:
		return append(may, w.decided(op, body)...)
	case statement.End:
		return append(may, w.ended(op, body)...)
	case statement.Certificate:
		return append(may, w.certified(op, body)...)
	default:
		return may
	}
}

func refused(kind broker.Kind) outcome { return outcome{kind: kind} }

// requested: only who is eligible, for hosts that the role reaches, no longer than it allows, and not what is already asked.
func (w *world) requested(op *Op, r statement.Request) []outcome {
	role := jobs[r.Role]
	var may []outcome
	never := false
	no := func(when bool, kind broker.Kind) {
		if when {
			never = true
			may = append(may, refused(kind))
		}
	}
	no(!slices.Contains(role.eligible, r.Person), broker.Missing)
	no(r.Duration > role.longest, broker.Denied)
	for _, host := range r.Hosts {
		no(!slices.Contains(enrolled, host), broker.Missing)
		no(slices.Contains(enrolled, host) && !slices.Contains(role.hosts, host), broker.Denied)
	}
	no(op.Lo >= r.Expires, broker.Expired)
	for _, other := range w.stories {
		if other.state != broker.StatePending {
			continue
		}
		if op.Lo <= other.body.Expires {
			may = append(may, refused(broker.Conflict))
		}
		never = never || op.Hi <= other.body.Expires
	}
	if op.Hi >= r.Expires {
		may = append(may, refused(broker.Expired))
	}
	if never {
		return may
	}
	s := &story{body: r, state: broker.StatePending, hosts: r.Hosts, duration: min(r.Duration, role.longest)}
	if role.count > 0 {
		return append(may, outcome{becomes: s})
	}
	return append(may, s.open(op, role)...)
}

// open is what becomes of a story whose quorum is full.
func (s *story) open(op *Op, role job) []outcome {
	var filled statement.Time
	if role.count > 0 {
		slices.SortFunc(s.approvals, func(x, y approval) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.by, y.by)) })
		filled = s.approvals[role.count-1].at
	}
	if len(s.hosts) == 0 {
		return []outcome{refused(broker.Denied)}
	}
	opened := *s
	opened.until = max(s.body.Created, s.body.At, filled).Add(s.duration)
	opened.state = broker.StateApproved
	var may []outcome
	if op.Hi >= opened.until {
		may = append(may, refused(broker.Expired))
	}
	if op.Lo < opened.until {
		may = append(may, outcome{grants: true, becomes: &opened})
	}
	return may
}

// find returns the request that a statement is about, when there is one that concerns who signed.
func (w *world) find(op *Op) (*story, []outcome) {
	s := w.stories[op.About]
	if s == nil || !s.concerns(op.Person) {
		return nil, []outcome{refused(broker.Missing)}
	}
	if s.dropped(op) {
		return s, []outcome{refused(broker.Missing)}
	}
	return s, nil
}

func (s *story) concerns(person statement.Person) bool {
	return person == s.body.Person || person == operator || person == auditor || slices.Contains(jobs[s.body.Role].approvers, person)
}

// dropped reports whether brokers may have forgotten a request that is over.
func (s *story) dropped(op *Op) bool { return op.Hi > max(s.body.Expires, s.until)+kept }

// pending returns whether a request may still be decided or withdrawn, and how it is refused when it may not.
func (s *story) pending(op *Op) (bool, []outcome) {
	if s.state != broker.StatePending {
		return false, []outcome{refused(broker.Conflict)}
	}
	var may []outcome
	if op.Hi > s.body.Expires {
		may = append(may, refused(broker.Expired))
	}
	return op.Lo <= s.body.Expires, may
}

// decided: an approver of the role, never the asker, once each. One no ends it.
func (w *world) decided(op *Op, d statement.Decision) []outcome {
	s, may := w.find(op)
	if s == nil {
		return may
	}
	role := jobs[s.body.Role]
	if d.Person == s.body.Person || !slices.Contains(role.approvers, d.Person) {
		return append(may, refused(broker.Denied))
	}
	open, late := s.pending(op)
	may = append(may, late...)
	if slices.Contains(s.decided, d.Person) {
		return append(may, refused(broker.Conflict))
	}
	if !open {
		return may
	}
	next := *s
	next.decided = append(slices.Clone(s.decided), d.Person)
	if d.Verdict == statement.Deny {
		next.state = broker.StateDenied
		return append(may, outcome{becomes: &next})
	}
	if d.Created > s.body.Expires {
		return append(may, refused(broker.Expired))
	}
	next.approvals = append(slices.Clone(s.approvals), approval{d.Person, d.Created})
	if d.Hosts != nil {
		next.hosts = slices.DeleteFunc(slices.Clone(s.hosts), func(h statement.HostName) bool { return !slices.Contains(d.Hosts, h) })
	}
	if d.Duration != 0 {
		next.duration = min(s.duration, d.Duration)
	}
	if len(next.approvals) < role.count {
		return append(may, outcome{becomes: &next})
	}
	return append(may, next.open(op, role)...)
}

// ended: the asker takes back, the holder gives back, an operator, steward or approver takes away.
func (w *world) ended(op *Op, e statement.End) []outcome {
	s, may := w.find(op)
	if s == nil {
		return may
	}
	next := *s
	if e.How == statement.Withdraw {
		if e.Person != s.body.Person {
			return append(may, refused(broker.Denied))
		}
		open, late := s.pending(op)
		may = append(may, late...)
		if next.state, next.ended = broker.StateWithdrawn, broker.EndedByWithdraw; open {
			may = append(may, outcome{becomes: &next})
		}
		return may
	}
	if s.state != broker.StateApproved {
		return append(may, refused(broker.Missing))
	}
	allowed := e.Person == s.body.Person
	next.ended = broker.EndedByReturn
	if e.How == statement.Revoke {
		allowed = e.Person == operator || slices.Contains(jobs[s.body.Role].approvers, e.Person)
		next.ended = broker.EndedByRevoke
	}
	if !allowed {
		return append(may, refused(broker.Denied))
	}
	return append(may, s.whileLive(op, &next)...)
}

// whileLive is what becomes of a grant, if it still is one.
func (s *story) whileLive(op *Op, next *story) []outcome {
	if s.ended != "" {
		return []outcome{refused(broker.Conflict)}
	}
	var may []outcome
	if op.Hi >= s.until {
		may = append(may, refused(broker.Expired))
	}
	if op.Lo < s.until {
		may = append(may, outcome{grants: true, becomes: next})
	}
	return may
}

// certified: the holder alone.
func (w *world) certified(op *Op, c statement.Certificate) []outcome {
	s, may := w.find(op)
	switch {
	case s == nil:
		return may
	case s.state != broker.StateApproved:
		return append(may, refused(broker.Missing))
	case c.Person != s.body.Person:
		return append(may, refused(broker.Denied))
	case c.Created >= s.until:
		may = append(may, refused(broker.Expired))
	}
	next := *s
	return append(may, s.whileLive(op, &next)...)
}

// shows reports whether what somebody saw is what there is.
func (w *world) shows(op *Op) bool {
	s := w.stories[op.About]
	switch op.Did {
	case DidRead:
		if s == nil || !s.concerns(op.Person) {
			return op.Told.kind == broker.Missing
		}
		return op.Told.kind == broker.Missing && s.dropped(op) || op.Told.kind == "" && s.reads(op)
	case DidList:
		return s != nil && s.state == broker.StateApproved && s.ended == op.Told.ended
	case DidHear:
		return s != nil && s.ended == op.Told.ended
	case DidStart:
		return s != nil && s.state == broker.StateApproved
	default:
		return false
	}
}

// reads reports whether a view of a request is what it is.
func (s *story) reads(op *Op) bool {
	state := op.Told.state == s.state
	if s.state == broker.StatePending {
		state = op.Told.state == broker.StatePending && op.Lo <= s.body.Expires || op.Told.state == broker.StateExpired && op.Hi > s.body.Expires
	}
	return state && slices.Equal(op.Told.decisions, s.decided) && op.Told.ended == s.ended && (op.Told.grant != "") == (s.state == broker.StateApproved)
}
