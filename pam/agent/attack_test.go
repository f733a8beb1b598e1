package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pim-ssh/packaging/lab/forger"
)

// The module asks whenever the state directory is not plainly absent; an agent that took a disk error for "observing" would
// wave everybody through.
func TestAnEnforcingHostWhoseStateCannotBeReadStillRefuses(t *testing.T) {
	for sentence, spoil := range map[string]func(state string) error{
		"a file stands on the way to it": func(state string) error {
			return errors.Join(os.Remove(filepath.Dir(state)), os.WriteFile(filepath.Dir(state), nil, 0o600))
		},
		"it is a link to nowhere": func(state string) error { return os.Symlink("nowhere", state) },
		"it is a link to itself":  func(state string) error { return os.Symlink(filepath.Base(state), state) },
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, forger.New(t, nil))
			a := m.start()
			a.Enforcing = filepath.Join(t.TempDir(), "enforcing")
			if err := spoil(a.Enforcing); err != nil {
				t.Fatal(err)
			}
			if got := a.say("sudo", "alice", &peer{}, deny(errNotOpen, "")); got.Allow {
				t.Error("allowed")
			}
		})
	}
}

// The agent is dead when the window ends, the reaper does its work, and then somebody sets the clock back into the window
// (no further than the floor forgives: the floor is as old as the agent's death) and starts the agent again.
func TestAClockSetBackBehindTheReaperReopensNothing(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	m.clock.pass(601 * time.Second)
	for _, path := range m.units.windows[stem].Remove { // as the reaper does
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.units.Close(t.Context(), stem); err != nil {
		t.Fatal(err)
	}
	m.clock.set(-500*time.Second, 0)
	a = m.start()
	a.settle(t.Context())
	m.wantStands(stem, false)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = m.start() // and it stays over when its record is gone
	a.settle(t.Context())
	m.wantStands(stem, false)
}
