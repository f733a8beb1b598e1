package edge

import (
	"context"
	"io"
	"net/http"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// statements files one signed statement. Bytes that no known kind of statement explains, or whose signatures do not
// hold, are counted and nothing else; what is authentic and refused becomes an event inside the cluster.
//
// A broker that does not lead passes it on.
func (s *Server) statements(w http.ResponseWriter, r *http.Request) (any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, broker.Refuse(broker.Invalid, "", "the body was not read: %w", err)
	}
	if err := s.takeSlot(r.Context()); err != nil {
		return nil, err
	}
	defer func() { <-s.filing }()
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
	if passed, err := s.passOn(w, r, body); passed || err != nil {
		return nil, err
	}
	outcome, err := s.propose(r.Context(), proof, command)
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
func (s *Server) propose(ctx context.Context, proof statement.Proof, command broker.Command) (broker.Outcome, error) {
	key, err := signer(proof, command)
	if err != nil {
		s.rubbish.Add(1)
		return broker.Outcome{}, broker.Refuse(broker.Invalid, "let pim-ssh sign it", "%w", err)
	}
	var before uint64
	if err := s.cluster.View(ctx, func(state *broker.State) { before = state.Index() }); err != nil {
		return broker.Outcome{}, err
	}
	if err := s.pace.take(key, s.now()); err != nil {
		return broker.Outcome{}, err
	}
	outcome, err := s.cluster.Propose(ctx, command)
	if outcome.Index < before {
		s.pace.give(key)
	}
	return outcome, err
}

// signer is the key that made a proof's first signature, which holds.
func signer(proof statement.Proof, command broker.Command) (statement.Key, error) {
	if command.Kind == broker.AdoptPolicy {
		signers, err := statement.OpenPayload(statement.KindPolicy, proof)
		if err != nil {
			return "", err
		}
		return signers[0].Key, nil
	}
	opened, err := statement.Open(proof)
	if err != nil {
		return "", err
	}
	return opened.Signers[0].Key, nil
}

// takeSlot waits for one of the slots that bound how many statements are in hand.
func (s *Server) takeSlot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, headerTimeout)
	defer cancel()
	select {
	case s.filing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return broker.Refuse(broker.Unavailable, "try again in a moment", "too many statements at once")
	}
}
