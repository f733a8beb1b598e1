package broker

import (
	"bytes"
	"slices"

	"pim-ssh/broker/statement"
)

// EndedHow says how access was taken away before its window was over.
type EndedHow string

// The closed set of ways to end. A judge takes any other word for an end too.
const (
	EndedByReturn   EndedHow = "return"   // the holder gave the grant back
	EndedByRevoke   EndedHow = "revoke"   // somebody else, or a new policy, ended the grant
	EndedByWithdraw EndedHow = "withdraw" // the asker took the request back
	EndedByRestore  EndedHow = "restore"  // the request was pending when the brokers were restored from a backup
)

// Ended is a broker's word that a request or grant is over. It needs no signature: it only ever takes away.
type Ended struct {
	How EndedHow       `json:"how"`
	At  statement.Time `json:"at"`
}

// Dossier is a grant with the statements that prove it. Id, window and hosts are computed from them, never carried.
type Dossier struct {
	Request      statement.Proof   `json:"request"`
	Decisions    []statement.Proof `json:"decisions"`    // in the order they were filed, which means nothing
	Certificates []statement.Proof `json:"certificates"` // by the holder, one more key each
	Ended        *Ended            `json:"ended"`        // null while nothing ended it
}

// Stem returns the stem that the request's bytes give.
func (d Dossier) Stem() Stem { return StemOf(d.Request.Hash()) }

// Merge returns what two dossiers of one request know together: every statement of either, once by its payload's
// hash, and the earlier end; an end is never forgotten. Dossiers of different requests are a conflict. Nothing is
// judged here, but of two envelopes around the same payload one that opens is kept.
func Merge(a, b Dossier) (Dossier, error) {
	if a.Request.Hash() != b.Request.Hash() {
		return Dossier{}, Refuse(Conflict, "", "dossiers of two requests, %s and %s", a.Stem().Request(), b.Stem().Request())
	}
	return Dossier{
		Request:      sounder(a.Request, b.Request),
		Decisions:    union(a.Decisions, b.Decisions),
		Certificates: union(a.Certificates, b.Certificates),
		Ended:        earlier(a.Ended, b.Ended),
	}, nil
}

func union(a, b []statement.Proof) []statement.Proof {
	sum := slices.Clone(a)
	for _, p := range b {
		at := slices.IndexFunc(sum, func(q statement.Proof) bool { return bytes.Equal(p.Payload, q.Payload) })
		if at < 0 {
			sum = append(sum, p)
			continue
		}
		sum[at] = sounder(sum[at], p)
	}
	return sum
}

// sounder returns a, but b when only b's signatures hold: whoever spoils an envelope must not spoil the statement.
func sounder(a, b statement.Proof) statement.Proof {
	if slices.EqualFunc(a.Signatures, b.Signatures, bytes.Equal) {
		return a
	}
	if _, err := statement.Open(a); err == nil {
		return a
	}
	if _, err := statement.Open(b); err == nil {
		return b
	}
	return a
}

func earlier(a, b *Ended) *Ended {
	switch {
	case a == nil:
		return b
	case b == nil || a.At <= b.At:
		return a
	default:
		return b
	}
}
