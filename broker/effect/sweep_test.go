package effect

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/cluster"
	"pim-ssh/packaging/lab/forger"
)

// TestTheSweepRecordsWhatTimeEndedAndNothingElse moves the clock past a request's expiry on a real cluster of one.
func TestTheSweepRecordsWhatTimeEndedAndNothingElse(t *testing.T) {
	world := forger.New(t, nil)
	now := forger.Now()
	clock := func() statement.Time { return now }
	config := cluster.Config{Name: "b1", Dir: t.TempDir(), Now: clock, Log: io.Discard, Wire: cluster.Alone()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(cluster.Bootstrap(config, world.Chain.Proofs()))
	node, err := cluster.Open(config)
	must(err)
	defer node.Close()
	must(node.Ready(t.Context()))

	ask := world.Ask("alice", "db-admin", "db1", 60, forger.Key(t), func(r *statement.Request) { r.Expires = now + 100 })
	for _, proof := range []statement.Proof{enrolment(t, world), ask} {
		command, err := broker.CommandFor(proof, now)
		must(err)
		_, err = node.Propose(t.Context(), command)
		must(err)
	}

	sweep := &Sweep{Cluster: node, Now: clock, Log: slog.New(slog.DiscardHandler)}
	index := func() (n uint64) {
		must(node.View(context.Background(), func(s *broker.State) { n = s.Index() }))
		return n
	}
	before := index()
	for range 3 {
		sweep.Once(t.Context())
	}
	if index() != before {
		t.Errorf("with nothing due the sweep recorded %d events", index()-before)
	}
	now += 101
	for range 3 {
		sweep.Once(t.Context())
	}
	if index() != before+1 {
		t.Fatalf("the sweep recorded %d events, want one", index()-before)
	}
	leaves, _, err := node.Events(before, 1)
	must(err)
	event, err := broker.DecodeEvent(leaves[0])
	must(err)
	if expired, is := event.(*broker.RequestExpired); !is || expired.Request != broker.StemOf(ask.Hash()).Request() {
		t.Errorf("it recorded %+v", event)
	}
}

// enrolment is db1's.
func enrolment(t *testing.T, world *forger.World) statement.Proof {
	t.Helper()
	once, identity := forger.Key(t), forger.Key(t)
	token := world.Sign(statement.HostToken{Head: world.Head(statement.KindHostToken, "dave"), Name: "db1", Labels: map[string]string{"tier": "db"},
		Addresses: []string{"db1"}, Key: signtest.Public(once), Expires: forger.Now() + 3600}, "dave")
	head := world.Head(statement.KindEnrolment, "")
	head.Host = "db1"
	proof, err := statement.Sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte("db1")), Identity: signtest.Public(identity),
		HostKeys: []statement.Key{signtest.Public(identity)}}, once, identity)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}
