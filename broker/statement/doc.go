// Package statement is what people, hosts and stewards sign: its shapes, its namespaces, and what a valid
// signature is.
//
// It decides whether bytes are one well-formed statement and which keys really signed them. It never decides
// whether those keys may say it: that is the judge's question (package broker). It is a leaf: it reads no
// clock, disk, network or randomness, and imports nothing of ours.
//
// Read statement.go first (the bodies), then proof.go (bytes and signatures), then key.go.
package statement
