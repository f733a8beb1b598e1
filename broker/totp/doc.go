// Package totp is a person's second factor that brokers check: seeds, their codes by RFC 6238, recovery codes, and the
// sealed form in which brokers keep a seed.
//
// It decides whether a code is one of a seed's and of which step. It never decides whether a code may be used: what was used
// before, and how often somebody was wrong, is in the state and is package broker's. It keeps nothing, reads no clock, and shows
// a seed to nobody: only a broker's identity key opens a sealed one.
//
// A leaf beside statement: the CLI makes and seals seeds, package edge opens them and checks codes. Read seed.go, then seal.go.
package totp
