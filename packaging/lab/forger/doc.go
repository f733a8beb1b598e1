// Package forger is a whole deployment in an attacker's hands, for tests only: every broker key, every CA key, the
// stewards' and people's keys where a test plays them honestly, and the means to bend each statement before or after it is
// signed.
//
// It decides nothing; hosts must. Honest tests use it to hand a host real proofs with no broker at all (promise one in
// its purest form); dishonest ones to offer what an owned cluster could. It never reaches a program: the layout test
// sees to that. It sits under packaging/lab; read world.go first.
package forger
