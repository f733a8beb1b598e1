package broker

import (
	"errors"
	"maps"
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// adoptPolicy walks the chain one revision forward. The first policy an empty state sees is its genesis.
func (t *turn) adoptPolicy(c Command) (Outcome, error) {
	p := c.Proof
	hash := p.Hash()
	next, err := advance(t.chain, p)
	if errors.Is(err, policy.ErrKnown) {
		return t.s.adoption(hash), nil
	}
	var fork *policy.Fork
	if errors.As(err, &fork) {
		return t.forked(fork, p)
	}
	if err != nil {
		return Outcome{}, refusePolicy(err)
	}
	adopted := &PolicyAdopted{Revision: next.Ref().Revision, Proof: p}
	if t.s.index == 0 && c.Rules > 1 {
		adopted.Rules, adopted.Founding = c.Rules, c.Founding
	}
	if t.rules < 3 && next.Current().V > 1 {
		return Outcome{}, Refuse(Conflict, "ask an operator, once every host is upgraded: pim-ssh cluster rules 3", "rules %d are in force, and know no policies of version %d", t.rules, next.Current().V)
	}
	if err := t.keepsAVoter(next); err != nil {
		return Outcome{}, err
	}
	t.add(adopted)
	t.chain = next
	t.followed(t, hash)
	return outcomeOf(hash, t.events), nil
}

func advance(c policy.Chain, p statement.Proof) (policy.Chain, error) {
	if c.Ref().Revision == 0 {
		return policy.Genesis(p)
	}
	return c.Advance(p)
}

func refusePolicy(err error) error {
	switch {
	case errors.Is(err, policy.ErrGap):
		return Refuse(Unavailable, "apply the revisions in between first: pim-ssh policy log", "%w", err)
	case errors.Is(err, policy.ErrUnsigned):
		return Refuse(Denied, "pim-ssh policy sign", "%w", err)
	case errors.Is(err, policy.ErrForeign):
		return Refuse(Conflict, "draft it again from the current revision: pim-ssh policy sign", "%w", err)
	default:
		return Refuse(Invalid, "pim-ssh policy check", "%w", err)
	}
}

// forked records that stewards signed two policies of the newest number. A fork further back was settled when a later
// revision was adopted.
func (t *turn) forked(fork *policy.Fork, p statement.Proof) (Outcome, error) {
	refusal := Refuse(Conflict, "ask the stewards to sign the next revision", "%w", fork)
	if first, seen := t.s.seen[p.Hash()]; seen {
		return first.Outcome, refusal
	}
	newest := t.chain.Ref().Revision
	if fork.Revision == newest && t.s.forked != newest {
		t.add(&PolicyForked{Revision: fork.Revision, Proof: p})
	}
	return outcomeOf(p.Hash(), t.events), refusal
}

// keepsAVoter refuses a policy that lists none of the brokers that vote: nobody could ever decide anything again.
func (t *turn) keepsAVoter(next policy.Chain) error {
	now := t.s.voters(t.chain)
	if t.s.Rules() < 2 || t.s.founds(next.Ref().Revision, t.s.index) || len(now) == 0 || len(t.s.voters(next)) > 0 {
		return nil
	}
	return Refuse(Denied, "list it, or add another one first: pim-ssh cluster add", "the policy lists no broker that has a vote (%s has)", now)
}

// rejudge proves every live grant and every pending request again, under the policy just adopted.
func (t *turn) rejudge(by statement.Hash) {
	for _, stem := range slices.Sorted(maps.Keys(t.s.requests)) {
		r := t.s.requests[stem]
		switch {
		case r.live(t.now):
			t.reprove(r)
		case r.StateAt(t.now) == StatePending:
			t.reopen(r, by)
		}
	}
}

// reprove revokes a live grant that the policy no longer holds. One whose window it cuts short lapses earlier.
func (t *turn) reprove(r *Request) {
	if _, err := Prove(t.chain, r.Dossier); err != nil {
		t.add(&GrantRevoked{Grant: r.Grant.ID, Why: err.Error()})
	}
}

// reopen opens a pending request whose quorum the policy makes full. What only a proposer can judge was judged by an older
// policy, if at all: such a role opens by a decision, or is asked for again.
func (t *turn) reopen(r *Request, by statement.Hash) {
	w, err := weigh(t.chain, r.Dossier)
	if w.role.Networks != nil || w.role.Hours != nil || w.role.Hook != nil || w.role.Factors.Approve == policy.TOTP {
		return
	}
	if err != nil || w.missing() > 0 || !w.more(r.More, t.now) || t.now >= t.chain.Current().Expires {
		return
	}
	before := len(t.events)
	t.add(&RequestApproved{Request: r.ID})
	if err := t.open(w, r.Dossier, by); err != nil {
		t.events = t.events[:before]
	}
}
