package cluster

import "github.com/hashicorp/raft"

// stray is a candidate that believes in a leader: raft clears its leader when it begins to stand for election, and a heartbeat
// that is answered in the same moment, past raft's main loop or during a handing over, sets it again. While it stands, raft denies
// everybody else its vote because of that leader, for ever if it cannot win itself.
type stray struct {
	term   uint64
	leader raft.ServerAddress // "": none
}

func (n *Node) stray() stray {
	leader, _ := n.raft.LeaderWithID()
	if n.raft.State() != raft.Candidate {
		leader = ""
	}
	return stray{n.raft.CurrentTerm(), leader}
}

// forget has raft follow nobody and begin again, as it does when a leader is silent, if it still is what it was a while ago. It is
// a heartbeat of nobody: it holds no entry, raises no term, and one who has been elected meanwhile is elected again.
func (t *transport) forget(was, is stray) {
	if is.leader == "" || was != is {
		return
	}
	t.hand(&raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: is.term})
}
