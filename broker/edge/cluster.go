package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Member is what edge needs to know of this broker's place among the others. Nothing here asks another broker.
type Member interface {
	// Self is what this broker says of itself when another one asks.
	Self() api.PeerStatus
	// Seats are raft's members as far as this broker knows.
	Seats() []Seat
	// Chain is the policy as far as this broker knows it, whoever leads: which keys are brokers', and where they are.
	Chain() policy.Chain
}

// Seat is one of raft's members.
type Seat struct {
	Name  statement.BrokerName
	Disk  statement.Disk // none: the one it was bootstrapped with
	Votes bool
}

// statusPatience is how long one broker may take to say how it is.
const statusPatience = 1500 * time.Millisecond

// policiesAtOnce is how many policies one broker shows another at once.
const policiesAtOnce = 16

// peerStatus tells another broker how this one is, and the policies after the one it knows. It answers without a leader too:
// that is when it matters.
func (s *Server) peerStatus(_ http.ResponseWriter, r *http.Request) (any, error) {
	after, given, err := number(r, "after")
	if err != nil {
		return nil, err
	}
	if err := s.aPeer(r); err != nil {
		return nil, err
	}
	said := s.member.Self()
	if given {
		proofs := s.member.Chain().Until(after + policiesAtOnce).Proofs()
		said.Policies = proofs[min(after, uint64(len(proofs))):]
	}
	return said, nil
}

// ensemble is the cluster as the state has it.
type ensemble struct {
	chain    policy.Chain
	rules    int
	epoch    uint64
	events   uint64
	members  []broker.Member
	removals []broker.Removal
}

func ensembleOf(state *broker.State) ensemble {
	return ensemble{state.Chain(), state.Rules(), state.Epoch().Number, state.Index(), state.Members(), state.Removals()}
}

// clusterStatus tells operators and auditors how the brokers are.
func (s *Server) clusterStatus(w http.ResponseWriter, r *http.Request) (any, error) {
	var all ensemble
	_, err := s.read(func(a asking) (any, error) {
		if !a.doc.Operator(a.person) && !a.doc.Auditor(a.person) {
			return nil, broker.Refuse(broker.Denied, "ask an operator or an auditor", "%s is neither operator nor auditor", a.person)
		}
		all = ensembleOf(a.state)
		return nil, nil
	})(w, r)
	if err != nil {
		return nil, err
	}
	self := s.member.Self()
	answer := api.Cluster{Asked: self.Name, Leader: s.leader(r.Context(), self.Name, all.chain), Rules: all.rules, Epoch: all.epoch, Events: all.events, Brokers: all.places(s.member.Seats())}
	s.askAll(r.Context(), all, self, answer.Brokers)
	return answer, nil
}

// leader is the name of the broker that leads, or "".
func (s *Server) leader(ctx context.Context, self statement.BrokerName, chain policy.Chain) statement.BrokerName {
	if s.peer == nil {
		return self
	}
	leads, own, err := s.peer.Leader(ctx)
	if own {
		return self
	}
	for name, listed := range chain.Current().Brokers {
		if err == nil && listed.Identity == leads.Identity {
			return name
		}
	}
	return ""
}

// places says where every broker stands that policy lists or raft still knows, sorted by name.
func (all ensemble) places(seats []Seat) []api.BrokerView {
	views := map[statement.BrokerName]api.BrokerView{}
	for _, seat := range seats {
		view := api.BrokerView{Name: seat.Name, Place: api.PlaceLeaving, Disk: seat.Disk, Founding: seat.Disk == ""}
		if all.stays(seat) {
			view.Place = api.PlaceVoter
		}
		views[seat.Name] = view
	}
	for name, listed := range all.chain.Current().Brokers {
		view, seated := views[name]
		view.Name, view.Address = name, listed.Address
		switch {
		case seated:
		case all.removed(name, ""):
			view.Place = api.PlaceRemoved
		default:
			view.Place = api.PlaceListed
		}
		views[name] = view
	}
	for _, m := range all.members {
		view := views[m.Name]
		view.Name, view.Disk, view.Founding = m.Name, m.Disk, false
		switch votes := slices.Contains(seats, Seat{m.Name, m.Disk, true}); {
		case votes:
			view.Place = api.PlaceVoter
		case m.Watching:
			view.Place = api.PlaceWatching
		default:
			view.Place = api.PlaceCatching
		}
		views[m.Name] = view
	}
	var list []api.BrokerView
	for _, view := range views {
		list = append(list, view)
	}
	slices.SortFunc(list, func(a, b api.BrokerView) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return list
}

// stays reports whether a founding member is to keep its seat.
func (all ensemble) stays(seat Seat) bool {
	_, listed := all.chain.Current().Brokers[seat.Name]
	return seat.Disk == "" && listed && !all.removed(seat.Name, "")
}

func (all ensemble) removed(name statement.BrokerName, disk statement.Disk) bool {
	return slices.ContainsFunc(all.removals, func(r broker.Removal) bool { return r.Name == name && r.Disk == disk })
}

// askAll fills in what every broker says of itself.
func (s *Server) askAll(ctx context.Context, all ensemble, self api.PeerStatus, views []api.BrokerView) {
	ask := make([]statement.BrokerName, len(views))
	for i, view := range views {
		ask[i] = view.Name
	}
	answers := s.ask(ctx, all.chain, self, ask)
	for i := range views {
		view, said := &views[i], answers[views[i].Name]
		if said.err != nil {
			view.Why = said.err.Error()
			continue
		}
		view.Reachable, view.Rules, view.Version, view.Low, view.Told = true, said.Rules, said.Version, said.Low, said.Told
		if said.older {
			continue
		}
		view.Ahead = said.Now.Sub(self.Now)
		if all.events > said.Events {
			view.Behind = all.events - said.Events
		}
		if view.Disk == "" {
			view.Disk = said.Disk
		}
	}
}

// said is what a broker said of itself, or why it said nothing.
type said struct {
	api.PeerStatus
	older bool // it runs a build from before brokers were asked: only Rules and Version are known
	err   error
}

// ask asks brokers side by side how they are; this one is not asked.
func (s *Server) ask(ctx context.Context, chain policy.Chain, self api.PeerStatus, names []statement.BrokerName) map[statement.BrokerName]said {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	answers := map[statement.BrokerName]said{}
	for _, name := range names {
		asked.Go(func() {
			answer := s.askOne(ctx, chain, self, name)
			mu.Lock()
			defer mu.Unlock()
			answers[name] = answer
		})
	}
	asked.Wait()
	return answers
}

func (s *Server) askOne(ctx context.Context, chain policy.Chain, self api.PeerStatus, name statement.BrokerName) said {
	to, listed := chain.Current().Brokers[name]
	switch {
	case name == self.Name:
		return said{PeerStatus: self}
	case !listed:
		return said{err: fmt.Errorf("the policy lists no broker %s", name)}
	case s.peers == nil:
		return said{err: errors.New("this broker is alone")}
	}
	status, err := s.peers.Status(ctx, name, to, chain.Ref().Revision)
	if broker.KindOf(err) == broker.Missing { // it has no such route
		return said{PeerStatus: api.PeerStatus{Name: name, Rules: 1, Version: "0"}, older: true}
	}
	return said{PeerStatus: status, err: err}
}
