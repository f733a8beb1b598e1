package main

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

func (r *trio) removal(name statement.BrokerName) statement.Proof {
	return r.world.Sign(statement.Cluster{Head: r.world.Head(statement.KindCluster, "dave"), Action: statement.Remove, Broker: name}, "dave")
}

// TestABrokerThatIsNeededIsNotRemoved kills one of three: an operator may remove that one, and neither of the others; the one
// that is gone stays gone when it is started again, and hears who removed it.
func TestABrokerThatIsNeededIsNotRemoved(t *testing.T) {
	r := newTrio(t)
	dead := r.follower()
	r.kill(dead)
	dave := r.as("dave")
	for _, name := range r.names {
		if name == dead {
			continue
		}
		_, err := dave.Submit(t.Context(), r.removal(name))
		if broker.KindOf(err) != broker.Conflict || !strings.Contains(err.Error(), "without "+string(name)+" no majority is left: 1 of 2") {
			t.Errorf("removing %s while %s is dead: %v", name, dead, err)
		}
	}
	if _, err := dave.Submit(t.Context(), r.removal(dead)); err != nil {
		t.Fatal(err)
	}
	r.within(10*time.Second, "two brokers that vote", func() bool {
		all, err := r.as("frank").Cluster(t.Context())
		return err == nil && len(voters(all)) == 2 && r.place(all, dead) == api.PlaceRemoved
	})
	r.start(dead)
	r.within(15*time.Second, "the sentence", func() bool {
		all, err := r.as("frank").Cluster(t.Context())
		r.must(err)
		for _, b := range all.Brokers {
			for _, told := range b.Told {
				if b.Name == dead && strings.Contains(told, "dave") {
					t.Logf("%s hears: %s", dead, told)
					return true
				}
			}
		}
		return false
	})
	if _, err := r.as("alice").Submit(t.Context(), r.ask("alice")); err != nil {
		t.Error(err)
	}
}

func voters(all api.Cluster) []statement.BrokerName {
	var names []statement.BrokerName
	for _, b := range all.Brokers {
		if b.Place == api.PlaceVoter {
			names = append(names, b.Name)
		}
	}
	return names
}

func (r *trio) place(all api.Cluster, name statement.BrokerName) api.Place {
	r.t.Helper()
	for _, b := range all.Brokers {
		if b.Name == name {
			return b.Place
		}
	}
	return ""
}
