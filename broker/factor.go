package broker

import (
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// proved holds a person's statement to the code that the role demands, and marks it as used.
func (t *turn) proved(kind policy.FactorKind, fresh statement.Seconds, person statement.Person, code string) error {
	if kind != policy.TOTP {
		return nil
	}
	f := t.s.factors[person]
	again := "type the command again with --totp CODE"
	switch {
	case f == nil || len(f.Sealed) == 0:
		return Refuse(Denied, "pim-ssh totp enrol", "%s has enrolled no second factor", person)
	case t.now < f.LockedUntil:
		return Refuse(Denied, "wait, or ask an operator: pim-ssh totp reset "+string(person), "%s's codes are locked until %s: too many were wrong", person, f.LockedUntil)
	case code == "" && fresh > 0 && f.Proved != 0 && t.now < f.Proved.Add(fresh):
		return nil
	case code == "":
		return Refuse(Denied, again, "a code is needed: the role wants a second factor")
	}
	return f.take(t.judged.Code, again)
}

// take reports why a judged code does not count: it is wrong, or was used before.
func (f *factor) take(judged *CodeJudged, again string) error {
	switch {
	case judged == nil || !judged.Right:
		return Refuse(Denied, again, "the code is wrong")
	case f.used(*judged) && judged.Recovery != 0:
		return Refuse(Denied, "use another one", "recovery code %d was used before", judged.Recovery)
	case f.used(*judged):
		return Refuse(Denied, "wait for the next code", "the code was used before")
	}
	return nil
}

// used reports whether a right code was used before.
func (f *factor) used(code CodeJudged) bool {
	if code.Recovery != 0 {
		return f.Recovered&(1<<code.Recovery) != 0
	}
	return code.Step <= f.Step
}

// factor is what brokers know of a person's second factor.
type factor struct {
	Person      statement.Person `json:"person"`
	Sealed      []byte           `json:"sealed,omitempty"`   // an age file to brokers' identities; none after a reset
	At          statement.Time   `json:"at"`                 // when it was enrolled
	Step        uint64           `json:"step,omitzero"`      // the newest step of which a code was used
	Recovered   uint32           `json:"recovered,omitzero"` // bit n: recovery code n was used
	Failures    int              `json:"failures,omitzero"`  // wrong codes since the last right one
	LockedUntil statement.Time   `json:"locked_until,omitzero"`
	Proved      statement.Time   `json:"proved,omitzero"` // when a right code was last taken

	sum statement.Hash
}

// Codes may be wrong so many times in a row; then none is taken for a while, which doubles each time.
const (
	MaxFailures = 5
	lockFirst   = statement.Seconds(15 * 60)
	lockLongest = statement.Day
)

// lockFor is how long codes are locked after so many wrong ones; 0 while they are few.
func lockFor(failures int) statement.Seconds {
	if failures == 0 || failures%MaxFailures != 0 {
		return 0
	}
	lock := lockFirst
	for range failures/MaxFailures - 1 {
		lock = min(lock*2, lockLongest)
	}
	return lock
}

// FactorOf returns what a broker needs to check a person's codes: the sealed seed, nil when there is none.
func (s *State) FactorOf(person statement.Person) (sealed []byte, lockedUntil statement.Time) {
	if f := s.factors[person]; f != nil {
		return f.Sealed, f.LockedUntil
	}
	return nil, 0
}

// Demands returns the second factor that a statement needs, by the role that it is about; none for statements that need none.
func (s *State) Demands(b statement.Body) policy.FactorKind {
	doc := s.chain.Current()
	switch b := b.(type) {
	case statement.Request:
		if doc.ActiveFor(b.Person, b.Role, b.Hosts, max(b.Created, b.At)) {
			return policy.NoFactor
		}
		return doc.Roles[b.Role].Factors.Ask
	case statement.Decision:
		if r := s.requests[StemOf(b.Request)]; r != nil && b.Verdict == statement.Approve {
			return doc.Roles[r.Body.Role].Factors.Approve
		}
	}
	return policy.NoFactor
}

// changeFactor decides whether a person's seed changes.
func (t *turn) changeFactor(b statement.Factor, p statement.Proof) error {
	if b.Action == statement.ResetFactor {
		return t.resetFactor(b, p)
	}
	f := t.s.factors[b.Person]
	if f != nil && t.now < f.LockedUntil {
		return Refuse(Denied, "wait, or ask an operator: pim-ssh totp reset "+string(b.Person), "%s's codes are locked until %s: too many were wrong", b.Person, f.LockedUntil)
	}
	if f != nil && len(f.Sealed) > 0 {
		if b.Code == "" {
			return Refuse(Denied, "pim-ssh totp enrol --code CODE, with a recovery code if need be", "%s has a second factor already: a code of it is needed to replace it", b.Person)
		}
		if err := f.take(t.judged.Old, "pim-ssh totp enrol --code CODE"); err != nil {
			return err
		}
	}
	if t.judged.Code == nil || !t.judged.Code.Right || t.judged.Code.Recovery != 0 {
		return Refuse(Denied, "look at the clock of the phone and of this machine, then: pim-ssh totp enrol", "the first code is not what the new seed gives")
	}
	t.add(&FactorEnrolled{Person: b.Person, Judged: t.judged, Proof: p})
	return nil
}

func (t *turn) resetFactor(b statement.Factor, p statement.Proof) error {
	switch f := t.s.factors[b.Of]; {
	case !t.chain.Current().Operator(b.Person):
		return Refuse(Denied, "ask an operator", "only operators reset a second factor")
	case b.Of == b.Person:
		return Refuse(Denied, "ask another operator", "nobody resets their own second factor")
	case f == nil || len(f.Sealed) == 0:
		return Refuse(Missing, "pim-ssh totp enrol, as "+string(b.Of), "%s has enrolled no second factor", b.Of)
	}
	t.add(&FactorReset{Person: b.Person, Of: b.Of, Proof: p})
	return nil
}

// enrolFactor takes a new seed in. Steps of the old one stay used.
func (s *State) enrolFactor(e *FactorEnrolled) {
	f := &factor{Person: e.Person, Sealed: bodyOf[statement.Factor](e.Proof).Sealed, At: e.At}
	f.took(e.Judged.Code, e.At)
	s.know(f)
}

// resetFactor forgets a seed; how often its holder failed is forgotten with it.
func (s *State) resetFactor(e *FactorReset) { s.know(&factor{Person: e.Of, At: e.At}) }

// judge takes note of a code that somebody used, right or wrong. One that was right and used before is no guess, and proves
// nothing: whoever saw it can show it again.
func (s *State) judge(person statement.Person, code *CodeJudged) {
	before := s.factors[person]
	if before == nil || code == nil || code.Right && before.used(*code) {
		return
	}
	f := *before
	locked := s.now < f.LockedUntil
	if locked && (!code.Right || code.Recovery == 0) {
		return
	}
	if locked {
		f.Recovered |= 1 << code.Recovery // it stands in the record in clear, and serves no more
	} else if code.Right {
		f.took(code, s.now)
	} else {
		f.Failures++
		if lock := lockFor(f.Failures); lock > 0 {
			f.LockedUntil = s.now.Add(lock)
		}
	}
	s.know(&f)
}

// took marks a right code as used.
func (f *factor) took(code *CodeJudged, now statement.Time) {
	if code.Recovery > 0 {
		f.Recovered |= 1 << code.Recovery
	}
	f.Step, f.Failures, f.Proved = max(f.Step, code.Step), 0, now
}

// know puts a factor, complete and from now on unchanged, in its place.
func (s *State) know(f *factor) {
	f.sum = hashOf(f)
	s.factors[f.Person] = f
}
