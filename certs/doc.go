// Package certs turns a grant's words into an OpenSSH user certificate and judges the certificates that come back.
//
// It decides what a certificate of ours looks like (one principal named after the grant, no options, permit-pty at
// most, never valid outside the window) and refuses every other. It never decides who may have one: broker.Judge
// says so, and its caller passes the answer in as Spec or Want. It is pure and a leaf: time, randomness and the CA's
// signer are arguments; the key itself lives in certs/signer.
//
// Read issue.go first, then check.go, then hosts.go.
package certs
