package effect

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Bounds of alarms.
const (
	alarmSince  = statement.Seconds(60 * 60) // what is older when a broker starts was told before, or by others
	alarmBatch  = 256
	alarmLook   = time.Minute // how often open reviews are looked at
	reviewWaits = statement.Day
)

// alarming are the kinds of event that may be worth a line. Text inside an event cannot hold these bytes, its quotes are escaped.
var alarming = [][]byte{[]byte(`"kind":"GrantOpened"`), []byte(`"kind":"StatementRefused"`), []byte(`"kind":"FactorEnrolled"`), []byte(`"kind":"FactorReset"`)}

// Alarm writes a line into this broker's journal for each thing that somebody should look at: a grant that nobody approved, codes
// that are locked, a second factor that is new or taken away, a review that nobody does. Every broker writes its own, whoever
// leads, at least once: one that starts repeats the last hour's.
type Alarm struct {
	Events Log
	Now    func() statement.Time
	Log    *slog.Logger

	next    uint64
	begun   bool
	locked  map[statement.Person]statement.Time // until when, of lockouts that were told
	overdue map[broker.GrantID]statement.Time   // when a late review was last told
}

// Run watches until ctx ends.
func (a *Alarm) Run(ctx context.Context) {
	look := time.NewTicker(alarmLook)
	defer look.Stop()
	for ctx.Err() == nil {
		_, grown, err := a.Events.Events(a.next, 1)
		if err == nil {
			err = a.Once()
		}
		if err != nil {
			grown = nil // a closed or failing log is tried again later
		}
		select {
		case <-grown:
		case <-look.C:
		case <-ctx.Done():
		}
	}
}

// Once tells what there is to tell by now.
func (a *Alarm) Once() error {
	if err := a.begin(); err != nil {
		return err
	}
	for {
		leaves, _, err := a.Events.Events(a.next, alarmBatch)
		if err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := a.tell(leaf); err != nil {
				return err
			}
			a.next++
		}
		if len(leaves) == 0 {
			return a.reviews()
		}
	}
}

// begin finds the first event of the last hour. Times in the log do not go back but where an epoch begins, and then what is
// told is more than the last hour's, or less by what the old record held.
func (a *Alarm) begin() error {
	if a.begun {
		return nil
	}
	var events uint64
	if err := a.Events.Local(func(state *broker.State) { events = state.Index() }); err != nil {
		return err
	}
	low, high, since := uint64(0), events, a.Now().Add(-alarmSince)
	for low < high {
		middle := low + (high-low)/2
		leaves, _, err := a.Events.Events(middle, 1)
		if err != nil {
			return err
		}
		var head struct {
			At statement.Time `json:"at"`
		}
		if len(leaves) == 0 || json.Unmarshal(leaves[0], &head) != nil || head.At >= since {
			high = middle
			continue
		}
		low = middle + 1
	}
	a.next, a.begun = low, true
	a.locked, a.overdue = map[statement.Person]statement.Time{}, map[broker.GrantID]statement.Time{}
	return nil
}

// tell writes the line that an event deserves, if any.
func (a *Alarm) tell(leaf []byte) error {
	may := false
	for _, kind := range alarming {
		may = may || bytes.Contains(leaf, kind)
	}
	if !may {
		return nil
	}
	event, err := broker.DecodeEvent(leaf)
	if err != nil {
		return err
	}
	at := event.Head().At
	switch e := event.(type) {
	case *broker.GrantOpened:
		if e.Grant.Alarm {
			a.Log.Warn("ALARM: a grant opened that nobody approved", "grant", e.Grant.ID, "person", e.Grant.Person, "role", e.Grant.Role,
				"hosts", e.Grant.Hosts, "until", e.Grant.Until, "at", at, "hint", "pim-ssh show "+string(e.Grant.ID))
		}
	case *broker.FactorEnrolled:
		a.Log.Warn("ALARM: a second factor was enrolled", "person", e.Person, "at", at, "hint", "if it was not "+string(e.Person)+": pim-ssh totp reset "+string(e.Person))
	case *broker.FactorReset:
		a.Log.Warn("ALARM: a second factor was taken away", "person", e.Of, "by", e.Person, "at", at)
	case *broker.StatementRefused:
		return a.lockout(e)
	}
	return nil
}

// lockout tells once that a person's codes are locked, when a wrong one was the last.
func (a *Alarm) lockout(e *broker.StatementRefused) error {
	if (e.Judged.Code == nil || e.Judged.Code.Right) && (e.Judged.Old == nil || e.Judged.Old.Right) {
		return nil
	}
	var until statement.Time
	err := a.Events.Local(func(state *broker.State) { _, until = state.FactorOf(e.Person) })
	if err == nil && until > e.At && a.locked[e.Person] != until {
		a.locked[e.Person] = until
		a.Log.Warn("ALARM: somebody with a key of this person guesses codes, and codes are locked", "person", e.Person, "until", until, "at", e.At,
			"hint", "ask "+string(e.Person)+"; if it was somebody else, take the key out of the policy")
	}
	return err
}

// reviews tells once a day of each emergency grant that nobody has looked at for a day.
func (a *Alarm) reviews() error {
	var open []broker.Review
	if err := a.Events.Local(func(state *broker.State) { open = state.Reviews() }); err != nil {
		return err
	}
	now := a.Now()
	for _, r := range open {
		if now < max(r.At, a.overdue[r.Grant]).Add(reviewWaits) {
			continue
		}
		a.overdue[r.Grant] = now
		a.Log.Warn("ALARM: nobody has reviewed an emergency grant", "grant", r.Grant, "person", r.Person, "role", r.Role, "opened", r.At,
			"hint", "pim-ssh review "+string(r.Grant))
	}
	return nil
}
