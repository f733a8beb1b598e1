package judge

import (
	"time"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Hours reports whether a moment is within a role's hours, and what their clock says then: "Mon 14:05". A zone that this
// machine does not know has no hours. A day on which clocks are changed is read as a wall clock there shows it: an hour that
// there is twice counts twice, and one that there is not is in no span.
func Hours(h policy.Hours, at statement.Time) (within bool, local string) {
	zone, err := time.LoadLocation(h.Zone)
	if err != nil || h.Zone == "Local" { // every broker's own, and so nobody's
		return false, "an unknown time"
	}
	clock := at.Std().In(zone)
	minute := (int(clock.Weekday())+6)%7*24*60 + clock.Hour()*60 + clock.Minute() // since Monday 00:00
	for _, span := range h.Weekly {
		within = within || span.From <= minute && minute < span.Until
	}
	return within, clock.Format("Mon 15:04")
}
