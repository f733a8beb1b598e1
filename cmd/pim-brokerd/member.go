package main

import (
	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/edge"
	"pim-ssh/broker/policy"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

// Self is what this broker says of itself when another one asks.
func (m *member) Self() api.PeerStatus {
	node := m.node.Load()
	said := api.PeerStatus{Name: m.name, Disk: node.Disk(), Rules: broker.Rules, Version: version, Now: clock()}
	_ = node.Local(func(state *broker.State) { said.Events = state.Index() }) // a node that failed has nothing to say
	return said
}

// Seats are raft's members as far as this broker knows.
func (m *member) Seats() ([]edge.Seat, error) {
	seats, err := m.node.Load().Seats()
	var same []edge.Seat
	for _, seat := range seats {
		same = append(same, edge.Seat(seat))
	}
	return same, err
}

// Chain is the policy as far as this broker knows it.
func (m *member) Chain() policy.Chain { return m.node.Load().Chain() }
