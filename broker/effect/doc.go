// Package effect is what follows from committed events, outside the rules: the sweep, which records what time alone has
// ended, the record, which publishes the events as a log that nobody can rewrite unseen, and the alarm, which writes into the
// journal what somebody should look at.
//
// It decides when it is worth asking the cluster to look at the clock. It never ends anything: certificates and hosts end
// windows untold, and a sweep that never ran would only leave the log without the record. A broken effect blocks and
// changes no decision.
//
// It is run by cmd/pim-brokerd beside edge, and meets the cluster through the Cluster interface. Read
// sweep.go, then record.go and alarm.go.
package effect
