package cluster

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// TestARemovedBrokerFindsNoOtherDoor has an operator remove a broker that is owned, and that policy still lists: its key is good,
// and it may say what it likes. The others refuse it when they run and when they have just started, before anybody leads.
func TestARemovedBrokerFindsNoOtherDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrio(t)
		owned := r.follower()
		r.list("b4")
		disk4 := r.join("b4")
		r.change(statement.Add, "b4", disk4, true)
		r.change(statement.Remove, owned, "", false)
		r.within("it is out", func() bool {
			for _, seat := range r.node(r.leader()).Seats() {
				if seat.Name == owned {
					return false
				}
			}
			return true
		})
		disk := r.node(owned).Disk()
		r.close(owned)
		r.within("the word on b4 is kept", func() bool { return r.node("b4").door.added.Load() != nil })
		add := func(world *forger.World, name statement.BrokerName, disk statement.Disk, by statement.Person) *statement.Proof {
			proof := world.Sign(statement.Cluster{Head: world.Head(statement.KindCluster, by), Action: statement.Add, Broker: name, Disk: disk}, by)
			return &proof
		}
		begin := r.node("b4").begin
		founding, deployment := r.node(r.leader()).begin.origin, begin.chain.Deployment()
		tries := map[string]struct {
			says   greeting
			enters bool
		}{
			"the disk it had":                     {greeting{origin: founding, mark: disk, id: raft.ServerID(owned)}, false},
			"another disk under the old id":       {greeting{origin: founding, mark: disk2, id: raft.ServerID(owned)}, false},
			"a new disk that nobody added":        {greeting{origin: deployment, mark: disk2, id: raft.ServerID(owned) + "/" + disk2}, false},
			"the word on another broker":          {greeting{origin: deployment, mark: disk2, id: raft.ServerID(owned) + "/" + disk2, added: r.node("b4").door.added.Load()}, false},
			"the word on another disk":            {greeting{origin: deployment, mark: disk2, id: raft.ServerID(owned) + "/" + disk2, added: add(r.world, owned, disk3, "dave")}, false},
			"the word of somebody who may not":    {greeting{origin: deployment, mark: disk2, id: raft.ServerID(owned) + "/" + disk2, added: add(r.world, owned, disk2, "alice")}, false},
			"the word of an operator elsewhere":   {greeting{origin: deployment, mark: disk2, id: raft.ServerID(owned) + "/" + disk2, added: add(forger.New(t, nil), owned, disk2, "dave")}, false},
			"an operator's word not yet known of": {greeting{origin: deployment, mark: disk2, id: raft.ServerID(owned) + "/" + disk2, added: add(r.world, owned, disk2, "dave")}, true},
		}
		try := func(when string, at statement.BrokerName) {
			t.Helper()
			for sentence, c := range tries {
				if _, err := welcomed(t, r.node(at).door, owned, c.says); (err == nil) != c.enters {
					t.Errorf("%s, %s %s: %v", sentence, at, when, err)
				}
			}
		}
		at := r.leader()
		try("leading", at)
		for _, name := range r.names {
			r.close(name)
		}
		r.open(at)
		if events := r.node(at).Status().Events; events != 0 {
			t.Logf("%s knows %d events before anybody leads", at, events)
		}
		try("just started", at)
	})
}
