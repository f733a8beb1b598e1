package labtest

import (
	"testing"
	"time"
)

// WaitFor asks again and again until holds is true, and stops the test when that does not happen in time.
func WaitFor(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	if !Poll(within, holds) {
		t.Fatalf("not within %v: %s", within, what)
	}
}

// Poll asks at once and then every 20 ms until holds is true, or until the time is over; it returns the last answer.
func Poll(within time.Duration, holds func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); ; <-tick.C {
		if holds() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
