package agent

import (
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Clock is time as a parameter: all three are set.
type Clock struct {
	Wall  func() time.Time                     // CLOCK_REALTIME, which somebody may set
	Boot  func() time.Duration                 // CLOCK_BOOTTIME, which nobody sets and suspend does not stop
	After func(time.Duration) <-chan time.Time // a timer
}

func (c Clock) now() statement.Time { return statement.TimeOf(c.Wall()) }

// slack is how far the wall clock may stand behind the newest time this host has seen before nothing starts: statements
// may be that much ahead of an honest clock.
const slack statement.Seconds = broker.MaxAhead

// deadline is the end of one window on both clocks.
type deadline struct {
	wall statement.Time
	boot time.Duration
}

// deadlineOf fixes the boottime deadline of a window that ends at until: what remains by the wall clock now.
func (c Clock) deadlineOf(until statement.Time) deadline {
	return deadline{wall: until, boot: c.Boot() + until.Std().Sub(c.Wall())}
}

// remaining is how long the window still lasts: by whichever clock says less. It is ≤ 0 when it is over.
func (c Clock) remaining(d deadline) time.Duration {
	return min(d.wall.Std().Sub(c.Wall()), d.boot-c.Boot())
}
