package main

import (
	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/edge"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

// Self is what this broker says of itself when another one asks.
func (m *member) Self() api.PeerStatus {
	node := m.node.Load()
	said := api.PeerStatus{Name: m.name, Disk: node.Disk(), Rules: broker.Rules, Version: version, Now: clock()}
	status := node.Status()
	said.Events, said.Low = status.Events, status.Low
	for name, refusal := range node.Refusals() {
		if said.Told == nil {
			said.Told = map[statement.BrokerName]string{}
		}
		said.Told[name] = refusal.Why
	}
	return said
}

// Seats are raft's members as far as this broker knows.
func (m *member) Seats() []edge.Seat {
	var same []edge.Seat
	for _, seat := range m.node.Load().Seats() {
		same = append(same, edge.Seat(seat))
	}
	return same
}

// Chain is the policy as far as this broker knows it.
func (m *member) Chain() policy.Chain { return m.node.Load().Chain() }
