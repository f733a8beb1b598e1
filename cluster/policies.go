package cluster

import (
	"bytes"
	"errors"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// policiesKey is where raft.db keeps the policies that this broker knows.
var policiesKey = []byte("pim-policies")

// policiesScan is how many events a start reads at once, and at most, but for a crash, after the policies it finds.
const policiesScan = 4096

// policies are those that this broker knows, whoever leads: what it was founded on, what the log adopted, and what other
// brokers showed it; each proves itself by its stewards' signatures. They say whose keys are brokers' and where those are, so
// they are kept: a state is whole only once a leader has said what is committed, and a leader is not heard whose key is not known.
type policies struct {
	store raft.StableStore // sealed

	mu    sync.Mutex
	chain policy.Chain
	read  uint64 // what the log's events before this adopted is in chain
}

// keptPolicies is how they are stored.
type keptPolicies struct {
	Read     uint64            `json:"read"`
	Policies []statement.Proof `json:"policies"`
}

// openPolicies reads what the newest snapshot holds, which raft has restored by now, what was kept, and what the events since
// have adopted: how long that takes does not depend on how much ever happened.
func (n *Node) openPolicies() (err error) {
	failed := n.machine.read(func(state *broker.State) {
		n.policies.read, err = state.Index(), n.policies.learn(state.Chain().Proofs())
	})
	if failed != nil || err != nil {
		return errors.Join(failed, err)
	}
	return n.policies.catchUp(n.machine.log)
}

// catchUp reads what was kept and what the events since have adopted. What was altered is read again from the events.
func (p *policies) catchUp(log *EventLog) error {
	data, err := p.store.Get(policiesKey)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) && !errors.Is(err, ErrDisk) {
		return err
	}
	var kept keptPolicies
	if err == nil && json.Unmarshal(data, &kept) == nil && p.learn(kept.Policies) == nil {
		p.read = max(p.read, kept.Read)
	}
	for at := p.read; ; {
		leaves, err := log.Read(at, policiesScan)
		if err == nil && len(leaves) == 0 {
			err = p.keep(p.newest(), at)
		}
		if err != nil || len(leaves) == 0 {
			return err
		}
		for _, leaf := range leaves {
			if adopted, is := adoption(leaf); is {
				_ = p.learn([]statement.Proof{adopted}) // what does not follow was never in force
			}
		}
		at += uint64(len(leaves))
	}
}

// adoption returns the policy that an event adopted.
func adoption(leaf []byte) (statement.Proof, bool) {
	if !bytes.Contains(leaf, []byte(`"kind":"PolicyAdopted"`)) {
		return statement.Proof{}, false
	}
	event, err := broker.DecodeEvent(leaf)
	adopted, is := event.(*broker.PolicyAdopted)
	if err != nil || !is {
		return statement.Proof{}, false
	}
	return adopted.Proof, true
}

// newest returns all of them.
func (p *policies) newest() policy.Chain {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.chain
}

// learn walks the chain on. It stops at the first policy that does not follow; one that is known already does.
func (p *policies) learn(proofs []statement.Proof) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, proof := range proofs {
		next, err := p.chain.Advance(proof)
		if err != nil && !errors.Is(err, policy.ErrKnown) {
			return err
		}
		if err == nil {
			p.chain = next
		}
	}
	return nil
}

// keep stores what a state adopted, when there is more than was stored.
func (p *policies) keep(adopted policy.Chain, events uint64) error {
	before := p.newest().Ref().Revision
	if adopted.Ref().Revision <= before && events < p.read+policiesScan {
		return nil
	}
	if adopted.Ref().Revision > before {
		if err := p.learn(adopted.Proofs()[before:]); err != nil { // stewards signed two, and this broker was shown the other one
			p.mu.Lock()
			p.chain = adopted
			p.mu.Unlock()
		}
	}
	data, err := json.Marshal(keptPolicies{events, adopted.Proofs()}, json.Deterministic(true))
	if err != nil {
		return err
	}
	if err := p.store.Set(policiesKey, data); err != nil {
		return err
	}
	p.read = events
	return nil
}
