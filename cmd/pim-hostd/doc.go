// Command pim-hostd is the agent on a managed host: `enrol` takes an operator's token, `run` serves PAM and sshd, `enforce`
// makes the machine refuse what no grant covers, `observe` makes it only say so, and `release` takes everything back.
//
// It holds words and wiring, no rules: package agent decides at run time, package enforce writes /etc. Read main.go
// first, then wire.go (the only file here that touches clock, environment and machine), then config.go.
package main
