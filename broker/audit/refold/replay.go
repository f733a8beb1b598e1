package refold

import (
	"bytes"
	"errors"
	"fmt"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Replay decides a log again. Every event that carries a statement is decided anew as the brokers decided it, at the time
// it is stamped with, and must be what came of that; so must the events that follow from it. Deciding a statement verifies
// its signatures, and a grant is opened only when the policy then in force proves it. The zero Replay is not ready: New.
type Replay struct {
	state  *broker.State
	now    statement.Time // the auditor's: nothing may be stamped later
	due    []broker.Event // what the latest statement still makes happen
	folded Folded
	ahead  *ahead // the first event of this epoch that is stamped in the future
}

// ahead is an event from the future. A restore puts the clock right, so it is wrong only where none follows.
type ahead struct {
	index uint64
	why   error
}

// Folded counts what was decided again.
type Folded struct {
	Events     uint64 `json:"events"`
	Statements uint64 `json:"statements"` // signatures verified, refused statements included
	Grants     uint64 `json:"grants"`     // judged under the policy in force when they were opened
	Refused    uint64 `json:"refused"`    // statements that the rules refuse, rightly
}

// NewReplay starts before the first event.
func NewReplay(now statement.Time) *Replay { return &Replay{state: broker.NewState(), now: now} }

// State returns the state that the events so far fold to, which the caller must not change.
func (r *Replay) State() *broker.State { return r.state }

// Folded returns the counts so far.
func (r *Replay) Folded() Folded { return r.folded }

// Take decides the next event again and folds it. After an error nothing more can be taken.
func (r *Replay) Take(leaf []byte) (broker.Event, error) {
	event, err := r.take(leaf)
	if err != nil && r.ahead != nil && event != nil && event.Head().Index == r.ahead.index {
		err = r.ahead.why // and so nothing fits any more
	}
	return event, err
}

func (r *Replay) take(leaf []byte) (broker.Event, error) {
	event, err := broker.DecodeEvent(leaf)
	if err != nil {
		return nil, fmt.Errorf("is no event that brokers write: %w", err)
	}
	if err := r.place(event); err != nil {
		return event, err
	}
	if len(r.due) == 0 {
		if err := r.decide(event); err != nil {
			return event, err
		}
	}
	if err := same(r.due[0], event, leaf); err != nil {
		return event, err
	}
	r.due = r.due[1:]
	broker.Evolve(r.state, event)
	r.count(event)
	return event, nil
}

// Ahead reports the first event that is stamped in the future, unless a later restore began again at the operator's clock.
func (r *Replay) Ahead() (uint64, error) {
	if r.ahead == nil {
		return 0, nil
	}
	return r.ahead.index, r.ahead.why
}

// Done reports what is missing when the log ends here: commands are recorded whole.
func (r *Replay) Done() error {
	if len(r.due) == 0 {
		return nil
	}
	return fmt.Errorf("the log ends before the %s that follows from its last statement: it was cut", r.due[0].Head().Kind)
}

// place holds an event to its place in the log and in time.
func (r *Replay) place(event broker.Event) error {
	head := event.Head()
	_, begins := event.(*broker.EpochBegun)
	if begins {
		r.ahead = nil
	}
	switch {
	case head.Index != r.state.Index():
		return fmt.Errorf("says that it is event %d: events were removed, inserted or moved", head.Index)
	case head.At < r.state.Now() && !begins:
		return fmt.Errorf("is stamped %s, before the event in front of it (%s): time never goes back", head.At, r.state.Now())
	case head.At > r.now.Add(broker.MaxAhead) && r.ahead == nil:
		r.ahead = &ahead{head.Index, fmt.Errorf("is stamped %s, which is in the future (it is %s here): the broker that led had its clock set ahead", head.At, r.now)}
	}
	return nil
}

// decide finds out what had to happen, from the first of the events it became.
func (r *Replay) decide(event broker.Event) error {
	head := event.Head()
	command := broker.TickAt(head.At, nil)
	proof, carries := broker.Carried(event)
	if carries {
		var err error
		if command, err = broker.CommandFor(proof, head.At); err != nil {
			return fmt.Errorf("%s: the statement in it is nobody's: %w", head.Kind, err)
		}
	}
	decided, err := broker.Decide(r.state, r.under(command, event))
	switch {
	case len(decided.Events) > 0:
		r.due = decided.Events
		return nil
	case carries && err != nil:
		return fmt.Errorf("%s: the rules refuse the statement in it at %s: %w", head.Kind, head.At, err)
	case carries:
		return fmt.Errorf("%s: the statement in it was taken before: it is recorded twice", head.Kind)
	default:
		return fmt.Errorf("%s: no statement and no time makes this happen here: it was forged", head.Kind)
	}
}

// under gives a command the rules that the event was decided under. The first says so itself, and a statement that raises
// them is refused under those in force: only what was not refused was made under the next.
func (r *Replay) under(command broker.Command, event broker.Event) broker.Command {
	command = command.Under(r.state)
	switch event := event.(type) {
	case *broker.PolicyAdopted:
		if event.Index == 0 {
			command.Rules, command.Founding = max(1, event.Rules), event.Founding
		}
	case *broker.StatementRefused:
		command.Rules = r.state.Rules()
	}
	return command
}

// same holds an event to what had to happen. In which words a refusal was told is no rule, and may change.
func same(want, have broker.Event, leaf []byte) error {
	refused, isRefused := want.(*broker.StatementRefused)
	told, wasTold := have.(*broker.StatementRefused)
	if isRefused && wasTold {
		again := *refused
		again.Why, again.Hint = told.Why, told.Hint
		want = &again
	}
	encoded, err := broker.EncodeEvent(want)
	if err != nil {
		return err
	}
	if bytes.Equal(encoded, leaf) {
		return nil
	}
	kind := have.Head().Kind
	switch {
	case isRefused && !wasTold:
		return fmt.Errorf("%s: the rules refuse the statement in it: %w", kind, errors.New(refused.Why))
	case wasTold:
		return fmt.Errorf("%s: the rules do not refuse that statement: they make it a %s", kind, want.Head().Kind)
	case want.Head().Kind != kind:
		return fmt.Errorf("%s: a %s had to stand here: an event was removed, inserted or forged", kind, want.Head().Kind)
	default:
		return fmt.Errorf("%s: it does not say what follows from the signed statements: it was forged", kind)
	}
}

func (r *Replay) count(event broker.Event) {
	r.folded.Events++
	if _, carries := broker.Carried(event); carries {
		r.folded.Statements++
	}
	switch event.(type) {
	case *broker.GrantOpened:
		r.folded.Grants++
	case *broker.StatementRefused:
		r.folded.Refused++
	}
}
