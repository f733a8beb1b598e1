package refold

import (
	"fmt"
	"slices"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Record is one broker's record under audit.
type Record struct {
	Source audit.Source
	Signed audit.Signed   // its checkpoint, opened
	Others []audit.Signed // of other brokers: what the record must agree with
	Before []Seen         // of earlier audits: the same, but for what a restore says that it leaves out
	Pinned policy.Chain   // what the auditor has verified of the policy; the record's must be the same chain
	Now    statement.Time
}

// Seen is a head that an earlier audit found sound, in an epoch.
type Seen struct {
	audit.Signed
	Epoch uint64 // 0: before the first restore
}

// Restored is one restore in a record.
type Restored struct {
	Index   uint64           `json:"index"`
	Epoch   uint64           `json:"epoch"`
	Person  statement.Person `json:"person"`
	Why     string           `json:"why"`
	Despite string           `json:"despite"` // why it may leave out what was recorded before; "" when it does not
}

// Verified is what was found out about a record, as far as it is sound.
type Verified struct {
	Folded
	Chain  policy.Chain   `json:"-"`
	Last   statement.Time `json:"-"`    // when the newest event happened, as it says
	Told   []Told         `json:"told"` // what hosts were not content with
	Epochs []Restored     `json:"epochs"`
	Epoch  uint64         `json:"-"` // the newest
	Failed uint64         `json:"-"` // the first event that is not sound; audit.NoIndex when all are
}

// Told is a host's complaint about a broker's record. It is that host's word alone.
type Told struct {
	Index uint64             `json:"index"`
	Host  statement.HostName `json:"host"`
	Why   string             `json:"why"`
}

// Event is one event as it is read. It may be nil beside an error.
type Event struct {
	Index uint64
	broker.Event
	Chain policy.Chain // in force when it happened
}

// claim is a head that a host says it was shown.
type claim struct {
	index uint64
	host  statement.HostName
	head  statement.LogHead
	epoch uint64
}

// reading is one run of Verify.
type reading struct {
	replay *Replay
	claims []claim
	result Verified
	failed *audit.Wrong
	each   func(Event)
}

// Verify reads a record whole and names the first thing that is wrong with it, as an *audit.Wrong: entries, tiles and
// checkpoint first; then, event by event, what the rules do not make of the signed statements; then the state that was
// signed; then what others signed or were shown. each may be nil; it sees every event that decodes, in order, before
// anything is known of the record as a whole.
func Verify(r Record, each func(Event)) (Verified, error) {
	run := &reading{replay: NewReplay(r.Now), each: each, result: Verified{Failed: audit.NoIndex}}
	tree, err := audit.Read(r.Source, r.Signed.LogHead, run.take)
	run.end()
	if err != nil {
		return run.result, err
	}
	if run.failed != nil {
		return run.result, run.failed
	}
	for _, check := range []func() *audit.Wrong{
		func() *audit.Wrong { return run.checkEnd(r) },
		func() *audit.Wrong { return checkOthers(tree, r.Others) },
		func() *audit.Wrong { return run.checkBefore(tree, r.Before) },
		func() *audit.Wrong { return run.checkClaims(tree) },
	} {
		if wrong := check(); wrong != nil {
			return run.result, wrong
		}
	}
	return run.result, nil
}

// end notes what all events came to.
func (run *reading) end() {
	state := run.replay.State()
	run.result.Folded, run.result.Chain, run.result.Last, run.result.Epoch = run.replay.Folded(), state.Chain(), state.Now(), state.Epoch().Number
}

// take replays one event. After the first that is wrong the rest is only shown.
func (run *reading) take(index uint64, leaf []byte) {
	if run.failed != nil {
		if event, err := broker.DecodeEvent(leaf); err == nil {
			run.show(index, event)
		}
		return
	}
	event, err := run.replay.Take(leaf)
	if err != nil {
		run.failed = &audit.Wrong{Index: index, Why: err.Error(), Err: err}
		run.result.Failed = index
	}
	if event == nil {
		return
	}
	run.show(index, event)
	switch event := event.(type) {
	case *broker.HostReported:
		run.hear(index, event, err)
	case *broker.EpochBegun:
		run.restored(index, event, err)
	}
}

func (run *reading) show(index uint64, event broker.Event) {
	if run.each != nil {
		run.each(Event{Index: index, Event: event, Chain: run.replay.State().Chain()})
	}
}

// restored notes a restore.
func (run *reading) restored(index uint64, e *broker.EpochBegun, wrong error) {
	var body statement.Restore
	if err := statement.DecodeStrict(e.Proof.Payload, &body); err != nil || wrong != nil {
		return
	}
	run.result.Epochs = append(run.result.Epochs, Restored{index, body.Epoch, body.Person, body.Why, body.Despite})
}

// leftOut reports whether a restore says why what was recorded in an epoch need not stand in this record.
func (run *reading) leftOut(epoch, before uint64) bool {
	return slices.ContainsFunc(run.result.Epochs, func(r Restored) bool { return r.Epoch > epoch && r.Index < before && r.Despite != "" })
}

// hear notes what a host says of the record itself.
func (run *reading) hear(index uint64, e *broker.HostReported, wrong error) {
	var report statement.Report
	if err := statement.DecodeStrict(e.Proof.Payload, &report); err != nil || wrong != nil {
		return // Decide has opened it
	}
	if report.What == statement.LogRefused {
		run.result.Told = append(run.result.Told, Told{index, e.Host, report.Why})
	}
	if report.Log.Size > 0 {
		run.claims = append(run.claims, claim{index, e.Host, report.Log, report.Epoch})
	}
}

// checkEnd holds the whole to its checkpoint and to the auditor's policy chain.
func (run *reading) checkEnd(r Record) *audit.Wrong {
	state := run.replay.State()
	if err := run.replay.Done(); err != nil {
		return &audit.Wrong{Index: state.Index(), Why: err.Error(), Err: err}
	}
	if index, err := run.replay.Ahead(); err != nil {
		run.result.Failed = index
		return &audit.Wrong{Index: index, Why: err.Error(), Err: err}
	}
	if r.Signed.Size > 0 && state.Digest() != r.Signed.State {
		return &audit.Wrong{Where: audit.PathCheckpoint, Index: audit.NoIndex,
			Why: fmt.Sprintf("broker %s signed state %s, but the events fold to %s: it did not follow its own log", r.Signed.Broker, r.Signed.State, state.Digest())}
	}
	own, pinned := state.Chain().Ref(), r.Pinned.Ref()
	if r.Signed.Size > 0 && r.Pinned.Place(own) == policy.Foreign || state.Chain().Place(pinned) == policy.Foreign {
		return &audit.Wrong{Index: audit.NoIndex, Why: fmt.Sprintf("the policy in this record (revision %d) is not the one you pinned (revision %d)", own.Revision, pinned.Revision)}
	}
	return nil
}

// checkOthers holds the tree to what was signed elsewhere or before.
func checkOthers(tree *audit.Tree, others []audit.Signed) *audit.Wrong {
	for _, other := range others {
		own, reaches := tree.Head(other.Size)
		switch {
		case !reaches:
			return &audit.Wrong{Where: audit.PathCheckpoint, Index: tree.Size(), Err: audit.ErrShrunk,
				Why: fmt.Sprintf("the record ends here, but broker %s signed one of %d events: it was truncated", other.Broker, other.Size)}
		case other.Size > 0 && own.Root != other.Root:
			return &audit.Wrong{Where: audit.PathCheckpoint, Index: audit.NoIndex, Err: audit.ErrForked,
				Why: fmt.Sprintf("among its first %d events one is not what it was: broker %s signed root %s, and they have root %s: the log was forked or rewritten",
					other.Size, other.Broker, other.Root, own.Root)}
		}
	}
	return nil
}

// checkBefore holds the tree to what was found sound earlier.
func (run *reading) checkBefore(tree *audit.Tree, before []Seen) *audit.Wrong {
	for _, seen := range before {
		if wrong := checkOthers(tree, []audit.Signed{seen.Signed}); wrong != nil && !run.leftOut(seen.Epoch, audit.NoIndex) {
			return wrong
		}
	}
	return nil
}

// checkClaims holds the tree to what hosts say they were shown.
func (run *reading) checkClaims(tree *audit.Tree) *audit.Wrong {
	for _, c := range run.claims {
		own, reaches := tree.Head(c.head.Size)
		if c.head.Size <= c.index && reaches && own.Root == c.head.Root || run.leftOut(c.epoch, c.index) {
			continue
		}
		return &audit.Wrong{Index: c.index, Err: audit.ErrForked,
			Why: fmt.Sprintf("host %s was shown a log of %d events with root %s, and this is another: a broker showed it a different log, or the host lies",
				c.host, c.head.Size, c.head.Root)}
	}
	return nil
}
