package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

const (
	shunFor  = 5 * time.Second  // how long a leader whose clock runs ahead is not heard: longer than an election
	trustFor = 30 * time.Second // how long a leader is taken at its word after most clocks agreed with it
)

// errAhead says why a leader is not followed.
var errAhead = errors.New("it stamps a time that has not come by most brokers' clocks")

// clocks holds leaders to the clocks of those that vote: what one stamps ahead of most of them is not stored, so it is never
// committed, and the leader is not heard until another one leads. A broker whose own clock is the odd one follows.
type clocks struct {
	now   func() statement.Time
	votes func() []Seat
	ask   func(context.Context, statement.BrokerName) (Status, error)
	log   *slog.Logger

	mu      sync.Mutex
	asking  bool
	shunned map[raft.ServerID]time.Time // not heard before
	trusted map[raft.ServerID]time.Time // taken at its word before
}

func newClocks(now func() statement.Time, votes func() []Seat, ask func(context.Context, statement.BrokerName) (Status, error), log *slog.Logger) *clocks {
	return &clocks{now: now, votes: votes, ask: ask, log: log, shunned: map[raft.ServerID]time.Time{}, trusted: map[raft.ServerID]time.Time{}}
}

// allow judges what another broker sends. When it returns a time, the caller has the others asked whether that has come, and
// refuses meanwhile.
func (c *clocks) allow(id raft.ServerID, sent any) (ahead statement.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, handsOver := sent.(*raft.TimeoutNowRequest); !handsOver && time.Now().Before(c.shunned[id]) {
		return 0, errAhead
	}
	entries, is := sent.(*raft.AppendEntriesRequest)
	if !is || time.Now().Before(c.trusted[id]) {
		return 0, nil
	}
	for _, entry := range entries.Entries {
		if at := stampOf(entry); entry.Index > entries.LeaderCommitIndex && at > c.now().Add(broker.MaxSkew) {
			if c.asking {
				return 0, errAhead
			}
			c.asking = true
			return at, errAhead
		}
	}
	return 0, nil
}

// stampOf returns the time in a command; 0 where there is none.
func stampOf(entry *raft.Log) statement.Time {
	var command struct {
		At statement.Time `json:"at"`
	}
	if entry.Type != raft.LogCommand || json.Unmarshal(entry.Data, &command) != nil {
		return 0 // the state machine judges what is no command
	}
	return command.At
}

// compare asks those that vote whether a time has come that a leader stamped, and then shuns the leader or takes its word.
func (c *clocks) compare(ctx context.Context, leader raft.ServerID, at statement.Time) {
	most := c.most(ctx, func(now statement.Time) bool { return at > now.Add(broker.MaxSkew) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking = false
	if most {
		c.shunned[leader] = time.Now().Add(shunFor)
		c.log.Error("CLOCK: the leader stamps a time ahead of most brokers' clocks: another one is to lead", "leader", leader, "stamped", at, "clock", c.now())
		return
	}
	c.trusted[leader] = time.Now().Add(trustFor)
}

// odd reports whether this broker's clock differs from most of those of brokers that vote.
func (c *clocks) odd(ctx context.Context) bool {
	own := c.now()
	return c.most(ctx, func(now statement.Time) bool { return now > own.Add(broker.MaxSkew) || own > now.Add(broker.MaxSkew) })
}

// most reports whether something holds of the clocks of most of those that vote. A broker that does not answer is no witness.
func (c *clocks) most(ctx context.Context, holds func(statement.Time) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	votes := votes(c.votes(), Seat{})
	count := 0
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, seat := range votes {
		asked.Go(func() {
			status, err := c.ask(ctx, seat.Name)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && holds(status.Now) {
				count++
			}
		})
	}
	asked.Wait()
	return 2*count > len(votes)
}
