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

// peerSum tells another broker what to hold events to that it gets from anybody. It asks nobody, and need not know that it
// leads: what is in the log is committed, and who asks may be the one without whom nobody can be sure to lead.
func (s *Server) peerSum(_ http.ResponseWriter, r *http.Request) (any, error) {
	of, _, err := number(r, "of")
	if err != nil {
		return nil, err
	}
	if err := s.aPeer(r); err != nil {
		return nil, err
	}
	if of > 0 {
		last, _, err := s.cluster.Events(of-1, 1)
		if err != nil {
			return nil, err
		}
		if len(last) == 0 {
			return nil, broker.Refuse(broker.Missing, "", "there is no event %d yet", of-1)
		}
	}
	sum, err := s.cluster.Sum(of)
	return api.PeerSum{Sum: sum}, err
}

// peerEvents shows another broker the log as this one has it, a batch at a time. It asks nobody.
func (s *Server) peerEvents(_ http.ResponseWriter, r *http.Request) (any, error) {
	from, _, err := number(r, "from")
	if err != nil {
		return nil, err
	}
	if err := s.aPeer(r); err != nil {
		return nil, err
	}
	events, _, err := s.cluster.Events(from, batch)
	return api.PeerEvents{Events: events}, err
}

// aPeer lets in a caller who has proved the key of a broker that the policy lists, as far as this broker knows.
func (s *Server) aPeer(r *http.Request) error {
	if key, shown := hostKey(r); !shown || !lists(s.member.Chain().Current(), key) {
		return broker.Refuse(broker.Denied, "", "this is between brokers")
	}
	return nil
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
		if lists(state.Chain().Current(), key) {
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

// lists reports whether a key is the identity of a broker that a policy lists.
func lists(doc *policy.Document, key statement.Key) bool {
	for _, listed := range doc.Brokers {
		if listed.Identity == key {
			return true
		}
	}
	return false
}
