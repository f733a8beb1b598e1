package clustertest

import (
	"testing"
	"testing/synctest"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// scene runs a cluster in a bubble, without people or faults of its own.
func scene(t *testing.T, shape Shape, play func(*testing.T, *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := New(t, 3, 1, shape)
		c.within(t, "everybody answers", func(b *Broker) bool { return b.idle() || c.index(b) > 0 })
		play(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, wrong := range c.found {
			t.Error(wrong)
		}
	})
}

// within waits until something holds for every broker.
func (c *Cluster) within(t *testing.T, what string, holds func(*Broker) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		all := true
		for _, name := range c.Names {
			all = all && holds(c.brokers[name])
		}
		if all {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s\n%s", what, c.log.all.String())
		}
		_ = pause(t.Context(), 20*time.Millisecond) // the loop looks
	}
}

// file has whoever leads record a refusal, which is one event.
func (c *Cluster) file(t *testing.T) {
	t.Helper()
	command, err := broker.CommandFor(c.World.Ask("alice", "web-deploy", "web1", 60, c.World.People["alice"], nil), 0)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if leader := c.Leader(); leader != "" {
			if l := c.brokers[leader].current(); l != nil {
				_, err = l.node.Propose(t.Context(), command)
			}
		}
		if broker.KindOf(err) == broker.Missing {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not filed: %v", err)
		}
		_ = pause(t.Context(), 20*time.Millisecond) // the loop looks
	}
}

func (c *Cluster) others(than statement.BrokerName) []*Broker {
	var others []*Broker
	for _, name := range c.Members() {
		if name != than {
			others = append(others, c.brokers[name])
		}
	}
	return others
}

// TestALeaderShowsWhatAFollowerHasShown gives the leader a slow disk: what is committed, a follower applies before it does.
func TestALeaderShowsWhatAFollowerHasShown(t *testing.T) {
	scene(t, Shape{}, func(t *testing.T, c *Cluster) {
		leader := c.brokers[c.Leader()]
		follower := c.others(leader.Name)[0]
		before := c.index(follower)
		leader.trouble(trouble{stall: 300 * time.Millisecond})
		filed := make(chan struct{})
		go func() {
			defer close(filed)
			c.file(t)
		}()
		shown := uint64(0)
		for shown <= before {
			if err := follower.current().node.Local(func(s *broker.State) { shown = s.Index() }); err != nil {
				t.Fatal(err)
			}
			_ = pause(t.Context(), time.Millisecond) // the loop looks
		}
		if shown := c.index(follower); shown <= before {
			t.Fatalf("the follower shows %d events again", shown)
		}
		if now := c.index(leader); now <= before {
			t.Errorf("the leader shows %d events, a follower has shown %d", now, before+1)
		}
		leader.trouble(trouble{})
		<-filed
	})
}

// TestABrokerWithoutWhichNobodyLeadsIsSentASnapshot: one broker is down, and of the two that are left one has to be sent so much
// before it can vote for anything that the other has forgotten its log.
func TestABrokerWithoutWhichNobodyLeadsIsSentASnapshot(t *testing.T) {
	scene(t, Shape{Snapshots: 4, Trailing: 10}, func(t *testing.T, c *Cluster) {
		leader := c.brokers[c.Leader()]
		down, behind := c.others(leader.Name)[0], c.others(leader.Name)[1]
		behind.Kill(false)
		for range 30 {
			c.file(t)
			_ = pause(t.Context(), 300*time.Millisecond) // long enough for snapshots
		}
		want := c.index(leader)
		down.Kill(false)
		leader.Kill(false)
		for _, b := range []*Broker{leader, behind} {
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
		}
		c.within(t, "both answer", func(b *Broker) bool { return b == down || b.idle() || c.index(b) >= want })
		if err := behind.current().node.Local(func(*broker.State) {}); err != nil {
			t.Error(err)
		}
		behind.Kill(false)
		if err := behind.Start(); err != nil { // on a log that the snapshot overtook
			t.Fatal(err)
		}
		c.file(t)
		behind.Kill(false)
		if err := behind.Start(); err != nil {
			t.Fatal(err)
		}
		c.within(t, "both answer again", func(b *Broker) bool { return b == down || b.idle() || c.index(b) > want })
	})
}
