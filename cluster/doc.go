// Package cluster makes several brokers one: commands go through raft, package broker decides them, and what it decides
// is appended to the event log that will be audited.
//
// It decides when a command is committed, whether this broker may answer for the cluster, and whether the disk under it
// is the one it left. It never decides what a command means, never looks into a statement, and serves no routes. Edge
// (which it never imports) meets it in cmd/pim-brokerd/wire.go.
//
// Read DESIGN.md for the reasons, then node.go, machine.go (the state machine under raft) and events.go.
package cluster
