package edge

import (
	"context"
	"slices"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// mayChange asks the other brokers before a change to the cluster that they could not live with. The rules have nothing against
// it: what brokers can do is not in the state. The caller leads.
func (s *Server) mayChange(ctx context.Context, command broker.Command) error {
	if command.Kind != broker.RaiseRules && command.Kind != broker.ChangeCluster {
		return nil
	}
	var event broker.Event
	var chain policy.Chain
	err := s.lead(ctx, func(state *broker.State) {
		chain = state.Chain()
		command := command.Under(state)
		command.At = s.now()
		if decided, refused := broker.Decide(state, command); refused == nil && len(decided.Events) > 0 {
			event = decided.Events[0]
		}
	})
	if err != nil || event == nil {
		return err
	}
	seats := s.member.Seats()
	switch event := event.(type) {
	case *broker.RulesRaised:
		return s.allKnow(ctx, chain, seats, event.Rules)
	case *broker.BrokerRemoved:
		return s.majorityWithout(ctx, chain, seats, event)
	default:
		return nil
	}
}

// allKnow refuses rules that a member does not know: it would stop.
func (s *Server) allKnow(ctx context.Context, chain policy.Chain, seats []Seat, rules int) error {
	var names []statement.BrokerName
	for _, seat := range seats {
		names = append(names, seat.Name)
	}
	answers := s.ask(ctx, chain, s.member.Self(), names)
	slices.Sort(names)
	for _, name := range names {
		said := answers[name]
		switch {
		case said.err != nil:
			return broker.Refuse(broker.Conflict, "start it, or: pim-ssh cluster remove "+string(name),
				"%s does not answer, so nobody knows whether it knows rules %d: %w", name, rules, said.err)
		case said.Rules < rules:
			return broker.Refuse(broker.Conflict, "upgrade pim-brokerd on "+string(name)+" first",
				"%s runs pim-brokerd %.40s, which does not know rules %d", name, said.Version, rules)
		}
	}
	return nil
}

// majorityWithout refuses a removal after which fewer than a majority of those that vote would be there.
func (s *Server) majorityWithout(ctx context.Context, chain policy.Chain, seats []Seat, e *broker.BrokerRemoved) error {
	var left, silent []statement.BrokerName
	for _, seat := range seats {
		if seat.Votes && (seat.Name != e.Broker || seat.Disk != e.Disk) {
			left = append(left, seat.Name)
		}
	}
	answers := s.ask(ctx, chain, s.member.Self(), left)
	for _, name := range left {
		if answers[name].err != nil {
			silent = append(silent, name)
		}
	}
	if len(left)-len(silent) > len(left)/2 {
		return nil
	}
	slices.Sort(silent)
	hint := "add another one first: pim-ssh cluster add"
	if len(silent) > 0 {
		hint = "start " + string(silent[0]) + " first, or remove that one"
	}
	return broker.Refuse(broker.Conflict, hint, "without %s no majority is left: %d of %d brokers that vote would answer", e.Broker, len(left)-len(silent), len(left))
}
