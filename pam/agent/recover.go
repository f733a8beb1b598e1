package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// recover reads what a dead agent, or a dead machine, left: the spool into the ledger, sessions from /run, and then
// ends everything on the machine that no live grant stands for. Nothing is answered before it is through.
func (a *Agent) recover(ctx context.Context) error {
	c, err := a.Spool.load()
	if err != nil {
		return err
	}
	if err := a.Spool.checkMachine(a.MachineID); err != nil {
		return err
	}
	a.identity, a.token = c.enrolment.Identity, c.enrolment
	a.loadHead(c.chain)
	a.prune(c)
	a.ledger = newLedger(c, heardAt(c.heard, a.Clock))
	if a.ledger.unfit = a.Tools.fit(ctx); a.ledger.unfit != nil {
		a.Log.Error("granting has stopped on this host", "why", a.ledger.unfit)
	}
	if a.sessions, err = loadSessions(filepath.Join(a.RunDir, sessionsDir), a.Log); err != nil {
		return err
	}
	if a.reports, err = newReporter(a); err != nil {
		return err
	}
	if a.reached, err = a.Spool.number(reachedFile); err != nil {
		a.Log.Error("position in the log is torn: counting from here", "error", err)
	}
	if c.halt != nil {
		a.Log.Error("granting has stopped on this host", "why", c.halt)
	}
	a.ledger.explain(a.Log, a.Clock.now())
	stems, err := a.left(ctx)
	if err != nil {
		return err
	}
	a.extending = a.ledger.extensions()
	for _, stem := range stems {
		if e := a.ledger.entries[stem]; e != nil {
			e.standing = true
		}
	}
	var errs []error
	for _, stem := range stems {
		errs = append(errs, a.adopt(ctx, stem))
	}
	a.keepFloor(max(a.ledger.floor, a.Clock.now()))
	return errors.Join(errs...)
}

// kept is how long the dossier of an ended grant stays on disk; its tombstone stays for good.
const kept = 30 * statement.Day

// prune drops dossiers of grants that were over long ago.
func (a *Agent) prune(c contents) {
	for stem, d := range c.dossiers {
		t, dead := c.tombstones[d.Request.Hash()]
		if !dead || t.At == 0 || a.Clock.now() < t.At.Add(kept) {
			continue
		}
		delete(c.dossiers, stem)
		if err := a.Spool.dropDossier(stem); err != nil {
			a.Log.Error("old dossier not dropped", "grant", stem.Grant(), "error", err)
		}
	}
}

// left lists every grant that something on this machine stands for.
func (a *Agent) left(ctx context.Context) ([]broker.Stem, error) {
	stems, err := a.Units.Stems(ctx)
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	for dir, parse := range map[string]func(string) (broker.Stem, error){
		sudoersDir: func(name string) (broker.Stem, error) { return broker.ParseStem(strings.TrimPrefix(name, "g-")) },
		openDir:    func(name string) (broker.Stem, error) { return broker.ParseStem(strings.TrimSuffix(name, ".json")) },
	} {
		found, err := a.namesIn(dir, parse)
		if err != nil {
			return nil, err
		}
		stems = append(stems, found...)
	}
	return stems, nil
}

// namesIn reads the grants that files in a directory are named for; a file of any other name is not ours and goes.
func (a *Agent) namesIn(dir string, parse func(string) (broker.Stem, error)) ([]broker.Stem, error) {
	path := filepath.Join(a.RunDir, dir)
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	var stems []broker.Stem
	for _, e := range entries {
		stem, err := parse(e.Name())
		if err != nil {
			a.Log.Warn("stray file removed", "file", filepath.Join(path, e.Name()), "error", os.RemoveAll(filepath.Join(path, e.Name())))
			continue
		}
		stems = append(stems, stem)
	}
	return stems, nil
}

// adopt keeps what stands for a live grant (the keeper's first round verifies and arms it again) and ends the rest.
func (a *Agent) adopt(ctx context.Context, stem broker.Stem) error {
	e := a.ledger.entries[stem]
	end, why := a.standsUntil(e)
	if why == nil {
		e.end = end
		e.last, _ = a.lasts(e.grant, end)
		return a.adoptSessions(ctx, stem)
	}
	a.Log.Warn("ending what stands without a live grant", "grant", stem.Grant(), "why", why)
	if e == nil {
		e = &entry{}
	}
	if err := a.end(ctx, stem, e); err != nil {
		return fmt.Errorf("grant %s is over and could not be ended: %w", stem.Grant(), err)
	}
	e.standing = false
	return nil
}

// standsUntil returns when the window of a grant that something stands for ends, or why that must go now: it does not when
// an extension carries what runs. A record that cannot be read is an end: nobody knows how long the window has been open.
func (a *Agent) standsUntil(e *entry) (deadline, error) {
	switch {
	case e == nil:
		return deadline{}, errors.New("no dossier of it is known")
	case e.ended != nil && e.ended.How != endedByLapse:
		return deadline{}, fmt.Errorf("it was ended by %s", e.ended.How)
	case e.refused != nil:
		return deadline{}, e.refused
	}
	end, err := a.deadlineOf(e.grant)
	if err == nil && a.Clock.remaining(end) > 0 && e.ended == nil {
		return end, elsewhere(e.grant, a.ledger.host)
	}
	if kept := a.entomb(e, endedByLapse); err != nil || kept != nil {
		return deadline{}, errors.Join(err, kept)
	}
	if last, by := a.lasts(e.grant, end); by.entry != nil && a.Clock.remaining(last) > 0 {
		return end, elsewhere(e.grant, a.ledger.host)
	}
	return deadline{}, errors.New("its window is over")
}

// adoptSessions sees that no number of a session that runs is given again, and ends what no record tells the grants of: its
// agent died between placing it and writing that down, and nobody would know when to end it.
func (a *Agent) adoptSessions(ctx context.Context, stem broker.Stem) error {
	place, _ := a.placeOf(stem)
	names := place.subs()
	a.sessions.raise(names)
	var errs []error
	for _, name := range names {
		if !a.sessions.known(name) {
			errs = append(errs, place.sub(name).kill(ctx))
			place.sub(name).remove()
		}
	}
	return errors.Join(errs...)
}

// HashMachineID is how a machine-id is named in statements: without telling it.
func HashMachineID(id string) statement.Hash { return statement.HashOf([]byte(strings.TrimSpace(id))) }
