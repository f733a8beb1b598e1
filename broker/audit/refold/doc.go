// Package refold is the auditor's judge: it decides a whole record again, from its first event, and says what is wrong.
//
// It decides whether every event is what the rules make of the signed statement in it, under the policy and in the state of
// that moment (Replay), and whether a record as a whole is what a broker signed, what was seen of it before, and what hosts
// say they were shown (Verify). It believes no broker's word but the times it stamped, and holds those to the statements'
// own. It reads nothing itself, and changes nothing.
//
// It stands on package audit (the bytes) and package broker (the rules); pim-ssh audit prints what it finds. Read replay.go
// first, then verify.go.
package refold
