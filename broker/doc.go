// Package broker is the rules: how requests become grants, how grants end, and when a dossier opens a door.
//
// It decides, as pure functions of their arguments, what a command makes happen (Decide), what the state is after that
// (Evolve), and whether a dossier is a live grant here and now (Prove, LiveOn, Judge). It never reads a clock, a disk,
// the network or randomness, never signs anything, and never believes a broker: ids and windows follow from signed
// bytes alone, so three judges (every broker, every host, any auditor) come to one verdict.
//
// It stands on package policy (who may what) and package statement (what people sign); the cluster replicates its
// commands, the edge builds them, hosts use only dossier.go, grant.go and judge.go.
//
// Read decide.go first, then judge.go; then what a role may demand: eligible.go, decision.go (the quorum), judged.go and
// factor.go (what only brokers can check), budget.go, review.go.
package broker
