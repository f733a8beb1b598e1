package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"pim-ssh/broker"
)

// limits bound what somebody who may only talk to this host (an owned broker, or a broker that takes no reports) can make
// it keep. Reaching one costs access or reports, never an end.
type limits struct {
	dossiers int // in memory and on disk; those that open nothing make room
	ends     int // beyond these an end of a request that was never seen here is not taken: the host goes stale instead
	reports  int // that wait for a broker
	aside    int // reports that a broker refused
	lines    int // connections kept for sessions; beyond these open_session is asked
}

func defaultLimits() limits {
	return limits{dossiers: 4096, ends: 1 << 16, reports: 8192, aside: 1024, lines: 4096}
}

// How fast a broker is listened to: a list of live grants passes at once, and revocations never come as fast as this.
const (
	frameBurst      = 4096
	framesPerSecond = 50
)

// pace is a budget of frames.
type pace struct {
	clock  Clock
	budget float64
	at     time.Duration // boottime of the budget
}

func newPace(c Clock) *pace { return &pace{clock: c, budget: frameBurst, at: c.Boot()} }

// wait returns when one more frame may be acted on, or ctx ends. What the broker says meanwhile waits in its own buffers.
func (p *pace) wait(ctx context.Context) {
	now := p.clock.Boot()
	p.budget = min(frameBurst, p.budget+(now-p.at).Seconds()*framesPerSecond) - 1
	p.at = now
	if p.budget >= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-p.clock.After(time.Duration(-p.budget / framesPerSecond * float64(time.Second))):
	}
}

// makeRoom drops dossiers that open nothing here when there are too many: those of ended grants first, whose tombstones
// stay. Only the keeper calls it, which alone knows what stands.
func (a *Agent) makeRoom() {
	a.ledger.mu.RLock()
	crowded := len(a.ledger.entries) > a.most.dossiers
	a.ledger.mu.RUnlock()
	if !crowded {
		return
	}
	a.spooling.Lock() // over both disk and ledger, as takeDossier does
	defer a.spooling.Unlock()
	for _, stem := range a.idleStems() {
		if len(a.ledger.entries) <= a.most.dossiers {
			break
		}
		a.ledger.mu.Lock()
		delete(a.ledger.entries, stem)
		a.ledger.mu.Unlock()
		if err := a.Spool.dropDossier(stem); err != nil {
			a.Log.Error("dossier not dropped", "grant", stem.Grant(), "error", err)
		}
	}
}

// idleStems names what opens nothing here and stands nowhere: what was ended, and then what proves no grant of this host.
func (a *Agent) idleStems() []broker.Stem {
	a.ledger.mu.RLock()
	defer a.ledger.mu.RUnlock()
	var ended, useless []broker.Stem
	for _, stem := range slices.Sorted(maps.Keys(a.ledger.entries)) {
		e := a.ledger.entries[stem]
		switch {
		case e.standing || e.unkept:
		case e.ended != nil:
			ended = append(ended, stem)
		case e.refused != nil || elsewhere(e.grant, a.ledger.host) != nil:
			useless = append(useless, stem)
		}
	}
	return append(ended, useless...)
}
