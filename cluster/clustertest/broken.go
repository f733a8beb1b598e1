package clustertest

import (
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"pim-ssh/broker"
	"pim-ssh/cluster"
)

// Breakage is what is broken on purpose, to show that the judge reports it.
type Breakage string

// The breakages.
const (
	Sound    Breakage = ""
	NoVerify Breakage = "a leader does not ask whether it still leads"
	NoSync   Breakage = "raft.db is not synced"
	Twice    Breakage = "an event is folded twice"
	Unburied Breakage = "an end is forgotten"
)

func (br Breakage) into(s *cluster.Seams) {
	switch br {
	case NoVerify:
		s.Verify = func(*raft.Raft) raft.Future { return settled{} }
	case NoSync:
		s.Store = func(o *bbolt.Options) { o.NoSync = true }
	case Twice:
		s.Evolve = func(state *broker.State, event broker.Event) {
			broker.Evolve(state, event)
			if _, is := event.(*broker.DecisionFiled); is {
				broker.Evolve(state, event)
			}
		}
	case Unburied:
		s.Evolve = forgetEnds
	}
}

// settled is a future that is there.
type settled struct{}

// Error is nil.
func (settled) Error() error { return nil }

// forgetEnds folds everything but what ends a grant.
func forgetEnds(state *broker.State, event broker.Event) {
	switch event.(type) {
	case *broker.GrantReturned, *broker.GrantRevoked:
		event = &broker.PolicyForked{EventHead: event.Head()} // of revision 0: nothing
	}
	broker.Evolve(state, event)
}
