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

// Poll asks at once, and then again and again until holds is true or the time is over; it returns the last answer. It pauses for 20 ms,
// or for as long as the answer took: asking shall not keep busy what is waited for.
func Poll(within time.Duration, holds func() bool) bool {
	end := time.Now().Add(within)
	for {
		asked := time.Now()
		if holds() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		<-time.After(max(20*time.Millisecond, time.Since(asked)))
	}
}
