package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pim-ssh/broker/statement"
)

const durationHint = "write it like 1h, 90m, 1h30m or 2d"

var durationPart = regexp.MustCompile(`^([0-9]{1,6})(d|h|m|s)`)

// parseDuration reads "1h", "1h30m", "2d": descending units, whole numbers, nothing else, more than nothing.
func parseDuration(text string) (statement.Seconds, error) {
	unit := map[string]statement.Seconds{"d": statement.Day, "h": 3600, "m": 60, "s": 1}
	var sum statement.Seconds
	last := statement.Seconds(366 * statement.Day)
	for rest := text; rest != ""; {
		part := durationPart.FindStringSubmatch(rest)
		if part == nil || unit[part[2]] >= last {
			return 0, usage(durationHint, "%q is not a duration", text)
		}
		n, err := strconv.Atoi(part[1])
		if err != nil {
			return 0, usage(durationHint, "%q is not a duration", text)
		}
		last = unit[part[2]]
		sum += statement.Seconds(n) * last
		rest = rest[len(part[0]):]
	}
	if sum <= 0 || sum > 366*statement.Day {
		return 0, usage(durationHint, "%q is not a duration between 1s and 366d", text)
	}
	return sum, nil
}

// parseWhen reads an instant: RFC 3339, "+2h" from now, or "15:04" in local time, the next one to come.
func parseWhen(text string, now time.Time) (statement.Time, error) {
	if after, relative := strings.CutPrefix(text, "+"); relative {
		d, err := parseDuration(after)
		return statement.TimeOf(now).Add(d), err
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return statement.TimeOf(t), nil
	}
	clock, err := time.Parse("15:04", text)
	if err != nil {
		return 0, usage("write it like 2026-11-23T22:00:00Z, 22:00 or +2h", "%q is not a time", text)
	}
	year, month, day := now.Date()
	at := time.Date(year, month, day, clock.Hour(), clock.Minute(), 0, 0, now.Location())
	if !at.After(now) {
		at = time.Date(year, month, day+1, clock.Hour(), clock.Minute(), 0, 0, now.Location())
	}
	return statement.TimeOf(at), nil
}

// span writes a duration as people do: 1h, 1h30m, 45s, 2d.
func span(d statement.Seconds) string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	for _, unit := range []struct {
		name string
		size statement.Seconds
	}{{"d", statement.Day}, {"h", 3600}, {"m", 60}, {"s", 1}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.size
		}
	}
	return b.String()
}

// moment writes an instant in UTC with its distance from now.
func moment(t, now statement.Time) string {
	switch {
	case t == 0:
		return "never"
	case t > now:
		return fmt.Sprintf("%s (in %s)", t, roughly(t.Sub(now)))
	}
	return fmt.Sprintf("%s (%s ago)", t, roughly(now.Sub(t)))
}

// roughly cuts a duration to its two largest units.
func roughly(d statement.Seconds) string {
	switch {
	case d >= statement.Day:
		d -= d % 3600
	case d >= 3600:
		d -= d % 60
	}
	return span(d)
}
