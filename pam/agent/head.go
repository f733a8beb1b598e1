package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// This host is a witness: it keeps the newest checkpoint of the brokers' record that it has verified, and a broker that
// shows a shorter or another record is told of, loudly, and gives no fresh word. What a host cannot reach it cannot prove,
// so a beat counts on a longer record for provePause without proof.
const provePause = time.Minute

// Why a beat is no fresh word without anybody being accused.
var (
	errBehind = errors.New("its record is behind what this host has seen of another broker's")
	errNone   = errors.New("it shows no checkpoint of its record, and one was seen here before")
)

var wrongHeads = []error{audit.ErrForked, audit.ErrShrunk, audit.ErrForged, errBehind, errNone}

// takeHead holds the checkpoint that came with a beat to what this host has seen, and reports why the beat is no fresh
// word. A broker that never showed one, to a host that never saw one, is let pass.
func (a *Agent) takeHead(text string, source audit.Source) error {
	s := a.ledger.snapshot(a.Clock.now())
	chain := s.chain
	seen := a.seenHead(chain)
	if text == "" && seen == nil && s.epoch.none() {
		return nil
	}
	shown, err := audit.Open([]byte(text), chain.Deployment(), chain.Current().LogKeys())
	if err == nil && !a.based && s.epoch.binds(chain) {
		err = audit.Extends(source, s.epoch.Restored(), shown.LogHead)
		a.based = err == nil
	}
	if err == nil && seen != nil {
		err = a.compare(*seen, shown, source)
	}
	if text == "" {
		err = errNone
	}
	switch {
	case err == nil && seen == nil:
		return a.keepHead(shown)
	case errors.Is(err, audit.ErrForked), errors.Is(err, audit.ErrShrunk), errors.Is(err, audit.ErrForged):
		a.refuseHead(shown, err)
	case err != nil:
		a.sayHead(slog.LevelWarn, "no fresh word: the broker's record is not proved", shown.Broker, err)
	}
	return err
}

// compare proves that the record shown goes on where the one seen ended.
func (a *Agent) compare(seen, shown audit.Signed, source audit.Source) error {
	switch {
	case shown.Size < seen.Size && shown.Broker != seen.Broker:
		return errBehind
	case shown.Size > seen.Size && a.proved != 0 && a.Clock.Boot()-a.proved < provePause:
		return nil
	}
	if err := audit.Extends(source, seen.LogHead, shown.LogHead); err != nil {
		return err
	}
	if shown.Size == seen.Size {
		return nil
	}
	a.proved = a.Clock.Boot()
	return a.keepHead(shown)
}

// seenHead is the newest head, unless the stewards have meanwhile taken its signer's key from policy: what an owned broker
// signed must not stand against honest ones for ever.
func (a *Agent) seenHead(chain policy.Chain) *audit.Signed {
	seen := a.witnessed.Load()
	if seen == nil {
		return nil
	}
	if _, err := audit.Open(seen.Text, chain.Deployment(), chain.Current().LogKeys()); err != nil {
		a.Log.Warn("the newest checkpoint seen is by a key that policy no longer lists: beginning anew", "broker", seen.Broker, "size", seen.Size)
		a.witnessed.Store(nil)
		return nil
	}
	return seen
}

// keepHead remembers a head, on disk first.
func (a *Agent) keepHead(shown audit.Signed) error {
	a.spooling.Lock()
	err := writeFile(a.Spool.path(headFile), shown.Text, 0o600)
	a.spooling.Unlock()
	if err != nil {
		return fmt.Errorf("checkpoint not kept: %w", err)
	}
	a.witnessed.Store(&shown)
	return nil
}

// loadHead reads the head that was kept. One that cannot be believed is set aside, and the next one shown is taken.
func (a *Agent) loadHead(chain policy.Chain) {
	text, err := a.Spool.read(headFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var seen audit.Signed
	if err == nil {
		seen, err = audit.Open(text, chain.Deployment(), chain.Current().LogKeys())
	}
	if err != nil {
		a.Spool.setAside(err, headFile)
		return
	}
	a.witnessed.Store(&seen)
}

// refuseHead is loud: a report that every auditor reads, the journal, and evidence on disk beside the head kept. Beats come
// as fast as a broker likes, so the disk is written as seldom as the journal.
func (a *Agent) refuseHead(shown audit.Signed, why error) {
	a.reports.logRefused(shown.Broker, why)
	if !a.sayHead(slog.LevelError, "A BROKER'S RECORD CONTRADICTS WHAT THIS HOST HAS SEEN: it gives no fresh word", shown.Broker, why) {
		return
	}
	a.spooling.Lock()
	defer a.spooling.Unlock()
	if err := writeFile(a.Spool.path(asideDir, headFile+"-"+string(shown.Broker)), shown.Text, 0o600); err != nil {
		a.Log.Error("evidence not kept", "error", err)
	}
}

// sayHead tells the journal what is wrong with a broker's head, unless the same was wrong a while ago, and reports whether
// it told. What counts as the same is the kind of wrong, not its figures: those the broker chooses.
func (a *Agent) sayHead(level slog.Level, what string, by statement.BrokerName, err error) bool {
	kind := slices.IndexFunc(wrongHeads, func(wrong error) bool { return errors.Is(err, wrong) })
	if a.reports.lately(fmt.Sprintf("head\x00%s\x00%d", by, kind), quiet) {
		return false
	}
	a.Log.Log(context.Background(), level, what, "broker", by, "error", err, "cause", causeOf(err))
	return true
}

// logHead is the head that reports carry; zero before the first.
func (a *Agent) logHead() statement.LogHead {
	if seen := a.witnessed.Load(); seen != nil {
		return seen.LogHead
	}
	return statement.LogHead{}
}
