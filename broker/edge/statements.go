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
func (s *Server) statements(_ http.ResponseWriter, r *http.Request) (any, error) {
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
	outcome, err := s.cluster.Propose(r.Context(), command)
	if err != nil {
		return nil, err
	}
	answer := api.Answer{Index: outcome.Index, Request: outcome.Request}
	if outcome.Grant != "" {
		answer.Grant = &outcome.Grant
	}
	return answer, nil
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
