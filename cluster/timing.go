package cluster

import (
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// How raft is run; DESIGN.md has the reasons for the numbers.
const (
	keptSnapshots    = 2
	snapshotAfter    = 2048 // commands
	trailingCommands = 10240
	snapshotCheck    = 2 * time.Second // a broker that lives for seconds at a time has to get round to one, or replays ever more
	wirePool         = 3
	wireTimeout      = 5 * time.Second
	enqueueTimeout   = 5 * time.Second
	readyEvery       = 10 * time.Millisecond

	heartbeatTimeout = 500 * time.Millisecond  // a silent leader is doubted after one to two of these
	electionTimeout  = 1000 * time.Millisecond // a candidate that nobody elected waits one to two of these
	leaseTimeout     = 400 * time.Millisecond  // a leader that no majority hears stops leading: before anybody doubts it
)

func raftConfig(id raft.ServerID, log io.Writer) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.LogOutput = log
	c.LogLevel = "WARN"
	c.SnapshotThreshold = snapshotAfter
	c.SnapshotInterval = snapshotCheck
	c.TrailingLogs = trailingCommands
	c.NoLegacyTelemetry = true
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, electionTimeout, leaseTimeout
	c.ShutdownOnRemove = false // who was removed is told so, and may be asked
	return c
}
