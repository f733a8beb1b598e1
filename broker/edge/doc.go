// Package edge is where strangers meet the broker: it authenticates, builds the command, has the cluster decide it, and
// answers.
//
// It decides who is calling and what they may see, and how much of the broker one caller may use. It never decides what
// a statement means (package broker does, inside the cluster) and never makes anything happen that a signed statement did
// not ask for. Certificates are signed here, on a read by the grant's holder, and only for keys whose CertificateIssued
// event is committed.
//
// It serves the one table of routes of package api, and meets the cluster, which it never imports, through the Cluster
// interface. Read server.go first, then caller.go (who is calling), statements.go (writes), concern.go (who sees what)
// and watch.go.
package edge
