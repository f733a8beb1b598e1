package edge

import (
	"context"
	"errors"
	"net/http"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// passOn hands a write, as it came, to the broker that leads, and its answer back verbatim. It reports false when this
// broker is to answer itself. What was passed on once is not passed on again: two brokers that each take the other
// for the leader would play ball.
//
// A leader that is silent is waited for until somebody else leads, who then gets the same bytes: they count once.
func (s *Server) passOn(w http.ResponseWriter, r *http.Request, body []byte) (bool, error) {
	if s.peer == nil {
		return false, nil
	}
	for {
		leader, own, err := s.peer.Leader(r.Context())
		if err != nil || own {
			return false, err
		}
		if r.Header.Get(api.HeaderPassed) != "" {
			return false, broker.Refuse(broker.Unavailable, "try again in a moment", "this broker does not lead: %w", broker.ErrNotLeader)
		}
		answer, err := s.pass(r, leader, body)
		if errors.Is(err, errDeposed) {
			continue
		}
		if err != nil {
			return false, broker.Refuse(broker.Unavailable, "send the same statement again: it counts once", "the broker that leads did not answer: %w", err)
		}
		s.note(r, answer.Write(w))
		return true, nil
	}
}

// errDeposed says that another broker leads than the one that was asked and has not answered.
var errDeposed = errors.New("another broker leads now")

// deposedEvery is how often it is looked who leads while a leader is waited for.
const deposedEvery = 50 * time.Millisecond

// pass waits for the leader's answer for as long as it leads.
func (s *Server) pass(r *http.Request, leader policy.Broker, body []byte) (api.Passed, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	go s.depose(ctx, leader, cancel)
	answer, err := s.peers.Pass(ctx, leader, r, body)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// depose cancels with errDeposed as soon as somebody else leads, until ctx ends.
func (s *Server) depose(ctx context.Context, leader policy.Broker, cancel context.CancelCauseFunc) {
	look := time.NewTicker(deposedEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if now, _, err := s.peer.Leader(ctx); err == nil && now.Identity != leader.Identity {
			cancel(errDeposed)
		}
	}
}

// peerIndex tells another broker how far the log has come.
func (s *Server) peerIndex(_ http.ResponseWriter, r *http.Request) (any, error) {
	var answer api.PeerIndex
	err := s.forPeer(r, func(state *broker.State) { answer.Events = state.Index() })
	return answer, err
}

// peerEvents shows another broker the log, a batch at a time.
func (s *Server) peerEvents(_ http.ResponseWriter, r *http.Request) (any, error) {
	from, _, err := number(r, "from")
	if err != nil {
		return nil, err
	}
	if err := s.forPeer(r, func(*broker.State) {}); err != nil {
		return nil, err
	}
	events, _, err := s.cluster.Events(from, batch)
	return api.PeerEvents{Events: events}, err
}

// forPeer looks at the state for a caller who has proved the key of a broker that the current policy lists. Only the
// broker that leads answers: asking on would let two brokers ask each other for ever.
func (s *Server) forPeer(r *http.Request, fn func(*broker.State)) error {
	denied := broker.Refuse(broker.Denied, "", "this is between brokers")
	key, shown := hostKey(r)
	if !shown {
		return denied
	}
	refused := error(denied)
	err := s.lead(r.Context(), func(state *broker.State) {
		if isBroker(state, key) {
			refused = nil
			fn(state)
		}
	})
	if err != nil {
		return err
	}
	return refused
}

func (s *Server) lead(ctx context.Context, fn func(*broker.State)) error {
	if s.peer == nil {
		return s.cluster.View(ctx, fn)
	}
	return s.peer.Lead(ctx, fn)
}

func isBroker(state *broker.State, key statement.Key) bool {
	for _, listed := range state.Chain().Current().Brokers {
		if listed.Identity == key {
			return true
		}
	}
	return false
}
