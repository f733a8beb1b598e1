// Package clustertest is a cluster of brokers in one process, to be broken: real raft, real bbolt, the real edge and the
// real watch stream, on a network, disks and clocks that fail as a seed says; people and hosts who use it meanwhile; and
// the judge of what came of it.
//
// It decides whether a history is one that the promises allow. It never reaches a program (the layout test sees to that)
// and knows the rules only from DESIGN: its model of who may what shares no code with package broker.
//
// All of it runs inside testing/synctest: timeouts, elections and clocks are virtual, so a minute costs a second. A seed
// fixes the faults and what people try; which goroutine runs first is the scheduler's.
//
// Read chaos.go first, then cluster.go (brokers and how they die), people.go and model.go.
package clustertest
