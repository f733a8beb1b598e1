// Package signer is where a CA key lives: in a file only the broker may read (a systemd credential), or behind an
// ssh-agent socket (HSM, TPM, YubiKey).
//
// It decides whether a place is fit to hold the key; it never decides what is signed (package certs does) and never
// prints, copies or logs a private key. It sits at the edge, beside cmd/pim-brokerd, the one program that calls it.
//
// Read open.go first, then agent.go, then generate.go.
package signer
