package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Pauses between attempts to reach a broker; each is jittered so that ten thousand hosts do not knock as one.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
	quiet      = 5 * time.Minute // the same reason is said again after this
)

// maxSkew is how far a broker's clock may be from ours for its beat to count as a fresh word.
const maxSkew = broker.MaxAhead

// follow keeps one watch stream open until ctx ends. What arrives is verified like everything on disk; a broker can
// only deliver signed things, and take away.
func (a *Agent) follow(ctx context.Context) {
	pause := firstPause
	var after *uint64
	var said string
	var sayAgain time.Duration
	for ctx.Err() == nil {
		before := after
		err := a.followOnce(ctx, &after)
		if ctx.Err() != nil {
			return
		}
		if after != before { // a broker spoke: the next one is asked soon
			pause = firstPause
		}
		if why := fmt.Sprint(err, causeOf(err)); why != said || a.Clock.Boot() > sayAgain {
			a.Log.Warn("not following a broker", "error", err, "cause", causeOf(err))
			said, sayAgain = why, a.Clock.Boot()+quiet
		}
		select {
		case <-ctx.Done():
		case <-a.Clock.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, lastPause)
	}
}

// causeOf is what a refusal wraps: which key, which line, which errno. It may be nil.
func causeOf(err error) error {
	var told *broker.Error
	if !errors.As(err, &told) {
		return nil
	}
	return told.Err
}

// followOnce connects by the present policy, enrols if that is still to do, and reads the stream until it breaks or
// policy names other brokers.
func (a *Agent) followOnce(ctx context.Context, after **uint64) error {
	s := a.ledger.snapshot(a.Clock.now())
	client, err := api.NewClient(api.Config{Policy: s.chain.Current(), Address: a.Broker, Identity: a.identity, Skip: a.skip})
	if err != nil {
		return err
	}
	defer client.Close()
	submit := func(ctx context.Context, p statement.Proof) error {
		_, err := client.Submit(ctx, p)
		return err
	}
	if err := a.enrolOnce(ctx, submit); err != nil {
		return fmt.Errorf("enrolment: %w", err)
	}
	stream, err := client.Watch(ctx, *after)
	if err != nil {
		return err
	}
	defer stream.Close()
	ctx, stop := context.WithCancel(ctx)
	var posting sync.WaitGroup
	posting.Go(func() { a.postReports(ctx, submit) })
	defer posting.Wait()
	defer stop()
	listing := &listing{whole: *after == nil, record: client.Record(ctx)}
	pace := newPace(a.Clock)
	for {
		pace.wait(ctx)
		frame, err := stream.Next()
		if err != nil {
			return err
		}
		if err := a.take(frame, listing); err != nil {
			return a.leave(err, after)
		}
		*after = stream.Position()
		if frame.Policy != nil && a.ledger.snapshot(0).chain.Ref() != s.chain.Ref() && listing.done {
			return errors.New("policy changed: connecting by the new one")
		}
	}
}

// leave prepares what comes after a stream that is left: the whole list again, or another broker.
func (a *Agent) leave(why error, after **uint64) error {
	switch {
	case errors.Is(why, errAnew):
		*after = nil
	case errors.Is(why, errOldEpoch):
		a.skip++
	}
	return why
}

// postReports hands spooled reports over while the stream stands.
func (a *Agent) postReports(ctx context.Context, submit func(context.Context, statement.Proof) error) {
	for {
		if err := a.reports.post(ctx, submit); err != nil && ctx.Err() == nil {
			a.Log.Warn("reports wait", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.reports.spare:
		case <-a.Clock.After(lastPause):
		}
	}
}

// listing is what a stream that began at the beginning has named so far: when it is whole, a live grant it did not
// name is one that ended while we were not listening.
type listing struct {
	whole bool
	done  bool
	named map[broker.Stem]bool

	record audit.Source // of the brokers that are followed
	shown  bool         // the restore that this host knows of, or a later one that it took
}

// take acts on one frame.
func (a *Agent) take(f api.Frame, l *listing) error {
	if f.Index == nil && (f.Policy != nil || f.Dossier != nil) {
		l.whole = true // the broker did not know where we were and begins at the beginning
	}
	if (f.Dossier != nil || f.Beat != 0) && !l.shown {
		if s := a.ledger.snapshot(0); s.epoch.binds(s.chain) {
			return errOldEpoch
		}
		l.shown = true
	}
	switch {
	case f.Policy != nil:
		return a.takePolicy(*f.Policy)
	case f.Restore != nil:
		err := a.takeRestore(*f.Restore)
		l.shown = err == nil
		return err
	case f.Dossier != nil:
		if l.named == nil {
			l.named = map[broker.Stem]bool{}
		}
		l.named[f.Dossier.Stem()] = true
		return a.takeDossier(*f.Dossier)
	case f.Ended != nil:
		return a.takeEnded(f.Ended.Request, Tombstone{How: EndedHow(f.Ended.How), At: f.Ended.At})
	case f.Beat != 0:
		l.reach(a, f.Index)
		if err := a.takeHead(f.Checkpoint, l.record); err != nil {
			return nil // said where it was found: the word is not fresh
		}
		return a.takeBeat(f.Beat)
	}
	return nil
}

// reach notes how far a broker has come. The first time on a whole list it ends what the list does not name, unless that
// broker is behind what this host has heard before: then its silence means nothing.
func (l *listing) reach(a *Agent, index *uint64) {
	if index == nil {
		return
	}
	behind := *index < a.reached
	if l.whole && !l.done && !behind {
		a.endUnnamed(l.named)
	}
	l.done = true
	a.reached = max(a.reached, *index)
}

// note writes down how fresh the last word is and how far it reached, once a second at most: brokers beat as they like.
func (a *Agent) note(word statement.Time) error {
	now := a.Clock.Boot()
	if a.noted != 0 && now-a.noted < watchful {
		return nil
	}
	a.noted = now
	a.spooling.Lock()
	defer a.spooling.Unlock()
	return errors.Join(a.Spool.putTime(heardFile, word), a.Spool.putNumber(reachedFile, a.reached))
}

// takePolicy walks the chain forward. What does not follow is refused and said; a fork stops granting for good.
func (a *Agent) takePolicy(p statement.Proof) error {
	s := a.ledger.snapshot(a.Clock.now())
	next, err := s.chain.Advance(p)
	var fork *policy.Fork
	switch {
	case errors.Is(err, policy.ErrKnown):
		return nil
	case errors.As(err, &fork):
		if !a.reports.lately("fork", quiet) {
			a.Log.Error("GRANTING STOPS: policy forked", "error", err)
		}
		a.ledger.mu.Lock()
		a.ledger.halt = err
		a.ledger.mu.Unlock()
		a.spooling.Lock()
		defer a.spooling.Unlock()
		return a.Spool.putFork(fork)
	case err != nil:
		if !a.reports.lately("policy\x00"+err.Error(), watchful) {
			a.Log.Error("policy revision refused", "error", err)
		}
		return nil
	}
	a.spooling.Lock()
	if !maps.Equal(s.chain.Current().Brokers, next.Current().Brokers) {
		a.reached = 0 // a broker that was voted out may have named any number: it must not make the others look behind
		err = a.Spool.putNumber(reachedFile, 0)
	}
	err = errors.Join(err, a.Spool.putPolicy(next))
	halt := errors.Join(a.Spool.checkNewest(next), a.Spool.checkForks(next))
	a.spooling.Unlock()
	if err != nil {
		return err
	}
	a.adoptPolicy(next, halt)
	a.Log.Info("policy followed", "revision", next.Ref().Revision)
	poke(a.restep)
	return nil
}

// adoptPolicy judges everything again. A grant that held and holds no more is ended for good, as brokers end it.
func (a *Agent) adoptPolicy(chain policy.Chain, halt error) {
	var lost []*entry
	a.ledger.mu.Lock()
	a.ledger.chain, a.ledger.halt = chain, halt
	for _, e := range a.ledger.entries {
		if e.ended != nil {
			continue
		}
		held := e.refused == nil
		e.proof = prove(chain, e.dossier, a.ledger.host)
		if held && e.refused != nil && broker.KindOf(e.refused) != broker.Unavailable {
			lost = append(lost, e)
		}
	}
	a.ledger.mu.Unlock()
	for _, e := range lost {
		if err := a.entomb(e, EndedHow(broker.EndedByRevoke)); err != nil {
			a.Log.Error("end not kept on disk", "error", err)
		}
	}
	poke(a.wake)
}

// takeDossier adds what a broker shows to what is known of the same request. It is kept even when it proves nothing
// yet: a policy revision on its way may change that.
func (a *Agent) takeDossier(d broker.Dossier) error {
	stem := d.Stem()
	if d.Ended != nil {
		if err := a.takeEnded(d.Request.Hash(), Tombstone{How: EndedHow(d.Ended.How), At: d.Ended.At}); err != nil {
			return err
		}
	}
	a.spooling.Lock() // over both disk and ledger: a spool that is read again in between would undo one of them
	defer a.spooling.Unlock()
	a.ledger.mu.RLock()
	e, known := a.ledger.entries[stem]
	a.ledger.mu.RUnlock()
	if known {
		merged, err := broker.Merge(e.dossier, d)
		if err != nil {
			return nil // another request with this stem: what was first stays
		}
		if had, has := written(e.dossier), written(merged); bytes.Equal(had, has) || len(has) > api.MaxFrame {
			return nil // nothing new, or more than any broker could say at once
		}
		d = merged
	}
	if err := a.Spool.putDossier(d); err != nil {
		return err
	}
	a.ledger.mu.RLock()
	fresh := a.ledger.judge(d) // signatures are verified while answers go on
	a.ledger.mu.RUnlock()
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	if known {
		e.proof, e.said = fresh.proof, ""
	} else {
		a.ledger.entries[stem] = fresh
	}
	a.ledger.explain(a.Log, a.Clock.now())
	poke(a.wake)
	return nil
}

// written is a dossier as the spool holds it.
func written(d broker.Dossier) []byte {
	data, _ := json.Marshal(d) // it was read from JSON
	return data
}

// takeEnded believes a broker's bare word, because it only takes away.
func (a *Agent) takeEnded(request statement.Hash, t Tombstone) error {
	stem := broker.StemOf(request)
	a.ledger.mu.RLock()
	e, known := a.ledger.entries[stem]
	a.ledger.mu.RUnlock()
	if known {
		defer poke(a.wake)
		return a.entomb(e, t.How)
	}
	a.ledger.mu.Lock()
	_, told := a.ledger.ended[request]
	full := !told && len(a.ledger.ended) >= a.most.ends
	if !told && !full {
		a.ledger.ended[request] = t
	}
	a.ledger.mu.Unlock()
	switch {
	case full:
		return fmt.Errorf("brokers named %d ends, more than this host keeps: its next one, of a request never seen here, is not taken", a.most.ends)
	case told && a.Spool.holds(tombstoneDir, request.String()+".json"):
		return nil
	}
	return a.keepEnd(request, t)
}

// endUnnamed ends what a broker's whole list of live grants does not name: it ended while this host was not listening.
func (a *Agent) endUnnamed(named map[broker.Stem]bool) {
	a.ledger.each(func(stem broker.Stem, e *entry) {
		a.ledger.mu.RLock()
		over := e.over(a.Clock.now())
		a.ledger.mu.RUnlock()
		if named[stem] || over {
			return
		}
		a.Log.Warn("grant is no longer listed by the broker", "grant", stem.Grant())
		if err := a.entomb(e, EndedHow(broker.EndedByRevoke)); err != nil {
			a.Log.Error("end not kept on disk", "grant", stem.Grant(), "error", err)
		}
	})
	poke(a.wake)
}

// takeBeat notes a fresh word, unless the two clocks are too far apart for it to mean anything.
func (a *Agent) takeBeat(beat statement.Time) error {
	now := a.Clock.now()
	if skew := now.Sub(beat); skew > maxSkew || skew < -maxSkew {
		if !a.reports.lately("skew", watchful) { // brokers beat as they like
			a.Log.Error("the broker's clock and ours differ too much: its word does not count as fresh", "broker", beat, "host", now)
		}
		return nil
	}
	a.ledger.mu.Lock()
	a.ledger.heard = heardAt(now, a.Clock)
	a.ledger.mu.Unlock()
	return a.note(now)
}

// enrolOnce posts this host's enrolment, once in its life: the token with the machine's own identity and ssh keys,
// signed by the token's secret and the identity.
func (a *Agent) enrolOnce(ctx context.Context, submit func(context.Context, statement.Proof) error) error {
	if _, err := a.Spool.read(enrolledFile); err == nil {
		return nil
	}
	proof, err := a.enrolment()
	if err != nil {
		return err
	}
	if err := submit(ctx, proof); err != nil {
		return err
	}
	a.Log.Info("enrolled", "host", a.Host().Name)
	a.spooling.Lock()
	defer a.spooling.Unlock()
	return a.Spool.putTime(enrolledFile, a.Clock.now())
}

func (a *Agent) enrolment() (statement.Proof, error) {
	head, err := a.head(statement.KindEnrolment, statement.Day)
	if err != nil {
		return statement.Proof{}, err
	}
	identity, err := keyOf(a.identity)
	if err != nil {
		return statement.Proof{}, err
	}
	secret, err := ssh.NewSignerFromKey(a.token.secret)
	if err != nil {
		return statement.Proof{}, err
	}
	body := statement.Enrolment{Head: head, Token: a.token.token, MachineID: a.MachineID, Identity: identity, HostKeys: a.HostKeys}
	return statement.Sign(body, secret, a.reports.signer)
}
