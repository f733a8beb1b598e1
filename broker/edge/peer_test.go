package edge

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// deposed is a place among brokers that may not be able to tell whether it leads.
type deposed struct {
	lost atomic.Bool
	s    *Server
}

// Leader is this broker, as far as it knows.
func (d *deposed) Leader(context.Context) (policy.Broker, bool, error) {
	return policy.Broker{}, true, nil
}

// Lead fails once it is lost.
func (d *deposed) Lead(ctx context.Context, fn func(*broker.State)) error {
	if d.lost.Load() {
		return broker.Refuse(broker.Unavailable, "", "this broker does not lead: %w", broker.ErrNotLeader)
	}
	return d.s.cluster.View(ctx, fn)
}

// TestASumIsToldByWhoDoesNotKnowWhetherItLeads: a leader may need the very broker that asks before it can be sure.
func TestASumIsToldByWhoDoesNotKnowWhetherItLeads(t *testing.T) {
	d := &deposed{}
	s := newStage(t, nil, func(server *Server, _ *Front) { d.s, server.peer = server, d })
	own, err := api.SelfSigned(rand.Reader, s.world.Identity)
	s.must(err)
	peers := api.NewPeers(&own)
	defer peers.Close()
	b1 := s.world.Chain.Current().Brokers["b1"]
	d.lost.Store(true)
	want, err := s.node.Sum(3)
	s.must(err)
	if have, err := peers.Sum(t.Context(), b1, 3); err != nil || have != want {
		t.Errorf("its sum is %s, %v", have, err)
	}
	if _, err := peers.Sum(t.Context(), b1, 4); broker.KindOf(err) != broker.Missing {
		t.Errorf("the sum of more events than there are: %v", err)
	}
	if _, err := peers.Index(t.Context(), b1); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("but it says how far the log has come: %v", err)
	}
	if sum, err := api.NewPeers(nil).Sum(t.Context(), b1, 3); broker.KindOf(err) != broker.Denied || sum != (statement.Hash{}) {
		t.Errorf("and to nobody it says %v", err)
	}
}
