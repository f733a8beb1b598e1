package edge

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// statements files one signed statement. Bytes that no known kind of statement explains, or whose signatures do not
// hold, are counted and nothing else; what is authentic and refused becomes an event inside the cluster.
//
// A broker that does not lead passes it on.
func (s *Server) statements(w http.ResponseWriter, r *http.Request) (any, error) {
	body, err := readUpTo(r.Body, api.MaxStatementBody+1)
	if err != nil {
		return nil, err
	}
	slots := s.filing
	if len(body) > api.MaxStatementBody {
		slots = s.large
	}
	if err := s.takeSlot(r.Context(), slots); err != nil {
		return nil, err
	}
	defer func() { <-slots }()
	if slots == s.large {
		if body, err = readRest(w, r, body); err != nil {
			return nil, err
		}
	}
	proof, err := statement.ParseProof(body)
	if err != nil {
		s.rubbish.Add(1)
		return nil, broker.Refuse(broker.Invalid, "let pim-ssh sign it", "%w", err)
	}
	command, err := broker.CommandFor(proof, s.now())
	if err != nil {
		s.rubbish.Add(1)
		return nil, err
	}
	if command.Kind == broker.BeginEpoch {
		return nil, broker.Refuse(broker.Denied, "pim-brokerd restore FILE, on each broker", "a restore begins with the brokers' disks, and is not filed")
	}
	if passed, err := s.passOn(w, r, body); passed || err != nil {
		return nil, err
	}
	outcome, err := s.propose(r.Context(), proof, command, s.source(r))
	if err != nil {
		return nil, err
	}
	answer := api.Answer{Index: outcome.Index, Request: outcome.Request}
	if outcome.Grant != "" {
		answer.Grant = &outcome.Grant
	}
	return answer, nil
}

// propose has the cluster decide, within the share of the key that signed. What leaves nothing in the log (a repetition,
// a stranger) costs nothing: sending somebody else's statement again takes nothing from them.
func (s *Server) propose(ctx context.Context, proof statement.Proof, command broker.Command, source netip.Addr) (broker.Outcome, error) {
	large := len(proof.Payload) > statement.MaxPayload
	if large {
		if err := s.mayBeStewards(ctx, proof); err != nil {
			return broker.Outcome{}, err
		}
	}
	key, said, err := signer(proof, command)
	if err != nil {
		s.rubbish.Add(1)
		return broker.Outcome{}, broker.Refuse(broker.Invalid, "let pim-ssh sign it", "%w", err)
	}
	var before uint64
	var asked *question
	share, steward := &s.strange, false
	if err := s.cluster.View(ctx, func(state *broker.State) {
		before = state.Index()
		person, isPerson := state.Chain().Current().KeyOwner(key)
		steward = isPerson && state.Chain().Current().Steward(person)
		if _, isHost := state.HostOf(key); isPerson || isHost {
			share = &s.pace
		}
		asked = s.asks(state, proof, said, key)
	}); err != nil {
		return broker.Outcome{}, err
	}
	if large && !steward {
		s.rubbish.Add(1)
		return broker.Outcome{}, broker.Refuse(broker.Denied, "pim-ssh policy sign", "key %s is no steward's", key.Fingerprint())
	}
	if err := share.take(key, s.now()); err != nil {
		return broker.Outcome{}, err
	}
	if err := s.mayChange(ctx, command); err != nil {
		share.give(key)
		return broker.Outcome{}, err
	}
	if command, err = s.stamp(ctx, asked, command, source); err != nil {
		return broker.Outcome{}, err
	}
	outcome, err := s.cluster.Propose(ctx, command)
	if outcome.Index < before {
		share.give(key)
	}
	return outcome, err
}

// mayBeStewards refuses a large policy before its signatures are looked at, when they are more than stewards could make.
func (s *Server) mayBeStewards(ctx context.Context, proof statement.Proof) error {
	return s.view(ctx, func(state *broker.State) error {
		if len(proof.Signatures) <= len(state.Chain().Current().Stewards.People) {
			return nil
		}
		s.rubbish.Add(1)
		return broker.Refuse(broker.Denied, "pim-ssh policy sign", "it bears more signatures than there are stewards")
	})
}

// signer is the key that made a proof's first signature, which holds, and what it signed; nil for a policy.
func signer(proof statement.Proof, command broker.Command) (statement.Key, statement.Body, error) {
	if command.Kind == broker.AdoptPolicy {
		signers, err := statement.OpenPayload(statement.KindPolicy, proof)
		if err != nil {
			return "", nil, err
		}
		return signers[0].Key, nil, nil
	}
	opened, err := statement.Open(proof)
	if err != nil {
		return "", nil, err
	}
	return opened.Signers[0].Key, opened.Body, nil
}

// takeSlot waits for one of the slots that bound how many statements are in hand.
func (s *Server) takeSlot(ctx context.Context, slots chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, s.slotWait)
	defer cancel()
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return broker.Refuse(broker.Unavailable, "try again in a moment", "too many statements at once")
	}
}

// readRest reads what follows the first part of a large body, within a time of its own: its slot is one of few.
func readRest(w http.ResponseWriter, r *http.Request, first []byte) ([]byte, error) {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return nil, err
	}
	rest, err := readUpTo(r.Body, api.MaxPolicyBody)
	return append(first, rest...), err
}

func readUpTo(body io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, most))
	if err != nil {
		return nil, broker.Refuse(broker.Invalid, "", "the body was not read: %w", err)
	}
	return data, nil
}
