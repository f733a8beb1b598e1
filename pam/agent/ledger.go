package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// entry is one dossier this host was given, and where its grant stands here. The zero entry opens nothing.
type entry struct {
	proof
	ended  *Tombstone // set once and for ever
	unkept bool       // ended, and the disk would not take it

	// gate is held for reading while a process is put into the grant's unit, and for writing while that stops being
	// possible: after the write nothing can slip in behind the kill.
	gate   sync.RWMutex
	opened *opened // nil unless unit, reaper and sudoers stand; guarded by gate

	said string // why it opens nothing, as the journal was last told; guarded by the ledger's mu

	standing bool           // keeper only: something of it may exist in systemd or /run
	end      deadline       // keeper only: of the window
	last     deadline       // keeper only: of what runs: end, or later when another grant carries it on
	armed    statement.Time // keeper only: last, once unit and reapers were read back; 0: not by this agent
	failures int            // keeper only: openings that went wrong since the last that did not
	retry    time.Duration  // keeper only: on the boottime clock, not before then
	stuck    int            // keeper only: endings that went wrong since the last that did not
	again    time.Duration  // keeper only: as retry, for the next try to end it
}

// proof is what a dossier proves under one policy revision: callers prove all again when that changes.
type proof struct {
	dossier broker.Dossier
	grant   broker.Grant   // as it is on this host; set when refused is nil
	whole   statement.Time // when the grant ends where no eligibility cuts it: what its certificates are made for
	refused error          // why it proves no grant under the current policy
}

// opened is what stands on this machine for a grant. What may start ends at end, what runs at last.
type opened struct {
	place     Place
	end, last deadline
	as        broker.Grant // what sudoers were made from
}

// over reports whether nothing may ever start under the entry again.
func (e *entry) over(now statement.Time) bool {
	return e.ended != nil || e.refused == nil && now >= e.grant.Until
}

// prove judges a dossier under a policy, for a host.
func prove(chain policy.Chain, d broker.Dossier, h broker.Host) proof {
	g, err := broker.Prove(chain, d)
	return proof{dossier: d, grant: g.On(h), whole: g.Until, refused: err}
}

// elsewhere reports why a grant is not for this host at all, at whatever time: the rule's own words, asked at the
// window's first moment and with a policy that lasts.
func elsewhere(g broker.Grant, h broker.Host) error {
	g.Newest, g.Expires = g.From, g.Until
	return g.LiveOn(h, g.From)
}

// nothing reports why an entry opens nothing on a host at this moment; nil when it does.
func (e *entry) nothing(h broker.Host, now statement.Time) error {
	switch {
	case e.ended != nil:
		return fmt.Errorf("it is over: %s", e.ended.How)
	case e.refused != nil:
		return e.refused
	default:
		return e.grant.LiveOn(h, now)
	}
}

// explain tells the journal why each entry opens nothing, once per reason. The caller holds mu, or is alone.
func (l *ledger) explain(log *slog.Logger, now statement.Time) {
	for stem, e := range l.entries {
		why := e.nothing(l.host, now)
		if why == nil || e.said == why.Error() {
			continue
		}
		e.said = why.Error()
		log.Warn("dossier opens nothing", "grant", stem.Grant(), "why", why)
	}
}

// ledger is everything this host knows, guarded by mu: the keeper writes, answers read. Entries are never removed
// while they stand on the machine.
type ledger struct {
	mu      sync.RWMutex
	host    broker.Host
	chain   policy.Chain
	entries map[broker.Stem]*entry
	ended   map[statement.Hash]Tombstone // by request: also of requests whose dossier never came
	heard   heard
	floor   statement.Time
	epoch   epoch
	unread  error // why nothing may start at all: which epoch this is, is not known
	halt    error // the same: what the spool lacks
	unfit   error // the same: what this machine's tools lack
	disk    error // the same: the spool takes nothing now
}

func newLedger(c contents, h heard) *ledger {
	l := &ledger{host: c.enrolment.Host, chain: c.chain, entries: map[broker.Stem]*entry{}, ended: c.tombstones, heard: h, floor: c.floor, halt: c.halt,
		epoch: c.epoch, unread: c.unread}
	for stem, d := range c.dossiers {
		l.entries[stem] = l.judge(d)
	}
	return l
}

// judge makes the entry of a dossier under what is known now. The caller holds mu, at least for reading, or is alone.
func (l *ledger) judge(d broker.Dossier) *entry {
	e := &entry{proof: prove(l.chain, d, l.host)}
	if t, dead := l.ended[d.Request.Hash()]; dead {
		e.ended = &t
	}
	return e
}

// each calls do for every entry in the order of stems, without holding the lock.
func (l *ledger) each(do func(broker.Stem, *entry)) {
	l.mu.RLock()
	entries := maps.Clone(l.entries)
	l.mu.RUnlock()
	for _, stem := range slices.Sorted(maps.Keys(entries)) {
		do(stem, entries[stem])
	}
}

// snapshot is what one answer is judged by.
type snapshot struct {
	now   statement.Time
	host  broker.Host
	chain policy.Chain
	heard heard
	floor statement.Time
	halt  error
	epoch epoch
}

func (l *ledger) snapshot(now statement.Time) snapshot {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return snapshot{now, l.host, l.chain, l.heard, l.floor, errors.Join(l.unfit, l.unread, l.halt, l.disk), l.epoch}
}

// view is one grant as an answer sees it: proved, with nothing said yet about whether it may start something.
type view struct {
	*entry
	broker.Grant
	certified statement.Time // until when certificates for it are made
}

// grants returns the grants that prove and were not ended, those that lapse first in front.
func (l *ledger) grants() []view {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var found []view
	for _, e := range l.entries {
		if e.refused == nil && e.ended == nil {
			found = append(found, view{e, e.grant, e.whole})
		}
	}
	slices.SortFunc(found, func(a, b view) int {
		if a.Until != b.Until {
			return int(a.Until - b.Until)
		}
		return slices.Compare([]byte(a.Stem), []byte(b.Stem))
	})
	return found
}

// named returns the grant of one stem, or why it opens nothing.
func (l *ledger) named(stem broker.Stem) (view, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e, known := l.entries[stem]
	switch {
	case !known:
		return view{}, fmt.Errorf("grant %s is not known here", stem.Grant())
	case e.ended != nil:
		return view{}, fmt.Errorf("grant %s is over: %s", stem.Grant(), e.ended.How)
	case e.refused != nil:
		return view{}, fmt.Errorf("grant %s: %w", stem.Grant(), e.refused)
	}
	return view{e, e.grant, e.whole}, nil
}

var errClockBehind = errors.New("this machine's clock is behind the newest time it has seen: set it right (or, if that time was wrong, remove floor from the spool)")

// mayOpen reports why a grant's unit is not to be opened here and now, though its window may be open.
func (s snapshot) mayOpen(g broker.Grant) error {
	switch {
	case s.halt != nil:
		return fmt.Errorf("granting has stopped on this host: %w", s.halt)
	case s.now.Add(slack) < s.floor:
		return errClockBehind
	}
	return g.LiveOn(s.host, s.now)
}

// mayStart reports why a grant starts nothing here and now. It is the whole rule but for what stands on the machine,
// which live asks.
func (s snapshot) mayStart(g broker.Grant, clock Clock) error {
	if err := s.mayOpen(g); err != nil {
		return err
	}
	return s.heard.fresh(g.Offline, clock)
}
