package clustertest

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

const noon = statement.Time(946728000)

// tale writes a history by hand: one thing after the other, unless told otherwise.
type tale struct {
	ops  []*Op
	tick int64
	made int
}

func (h *tale) add(op *Op) *Op {
	h.tick += 2
	op.Call, op.Return = h.tick, h.tick+1
	if op.Lo == 0 {
		op.Lo, op.Hi = noon, noon+1
	}
	h.ops = append(h.ops, op)
	return op
}

func (h *tale) head(person statement.Person, kind statement.Kind) statement.Head {
	return statement.Head{Kind: kind, Person: person, Created: noon, NotAfter: noon + 3600}
}

func (h *tale) fresh() statement.Hash {
	h.made++
	return statement.Hash{0: byte(h.made), 1: 7}
}

// ask files alice's request, or somebody's, and says that it was taken.
func (h *tale) ask(person statement.Person, role statement.RoleName, host statement.HostName) *Op {
	hash := h.fresh()
	body := statement.Request{Head: h.head(person, statement.KindRequest), Role: role, Hosts: []statement.HostName{host}, Duration: 60, Expires: noon + 30}
	return h.add(&Op{Did: DidRequest, About: hash, Proof: hash, Person: person, Body: body, Told: told{index: uint64(h.tick) + 1, request: broker.StemOf(hash).Request()}})
}

// decide files an approval or a denial, and says that it was taken and whether it filled the quorum.
func (h *tale) decide(person statement.Person, about *Op, verdict statement.Verdict, fills bool) *Op {
	body := statement.Decision{Head: h.head(person, statement.KindDecision), Request: about.About, Verdict: verdict}
	op := &Op{Did: DidDecide, About: about.About, Proof: h.fresh(), Person: person, Body: body, Told: told{index: uint64(h.tick) + 1, request: broker.StemOf(about.About).Request()}}
	if fills {
		op.Told.grant = broker.StemOf(about.About).Grant()
	}
	return h.add(op)
}

func (h *tale) end(person statement.Person, about *Op, how statement.How) *Op {
	id := broker.StemOf(about.About)
	return h.add(&Op{Did: DidRevoke, About: about.About, Proof: h.fresh(), Person: person, Body: statement.End{Head: h.head(person, statement.KindEnd), How: how},
		Told: told{index: uint64(h.tick) + 1, request: id.Request(), grant: id.Grant()}})
}

func (h *tale) see(did Did, about *Op, seen told) *Op {
	return h.add(&Op{Did: did, About: about.About, Person: "frank", Told: seen})
}

func (h *tale) explained() bool { return porcupine.CheckOperations(model(), operations(h.ops)) }

// TestTheModelHoldsHistoriesToTheRules tells stories that rightly happened, and stories that no rule allows.
func TestTheModelHoldsHistoriesToTheRules(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(*tale)
		want bool
	}{
		"asked, approved, revoked": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true)
			h.see(DidStart, a, told{})
			h.end("dave", a, statement.Revoke)
			h.see(DidHear, a, told{ended: broker.EndedByRevoke})
		}, true},
		"nobody approves their own": {func(h *tale) { h.decide("bob", h.ask("bob", "root", "db1"), statement.Approve, false) }, false},
		"a stranger approves nothing": {func(h *tale) {
			h.decide("mallory", h.ask("alice", "db-admin", "db1"), statement.Approve, true)
		}, false},
		"who is not eligible asks for nothing": {func(h *tale) { h.ask("mallory", "db-admin", "db1") }, false},
		"a role reaches its own hosts only":    {func(h *tale) { h.ask("alice", "db-admin", "web1") }, false},
		"one of two approvals is no grant": {func(h *tale) {
			h.decide("bob", h.ask("alice", "root", "db1"), statement.Approve, true)
		}, false},
		"two approvals of one person are one": {func(h *tale) {
			a := h.ask("alice", "root", "db1")
			h.decide("bob", a, statement.Approve, false)
			h.decide("bob", a, statement.Approve, true)
		}, false},
		"two people's approvals are two": {func(h *tale) {
			a := h.ask("alice", "root", "db1")
			h.decide("bob", a, statement.Approve, false)
			h.decide("carol", a, statement.Approve, true)
		}, true},
		"a denial ends it": {func(h *tale) {
			a := h.ask("alice", "root", "db1")
			h.decide("bob", a, statement.Deny, false)
			h.decide("carol", a, statement.Approve, false)
		}, false},
		"the holder gives back, nobody else": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true)
			h.end("erin", a, statement.Return)
		}, false},
		"an end is for ever": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true)
			h.end("alice", a, statement.Return)
			h.see(DidList, a, told{state: broker.StateApproved})
		}, false},
		"no host starts anything before the grant": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.see(DidStart, a, told{})
			h.decide("bob", a, statement.Approve, true)
		}, false},
		"who reads afterwards sees it": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true)
			h.see(DidRead, a, told{state: broker.StatePending})
		}, false},
		"who reads meanwhile may see it or not": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true).Return += 2
			h.see(DidRead, a, told{state: broker.StatePending})
		}, true},
		"nothing is approved after it expired": {func(h *tale) {
			late := h.decide("bob", h.ask("alice", "db-admin", "db1"), statement.Approve, true)
			late.Lo, late.Hi = noon+31, noon+32
		}, false},
		"a repeated statement gets its first answer": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			again := *a
			h.add(&again)
		}, true},
		"and no other": {func(h *tale) {
			again := *h.ask("alice", "db-admin", "db1")
			again.Told.index++
			h.add(&again)
		}, false},
		"what nobody heard of may have happened": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true).Return = 0
			h.see(DidStart, a, told{})
		}, true},
		"or not": {func(h *tale) {
			a := h.ask("alice", "db-admin", "db1")
			h.decide("bob", a, statement.Approve, true).Return = 0
			h.see(DidRead, a, told{state: broker.StatePending})
		}, true},
		"later events have later indices": {func(h *tale) {
			a := h.ask("alice", "root", "db1")
			h.decide("bob", a, statement.Approve, false)
			h.decide("carol", a, statement.Approve, true).Told.index = 0
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := &tale{}
			c.tell(h)
			if got := h.explained(); got != c.want {
				t.Errorf("explained: %t, want %t", got, c.want)
			}
		})
	}
}
