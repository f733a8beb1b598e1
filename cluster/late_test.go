package cluster

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// TestASnapshotThatComesLateIsNotTaken sends a broker a snapshot of before what it has applied, as a leader does whose disk or wire
// hung. Raft would take it, go back, and panic over entries that it has thrown away since.
func TestASnapshotThatComesLateIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		leader, late := r.leader(), r.follower()
		for range 10 {
			r.filed(leader)
		}
		future := r.node(leader).raft.Snapshot()
		if err := future.Error(); err != nil {
			t.Fatal(err)
		}
		meta, reader, err := future.Open()
		if err != nil {
			t.Fatal(err)
		}
		state, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			r.filed(leader)
		}
		r.ready(late)
		r.digest(late)
		r.forget()
		node := r.node(late)
		before := node.raft.AppliedIndex()
		answer := make(chan raft.RPCResponse, 1)
		node.wire.incoming <- raft.RPC{RespChan: answer, Reader: bytes.NewReader(state), Command: &raft.InstallSnapshotRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: []byte(leader)}, SnapshotVersion: meta.Version,
			Term: node.raft.CurrentTerm(), Leader: []byte(leader), LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: int64(len(state)),
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex}}
		if said := <-answer; said.Error == nil {
			t.Error("it is taken")
		}
		if after := node.raft.AppliedIndex(); after < before {
			t.Fatalf("it went back from entry %d to %d", before, after)
		}
		r.filed(r.leader())
		r.agree()
	})
}
