// Package signtest makes keys for tests: the same ones on every run, of every type statement accepts, with FIDO2
// security keys done in software so that their flags can be set to anything an attacker would try.
//
// It decides nothing and never stands in for our own packages: what it signs is checked by the real ones and by
// ssh-keygen. It is test support: the layout test keeps it out of programs. Read key.go first, then security.go,
// then agent.go.
package signtest
