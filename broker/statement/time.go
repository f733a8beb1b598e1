package statement

import (
	"fmt"
	"time"
)

// Time is an instant in whole seconds since 1970 UTC; in JSON it is RFC 3339 in UTC ("2026-11-23T08:00:00Z").
// Zero means "not given" (in text: empty) and is never a valid instant in a statement.
type Time int64

// Seconds is a duration in whole seconds; in JSON a plain integer.
type Seconds int64

// Day is one day of 24 hours.
const Day Seconds = 24 * 60 * 60

// maxTime is the last instant that parses, 2999-12-31T23:59:59Z: sums of what parses stay printable.
const maxTime Time = 32503679999

// canonicalTime is the only layout that parses.
const canonicalTime = "2006-01-02T15:04:05Z"

// ParseTime reads the canonical form only: UTC, whole seconds, upper case, after 1970-01-01T00:00:00Z.
func ParseTime(s string) (Time, error) {
	std, err := time.Parse(canonicalTime, s)
	t := Time(std.Unix())
	if err != nil || t <= 0 || t > maxTime || t.String() != s {
		return 0, fmt.Errorf("time %.40q: want UTC in whole seconds such as 2026-11-23T08:00:00Z", s)
	}
	return t, nil
}

// TimeOf cuts t down to whole seconds.
func TimeOf(t time.Time) Time { return Time(t.Unix()) }

// Std returns t as a time.Time in UTC; zero gives the zero time.Time.
func (t Time) Std() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(int64(t), 0).UTC()
}

// Add returns the instant d later.
func (t Time) Add(d Seconds) Time { return t + Time(d) }

// Sub returns the seconds from u to t.
func (t Time) Sub(u Time) Seconds { return Seconds(t - u) }

// String returns the canonical form, and "" for zero.
func (t Time) String() string {
	if t == 0 {
		return ""
	}
	return t.Std().Format(canonicalTime)
}

// MarshalText writes the canonical form; an instant outside the years 1 to 9999 has none.
func (t Time) MarshalText() ([]byte, error) {
	if y := t.Std().Year(); y < 1 || y > 9999 {
		return nil, fmt.Errorf("time %d: outside the years 1 to 9999", int64(t))
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads the canonical form; empty text is zero.
func (t *Time) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*t = 0
		return nil
	}
	return parseInto(t, b, ParseTime)
}

// Std returns d as a time.Duration.
func (d Seconds) Std() time.Duration { return time.Duration(d) * time.Second }
