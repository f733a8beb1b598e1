package agent

import (
	"fmt"
	"time"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// strictBound is how old the last word may be under `offline: strict`: three beats.
const strictBound = 15 * time.Second

// heard is when this host last had a fresh word from a broker, on both clocks: setting the wall clock back makes no
// word fresher. The zero value is never.
type heard struct {
	wall statement.Time
	boot time.Duration // of the same moment, by this boot's clock
}

// heardAt places a word that was heard at wall, now or before a restart, on the boottime clock.
func heardAt(wall statement.Time, clock Clock) heard {
	age := max(0, clock.Wall().Sub(wall.Std()))
	return heard{wall: wall, boot: clock.Boot() - age}
}

// fresh reports why a role's staleness bound forbids new starts; sessions that run go on.
func (h heard) fresh(offline policy.Offline, clock Clock) error {
	bound := strictBound
	switch offline.Mode {
	case policy.OfflineWindow:
		return nil
	case policy.OfflineGrace:
		bound = offline.Grace.Std()
	}
	if h.wall == 0 {
		return fmt.Errorf("this host has not heard from a broker yet (offline: %s)", offline.Mode)
	}
	age := max(clock.Wall().Sub(h.wall.Std()), clock.Boot()-h.boot)
	if age > bound {
		return fmt.Errorf("this host last heard from a broker %s ago and may start nothing after %s (offline: %s)",
			age.Round(time.Second), bound, offline.Mode)
	}
	return nil
}
