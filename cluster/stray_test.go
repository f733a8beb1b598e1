package cluster

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"pim-ssh/broker/statement"
)

// TestACandidateThatBelievesInALeaderLetsOthersLead has the last heartbeat of a leader that is gone reach a broker which already
// stands for election: raft then keeps that leader for as long as it stands, and denies everybody else its vote. It cannot win
// itself, because it was away.
func TestACandidateThatBelievesInALeaderLetsOthersLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		gone, behind := r.leader(), r.follower()
		var next statement.BrokerName
		for _, name := range r.names {
			if name != gone && name != behind {
				next = name
			}
		}
		r.filed(gone)
		r.ready(next)
		r.sever(behind)
		r.filed(gone)
		r.ready(next)
		r.sever(next)
		r.close(gone)
		node := r.node(behind)
		answers := make(chan raft.RPCResponse, 2)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(gone), Addr: []byte(gone)}
		node.wire.incoming <- raft.RPC{RespChan: answers, Command: &raft.TimeoutNowRequest{RPCHeader: header}}
		synctest.Wait()
		node.wire.incoming <- raft.RPC{RespChan: answers, Command: &raft.AppendEntriesRequest{RPCHeader: header, Term: node.raft.CurrentTerm()}}
		synctest.Wait()
		if leader, _ := node.raft.LeaderWithID(); node.raft.State() != raft.Candidate || leader != raft.ServerAddress(gone) {
			t.Fatalf("it is a %s and believes in %q: nothing to show here any more", node.raft.State(), leader)
		}
		r.heal(behind)
		r.heal(next)
		r.within("the other one leads", func() bool { return r.leader() == next })
		r.filed(next)
	})
}
