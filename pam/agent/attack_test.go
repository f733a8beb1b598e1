package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

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
