package effect

import (
	"context"
	"log/slog"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Cluster is what a sweep needs of the cluster; package edge says more about both.
type Cluster interface {
	// Propose has the cluster decide a command.
	Propose(ctx context.Context, command broker.Command) (broker.Outcome, error)
	// View lets fn look at the state, or fails with Unavailable, also when another broker leads.
	View(ctx context.Context, fn func(*broker.State)) error
}

// compareAfter is how many events pass before brokers compare their states' digests, when nothing lapses meanwhile.
const compareAfter = 1000

// Sweep records lapses and expiries on the leader, and has the brokers compare their states. It proposes nothing while
// there is nothing to record, so that an idle cluster writes nothing.
type Sweep struct {
	Cluster Cluster
	Now     func() statement.Time
	Every   time.Duration // how often to look; a few seconds
	Log     *slog.Logger

	compared uint64 // index at the last comparison
}

// Run sweeps until ctx ends.
func (s *Sweep) Run(ctx context.Context) {
	look := time.NewTicker(s.Every)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			s.Once(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Once looks once, and proposes a Tick when there is something to record or enough to compare.
func (s *Sweep) Once(ctx context.Context) {
	var tick *broker.Command
	err := s.Cluster.View(ctx, func(state *broker.State) {
		if state.Due(s.Now()) || state.Index() >= s.compared+compareAfter {
			command := broker.TickAt(s.Now(), &broker.StateAt{Index: state.Index(), Digest: state.Digest()})
			s.compared, tick = state.Index(), &command
		}
	})
	if err != nil || tick == nil {
		return // another broker leads, or all is quiet
	}
	if _, err := s.Cluster.Propose(ctx, *tick); err != nil {
		s.Log.Warn("the sweep was not recorded and will be tried again", "error", err)
	}
}
