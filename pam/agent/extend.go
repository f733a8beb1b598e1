package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
)

// An extension is a grant of its own, asked for and approved like any other. What runs under the grant that it extends goes
// on until the extension's end; what starts after the old one's end starts under the new one alone. The old grant's unit is
// armed for the later end while both windows lie ahead, so that nobody of ours need live at the moment in which they meet.

// extends reports whether an entry's grant goes on from another without a gap. It also holds for one that has lapsed: a third
// may extend it in turn. The caller holds the ledger's mu, at least for reading.
func (e *entry) extends(g broker.Grant, h broker.Host) bool {
	x := e.grant
	return e.refused == nil && (e.ended == nil || e.ended.How == endedByLapse) && x.Extends == g.ID && x.Person == g.Person && x.Role == g.Role &&
		x.From <= g.Until && x.Until > g.Until && elsewhere(x, h) == nil
}

// extensions is every entry that may extend another, by the grant it names.
func (l *ledger) extensions() map[broker.GrantID][]*entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	found := map[broker.GrantID][]*entry{}
	for _, e := range l.entries {
		if e.refused == nil && e.grant.Extends != "" {
			found[e.grant.Extends] = append(found[e.grant.Extends], e)
		}
	}
	return found
}

// carrier returns the grant under whose window what runs under g ends: of those that extend it, or extend what does, the
// one that lasts longest; a view of nothing when none does. Each link ends later than the one before, so there is no way round.
func (a *Agent) carrier(s snapshot, g broker.Grant) view {
	var best view
	for _, e := range a.extending[g.ID] {
		a.ledger.mu.RLock()
		fits, ended, link := e.extends(g, s.host), e.ended != nil, view{e, e.grant, e.whole}
		a.ledger.mu.RUnlock()
		if !fits || !ended && s.mayCarry(e, link.Grant) != nil {
			continue
		}
		last := a.carrier(s, link.Grant)
		if last.entry == nil && !ended {
			last = link
		}
		if last.entry != nil && last.Until > best.Until {
			best = last
		}
	}
	return best
}

// mayCarry reports why an extension prolongs nothing: what starts nothing prolongs nothing either. What it carries already
// goes on, as sessions do.
func (s snapshot) mayCarry(e *entry, g broker.Grant) error {
	switch {
	case e.standing:
		return nil
	case s.halt != nil:
		return s.halt
	case s.now.Add(slack) < s.floor:
		return errClockBehind
	case s.now >= g.Expires:
		return errors.New("the policy expired")
	case g.Newest > s.now.Add(broker.MaxAhead):
		return errors.New("a statement was made in the future")
	}
	return nil
}

// lasts returns when what runs under a grant must end, and by whose window; when by its own, which ends at end, by a view of nothing.
func (a *Agent) lasts(g broker.Grant, end deadline) (deadline, view) {
	by := a.carrier(a.ledger.snapshot(a.Clock.now()), g)
	if by.entry == nil {
		return end, by
	}
	last, err := a.deadlineOf(by.Grant)
	if err != nil {
		a.Log.Error("an extension that carries nothing", "grant", g.ID, "extension", by.ID, "error", err)
		return end, view{}
	}
	if most := g.From.Add(longestUnit); last.wall > most {
		last.wall, last.boot = most, last.boot-last.wall.Sub(most).Std()
	}
	return last, by
}

// longestUnit is the longest that any unit lives, however often its grant is extended: systemd fixes a unit's own clock when
// it starts (F6). It is shorter than what lapsed is remembered for.
const longestUnit = 4 * policy.MaxWindow

// ceiling is what remains of it.
func (a *Agent) ceiling(g broker.Grant) time.Duration {
	return g.From.Add(longestUnit).Std().Sub(a.Clock.Wall())
}

// arm makes sure that what runs under a grant ends at last, which may lie beyond the grant's window: by's record first, for
// an agent that restarts; then sessions that now end with another of their grants go to its unit; then unit and reapers.
func (a *Agent) arm(ctx context.Context, e *entry, g broker.Grant, last deadline, by view) (Place, error) {
	if err := a.carryBy(by); err != nil {
		return Place{}, err
	}
	e.armed, e.last = 0, last
	e.gate.Lock()
	if e.opened != nil {
		opened := *e.opened
		opened.last = last
		e.opened = &opened
	}
	e.gate.Unlock()
	if err := a.rehome(g.Stem); err != nil {
		return Place{}, err
	}
	// The record outlives the reapers: an agent that starts after them, under a clock set back, must know that the window was over.
	place, err := a.Units.Open(ctx, Window{Stem: g.Stem, Until: last.wall, Remaining: a.Clock.remaining(last), Most: a.ceiling(g),
		Remove: []string{a.sudoersPath(g.Stem)}})
	if err == nil {
		e.armed = last.wall
	}
	return place, err
}

// carryBy writes down when an extension ends, before its own window may have begun.
func (a *Agent) carryBy(v view) error {
	if v.entry == nil || v.standing {
		return nil
	}
	end, err := a.deadlineOf(v.Grant)
	if err != nil {
		return err
	}
	v.standing, v.end, v.last = true, end, end
	return a.keepRecord(v.Grant, end)
}

func (a *Agent) keepRecord(g broker.Grant, end deadline) error {
	r, err := json.Marshal(record{Grant: g.ID, Until: g.Until, BootID: a.BootID, Boottime: int64(end.boot)})
	if err != nil {
		return err
	}
	return writeFile(a.recordPath(g.Stem), r, 0o600)
}

// goesOn keeps what runs under a lapsed grant for as long as an extension carries it, and reports whether one does. Nothing
// starts under the lapsed grant any more.
func (a *Agent) goesOn(ctx context.Context, e *entry, g broker.Grant) (bool, error) {
	last, by := a.lasts(g, e.end)
	if by.entry == nil || a.Clock.remaining(last) <= 0 {
		return false, nil
	}
	if e.opened != nil {
		a.shut(g.Stem, e)
		e.armed = 0 // until its rules are gone
		a.Log.Info("grant lapsed; what runs goes on under its extension", "grant", g.ID, "extension", by.ID, "until", last.wall)
	}
	if e.armed == last.wall {
		return true, nil
	}
	err := removeFile(a.sudoersPath(g.Stem))
	if err == nil {
		_, err = a.arm(ctx, e, g, last, by)
	}
	return true, err
}

// shut sees to it that nothing more starts under a grant.
func (a *Agent) shut(stem broker.Stem, e *entry) {
	e.gate.Lock()
	e.opened = nil
	e.gate.Unlock()
	a.sessions.forget(stem)
}

// rehome puts each session of a grant's that belongs to several into the unit of the one that ends first: its reapers are
// what ends the session when nobody of ours lives.
func (a *Agent) rehome(stem broker.Stem) error {
	for _, s := range a.sessions.of(stem) {
		first := a.firstToEnd(s)
		if first == s.Stem {
			continue
		}
		from, stands := a.placeOf(s.Stem)
		to, fits := a.placeOf(first)
		if !stands || !fits {
			return fmt.Errorf("session %s belongs into the unit of %s, and the units do not stand", s.name(), first.Grant())
		}
		if err := from.sub(s.name()).moveTo(to.sub(s.name())); err != nil {
			return fmt.Errorf("session %s to the unit of %s: %w", s.name(), first.Grant(), err)
		}
		a.Log.Info("session moved to the grant that now ends first", "session", s.name(), "from", s.Stem.Grant(), "to", first.Grant())
		if err := a.sessions.moved(s.N, first); err != nil {
			return err
		}
		from.sub(s.name()).remove()
	}
	return nil
}

// firstToEnd names the grant of a session's that ends first; its own in doubt.
func (a *Agent) firstToEnd(s session) broker.Stem {
	first, least := s.Stem, time.Duration(0)
	a.ledger.mu.RLock()
	defer a.ledger.mu.RUnlock()
	if e := a.ledger.entries[s.Stem]; e != nil && e.standing {
		least = a.Clock.remaining(e.last)
	}
	for _, stem := range s.Grants {
		e := a.ledger.entries[stem]
		if e == nil || !e.standing || e.ended != nil && e.ended.How != endedByLapse {
			continue // its end takes the session with it
		}
		if left := a.Clock.remaining(e.last); left < least {
			first, least = stem, left
		}
	}
	return first
}
