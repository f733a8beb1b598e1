package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// record is /run/pim-ssh/open/<stem>.json: the window's end on the clock nobody sets, for an agent that restarts.
type record struct {
	Grant    broker.GrantID `json:"grant"`
	Until    statement.Time `json:"until"`
	BootID   string         `json:"boot_id"`
	Boottime int64          `json:"boottime"` // nanoseconds of CLOCK_BOOTTIME at which the window ends
}

func (a *Agent) recordPath(stem broker.Stem) string {
	return filepath.Join(a.RunDir, openDir, string(stem)+".json")
}

func (a *Agent) sudoersPath(stem broker.Stem) string {
	return filepath.Join(a.RunDir, sudoersDir, stem.SudoersFile())
}

// deadlineOf is the end of a grant's window: what its record of this boot says, if that is earlier.
func (a *Agent) deadlineOf(g broker.Grant) (deadline, error) {
	d := a.Clock.deadlineOf(g.Until)
	data, err := os.ReadFile(a.recordPath(g.Stem))
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	var r record
	if err == nil {
		err = statement.DecodeStrict(data, &r)
	}
	if err != nil {
		return deadline{}, fmt.Errorf("record of %s: %w", g.ID, err)
	}
	if r.BootID == a.BootID {
		d.boot = min(d.boot, time.Duration(r.Boottime))
	}
	return d, nil
}

// openIfDue opens a grant whose window has begun, and returns how long the keeper may look away from it.
func (a *Agent) openIfDue(ctx context.Context, e *entry) time.Duration {
	now := a.Clock.now()
	s := a.ledger.snapshot(now)
	a.ledger.mu.RLock()
	g, over, refused := e.grant, e.over(now), e.refused
	a.ledger.mu.RUnlock()
	if refused != nil || over {
		if e.standing {
			return watchful
		}
		return idle
	}
	if e.opened != nil && sameArms(e.opened.as, g) {
		if last, _ := a.lasts(g, e.opened.end); last.wall == e.armed {
			return max(0, min(watchful, a.Clock.remaining(e.opened.end)))
		}
	}
	if s.mayOpen(g) != nil {
		if wait := g.From.Std().Sub(a.Clock.Wall()); wait > 0 {
			return min(watchful, wait)
		}
		return watchful // refused for what only an event, or a clock that somebody sets, can change
	}
	if wait := e.retry - a.Clock.Boot(); wait > 0 {
		return wait
	}
	if err := a.open(ctx, e, g); err != nil {
		e.failures++
		e.retry = a.Clock.Boot() + min(idle, watchful<<min(e.failures, 5))
		a.Log.Error("grant not opened", "grant", g.ID, "person", g.Person, "role", g.Role, "error", err)
		return watchful
	}
	e.failures, e.retry = 0, 0
	return 0
}

// sameArms reports whether what stands for one grant is right for the other.
func sameArms(a, b broker.Grant) bool {
	return a.Until == b.Until && a.Account == b.Account && slices.Equal(sudoRules(a), sudoRules(b))
}

// open makes everything that ends the window before the one thing that begins it: record, unit and reaper (read back),
// sudoers, and only then the ledger's word that sessions may start.
func (a *Agent) open(ctx context.Context, e *entry, g broker.Grant) error {
	end, err := a.deadlineOf(g)
	if err != nil {
		return err
	}
	remaining := a.Clock.remaining(end)
	if remaining <= 0 {
		return a.entomb(e, endedByLapse)
	}
	a.alarm(g)
	e.standing, e.end = true, end
	if err := a.keepRecord(g, end); err != nil {
		return err
	}
	last, by := a.lasts(g, end)
	place, err := a.arm(ctx, e, g, last, by)
	if err != nil {
		return err
	}
	if len(sudoRules(g)) == 0 {
		err = removeFile(a.sudoersPath(g.Stem))
	} else {
		err = a.Tools.writeSudoers(ctx, filepath.Join(a.RunDir, sudoersDir), g)
	}
	if err != nil {
		return err
	}
	if err := a.sessions.prepare(g.Stem, place); err != nil {
		return err
	}
	e.gate.Lock()
	e.opened = &opened{place: place, end: end, last: last, as: g}
	e.gate.Unlock()
	a.Log.Info("grant open", "grant", g.ID, "person", g.Person, "role", g.Role, "until", g.Until, "remaining", remaining.Round(time.Second),
		"runs_until", last.wall)
	return nil
}

// endIfOver ends what stands for a grant that may open nothing any more.
func (a *Agent) endIfOver(ctx context.Context, e *entry) {
	a.keepAgain(e)
	now := a.Clock.now()
	a.ledger.mu.RLock()
	g, stem, over, refused, ended := e.grant, e.dossier.Stem(), e.over(now), e.refused, e.ended
	if refused == nil {
		refused = elsewhere(e.grant, a.ledger.host)
	}
	a.ledger.mu.RUnlock()
	lapsed := e.standing && a.Clock.remaining(e.end) <= 0
	if ended == nil && refused == nil && (over || lapsed) {
		if err := a.entomb(e, endedByLapse); err != nil {
			a.Log.Error("lapse not kept on disk", "grant", stem.Grant(), "error", err)
		}
	}
	if !e.standing || !over && !lapsed && refused == nil || a.Clock.Boot() < e.again {
		return
	}
	if err := a.finish(ctx, stem, e, g, refused, ended); err != nil {
		e.stuck++
		e.again = a.Clock.Boot() + min(idle, watchful<<min(e.stuck, 5))
		a.Log.Error("grant not ended yet, trying again", "grant", stem.Grant(), "error", err)
		return
	}
	e.stuck, e.again = 0, 0
}

// finish ends what stands for a grant that starts nothing more, or leaves what runs to its extension.
func (a *Agent) finish(ctx context.Context, stem broker.Stem, e *entry, g broker.Grant, refused error, ended *Tombstone) error {
	if refused == nil && (ended == nil || ended.How == endedByLapse) {
		if on, err := a.goesOn(ctx, e, g); on || err != nil {
			return err
		}
	}
	why := "its window is over"
	switch {
	case refused != nil:
		why = refused.Error()
	case ended != nil:
		why = "ended by " + string(ended.How)
	}
	if err := a.end(ctx, stem, e); err != nil {
		return fmt.Errorf("%s, %w", why, err)
	}
	e.standing, e.armed = false, 0
	a.Log.Info("grant ended", "grant", stem.Grant(), "why", why)
	return nil
}

// entomb makes an end final, in memory first and then on disk. It is harmless to say it twice.
func (a *Agent) entomb(e *entry, how EndedHow) error {
	t := Tombstone{How: how, At: a.Clock.now()}
	a.ledger.mu.Lock()
	if e.ended != nil {
		a.ledger.mu.Unlock()
		return nil
	}
	e.ended = &t
	request := e.dossier.Request.Hash()
	a.ledger.ended[request] = t
	a.ledger.mu.Unlock()
	err := a.keepEnd(request, t)
	a.ledger.mu.Lock()
	e.unkept = err != nil
	a.ledger.mu.Unlock()
	return err
}

// keepEnd writes a tombstone. On a full disk it makes room with the one thing that the tombstone makes useless: the dossier,
// without which a later agent opens nothing either.
func (a *Agent) keepEnd(request statement.Hash, t Tombstone) error {
	a.spooling.Lock()
	defer a.spooling.Unlock()
	err := a.Spool.putTombstone(request, t)
	if err == nil {
		return nil
	}
	a.Log.Error("end not kept on disk, dropping its dossier", "grant", broker.StemOf(request).Grant(), "error", err)
	err = errors.Join(a.Spool.dropDossier(broker.StemOf(request)), a.Spool.putTombstone(request, t))
	if err != nil {
		a.diskSays(err)
	}
	return err
}

// keepAgain tries again to write the tombstone of an end that only memory holds.
func (a *Agent) keepAgain(e *entry) {
	a.ledger.mu.RLock()
	unkept, t, request := e.unkept, e.ended, e.dossier.Request.Hash()
	a.ledger.mu.RUnlock()
	if !unkept || a.keepEnd(request, *t) != nil {
		return
	}
	a.ledger.mu.Lock()
	e.unkept = false
	a.ledger.mu.Unlock()
}

// end takes everything of a grant off the machine: no more starts, its sudo rules, its sessions in other grants'
// units, its own unit with all in it, and last the reaper and the record. It is tried again until it returns nil.
func (a *Agent) end(ctx context.Context, stem broker.Stem, e *entry) error {
	a.shut(stem, e)
	return errors.Join(
		removeFile(a.sudoersPath(stem)),
		a.endSessions(ctx, stem),
		a.Units.Close(ctx, stem),
		removeFile(a.recordPath(stem)),
	)
}

// endSessions kills the sessions that belong to a grant but live in the unit of another.
func (a *Agent) endSessions(ctx context.Context, stem broker.Stem) error {
	var errs []error
	for _, s := range a.sessions.of(stem) {
		if s.Stem == stem {
			continue
		}
		place, stands := a.placeOf(s.Stem)
		if !stands {
			continue
		}
		a.Log.Info("session ended with one of its grants", "session", s.name(), "grant", stem.Grant(), "in", s.Stem.Unit())
		errs = append(errs, place.sub(s.name()).kill(ctx))
	}
	return errors.Join(errs...)
}

// placeOf returns where the processes of a grant live: also of one that this agent has not opened again, or may not.
func (a *Agent) placeOf(stem broker.Stem) (Place, bool) {
	a.ledger.mu.RLock()
	e := a.ledger.entries[stem]
	a.ledger.mu.RUnlock()
	if e != nil {
		e.gate.RLock()
		defer e.gate.RUnlock()
		if e.opened != nil {
			return e.opened.place, true
		}
	}
	return a.Units.Place(stem)
}

// sweep forgets sessions in which nothing lives, and reports the end of those that had begun.
func (a *Agent) sweep() {
	for _, s := range a.sessions.which(func(session) bool { return true }) {
		place, stands := a.placeOf(s.Stem)
		if stands && !place.sub(s.name()).remove() || s.line {
			continue
		}
		if last, owed := a.sessions.drop(s.N); owed {
			a.reports.closed(last)
		}
	}
}

// closeSession reports a session's end, once. It stays known until nothing lives in it: what `sudo -b` left must end
// with the session's grants.
func (a *Agent) closeSession(n uint64) {
	if s, owed := a.sessions.close(n); owed {
		a.reports.closed(s)
	}
}
