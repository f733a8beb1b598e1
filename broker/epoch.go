package broker

import (
	"maps"
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Epoch is what an operator's restore began. What was asked before it is void. The zero Epoch is the time before the first.
type Epoch struct {
	Number uint64           `json:"number"` // 1 or more; higher than every one before it
	Begun  statement.Time   `json:"begun"`  // when the operator signed
	Person statement.Person `json:"person"` // the operator
	Index  uint64           `json:"index"`  // of its EpochBegun
	Proof  statement.Proof  `json:"proof"`  // the restore statement
}

// Epoch returns the newest epoch; the zero Epoch when nothing was ever restored.
func (s *State) Epoch() Epoch {
	if s.cluster.Epoch == nil {
		return Epoch{}
	}
	return *s.cluster.Epoch
}

// sound holds a decoded epoch to its statement.
func (e *Epoch) sound() bool {
	if e == nil {
		return true
	}
	body := bodyOf[statement.Restore](e.Proof)
	return e.Number != 0 && e.Number == body.Epoch && e.Begun == body.Created && e.Person == body.Person && e.Index == body.Size
}

// CheckRestore opens a restore statement and reports why it is not a current operator's word in this deployment. Whether its
// epoch comes after those that the judge knows is the judge's to say: Follows.
func CheckRestore(c policy.Chain, p statement.Proof) (statement.Restore, error) {
	body, o, err := openStatement[statement.Restore](c, p)
	if err != nil {
		return statement.Restore{}, err
	}
	if err := speaks(c.Current(), o); err != nil {
		return statement.Restore{}, err
	}
	if !c.Current().Operator(body.Person) {
		return statement.Restore{}, Refuse(Denied, "ask an operator", "the restore is signed by %s, who is no operator", body.Person)
	}
	return body, nil
}

// Follows reports whether a restore comes after another, by epoch and, when two operators numbered alike, by time: an old one
// that is shown again never does.
func Follows(r, before statement.Restore) bool {
	return r.Epoch > before.Epoch || r.Epoch == before.Epoch && r.Created > before.Created
}

// beginEpoch decides the first command on restored disks. It is refused without a record anywhere but at the very end of the
// log that it names, so that it can be used once and nowhere else. Time begins again at the operator's clock: the one of the
// brokers may be what is wrong.
func (t *turn) beginEpoch(c Command) (Outcome, error) {
	if t.rules < 2 {
		return Outcome{}, Refuse(Invalid, "", "rules 1 know no epochs")
	}
	o, err := statement.Open(c.Proof)
	if err != nil {
		return Outcome{}, Refuse(Invalid, "", "%w", err)
	}
	if out, err, seen := t.s.before(o); seen {
		return out, err
	}
	r, err := CheckRestore(t.chain, c.Proof)
	if err != nil {
		return Outcome{}, err
	}
	const again = "pim-ssh cluster restore"
	switch {
	case r.Epoch <= t.s.Epoch().Number:
		return Outcome{}, Refuse(Conflict, again, "epoch %d is over, and %d has begun", r.Epoch, t.s.Epoch().Number)
	case r.Size != t.s.index:
		return Outcome{}, Refuse(Conflict, again, "the restore goes on from %d events, and there are %d", r.Size, t.s.index)
	case c.At.Add(MaxAhead) < r.Created:
		return Outcome{}, Refuse(Denied, "check the clocks of the brokers and of the operator", "the restore was signed at %s, and it is %s here", r.Created, c.At)
	case c.At > r.NotAfter:
		return Outcome{}, Refuse(Expired, again, "the restore was good until %s, and it is %s here", r.NotAfter, c.At)
	}
	t.now = r.Created
	t.add(&EpochBegun{Epoch: r.Epoch, Rules: t.rules, Person: r.Person, Proof: c.Proof})
	t.endAll(r)
	return outcomeOf(o.Hash, t.events), nil
}

// endAll ends what was open: whoever copied the record cannot know what was ended since.
func (t *turn) endAll(r statement.Restore) {
	for _, stem := range slices.Sorted(maps.Keys(t.s.open)) {
		switch open := t.s.requests[stem]; {
		case open.Grant == nil:
			t.add(&RequestExpired{Request: open.ID})
		case open.live(t.now):
			t.add(&GrantRevoked{Grant: open.Grant.ID, Person: r.Person, Why: "the cluster was restored: " + r.Why})
		default:
			t.add(&GrantLapsed{Grant: open.Grant.ID})
		}
	}
}

// ofThisEpoch refuses what was signed before the newest epoch began: it was said to brokers whose record is gone.
func (s *State) ofThisEpoch(h statement.Head) error {
	if e := s.cluster.Epoch; e != nil && h.Created <= e.Begun {
		return Refuse(Denied, "type the command again", "the %s statement was made at %s, before the cluster was restored at %s", h.Kind, h.Created, e.Begun)
	}
	return nil
}

// begin takes an epoch in. Its founders are the brokers that the policy lists; disks that were members before never return.
func (s *State) begin(e *EpochBegun) {
	body := bodyOf[statement.Restore](e.Proof)
	for _, m := range s.cluster.Members {
		s.expel(Removal{Name: m.Name, Disk: m.Disk, By: e.Person, At: e.At, Index: e.Index})
	}
	founders := s.chain.Current()
	s.cluster.Removed = slices.DeleteFunc(slices.Clone(s.cluster.Removed), func(r Removal) bool { return r.Disk == "" && lists(founders, r.Name) })
	if len(s.cluster.Removed) == 0 {
		s.cluster.Removed = nil
	}
	for stem := range s.open {
		s.change(stem, func(r *Request) {
			if r.Grant == nil {
				r.Dossier.Ended = &Ended{How: EndedByRestore, At: s.now}
			}
		})
	}
	for _, held := range s.factors { // nobody has proved anything to these brokers
		f := *held
		f.Proved = 0
		s.know(&f)
	}
	s.cluster.Rules, s.cluster.Founding = e.Rules, s.chain.Ref().Revision
	s.cluster.Epoch = &Epoch{Number: e.Epoch, Begun: body.Created, Person: e.Person, Index: e.Index, Proof: e.Proof}
}
