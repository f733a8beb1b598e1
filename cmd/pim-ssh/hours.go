package main

import (
	"fmt"
	"strings"
	"time"

	"pim-ssh/broker/policy"
)

const (
	minutesInDay  = 24 * 60
	minutesInHour = 60
)

var weekdays = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// within reports whether a moment is within a role's hours by the clock of their zone, and what that clock says. It is for
// people to see early: brokers judge.
func within(hours policy.Hours, now time.Time) (inside bool, local string, err error) {
	zone, err := time.LoadLocation(hours.Zone)
	if err != nil {
		return false, "", fmt.Errorf("this machine does not know the time zone %s", hours.Zone)
	}
	there := now.In(zone)
	day := (int(there.Weekday()) + 6) % 7 // Monday is the first
	minute := day*minutesInDay + there.Hour()*minutesInHour + there.Minute()
	for _, span := range hours.Weekly {
		inside = inside || span.From <= minute && minute < span.Until
	}
	return inside, there.Format("Mon 15:04"), nil
}

// weekInWords says a role's hours in words: "mon-fri 08:00-18:00, sat 10:00-12:00 in Europe/Berlin".
func weekInWords(hours policy.Hours) string {
	var said []string
	for i := 0; i < len(hours.Weekly); {
		last := i
		for last+1 < len(hours.Weekly) && hours.Weekly[last+1] == nextDay(hours.Weekly[last]) {
			last++
		}
		said = append(said, spanOfWeek(hours.Weekly[i], hours.Weekly[last]))
		i = last + 1
	}
	return strings.Join(said, ", ") + " in " + hours.Zone
}

func nextDay(span policy.Span) policy.Span {
	return policy.Span{From: span.From + minutesInDay, Until: span.Until + minutesInDay}
}

func spanOfWeek(first, last policy.Span) string {
	begins, ends := first.From/minutesInDay, (first.Until-1)/minutesInDay
	if begins != ends { // over midnight
		return first.String()
	}
	days := weekdays[begins]
	if until := last.From / minutesInDay; until != begins {
		days += "-" + weekdays[until]
	}
	return days + " " + ofDay(first.From) + "-" + ofDay(first.Until)
}

// ofDay writes a minute of the week as a time of its day; a span's end at midnight is 24:00.
func ofDay(minute int) string {
	if minute%minutesInDay == 0 && minute > 0 {
		return "24:00"
	}
	minute %= minutesInDay
	return fmt.Sprintf("%02d:%02d", minute/minutesInHour, minute%minutesInHour)
}
