package main

import (
	"testing"
	"time"

	"pim-ssh/broker/policy"
)

// workdays are Monday to Friday, and a Saturday morning.
func workdays() []policy.Span {
	var spans []policy.Span
	for day := range 5 {
		spans = append(spans, policy.Span{From: day*minutesInDay + 8*60, Until: day*minutesInDay + 18*60})
	}
	return append(spans, policy.Span{From: 5*minutesInDay + 10*60, Until: 5*minutesInDay + 12*60})
}

func TestHoursAreSaidAsPeopleWriteThem(t *testing.T) {
	for want, spans := range map[string][]policy.Span{
		"mon-fri 08:00-18:00, sat 10:00-12:00 in Europe/Berlin": workdays(),
		"mon 00:00-24:00 in Europe/Berlin":                      {{From: 0, Until: minutesInDay}},
		"tue-wed 22:00-24:00 in Europe/Berlin":                  {{From: minutesInDay + 22*60, Until: 2 * minutesInDay}, {From: 2*minutesInDay + 22*60, Until: 3 * minutesInDay}},
		"fri 22:00-06:00 in Europe/Berlin":                      {{From: 4*minutesInDay + 22*60, Until: 5*minutesInDay + 6*60}},
	} {
		if got := weekInWords(policy.Hours{Zone: "Europe/Berlin", Weekly: spans}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestHoursGoByTheClockOfTheirZone(t *testing.T) {
	hours := policy.Hours{Zone: "Europe/Berlin", Weekly: workdays()}
	for at, want := range map[string]bool{
		"2026-11-23T06:59:00Z": false, // Mon 07:59 there
		"2026-11-23T07:00:00Z": true,
		"2026-11-27T16:59:59Z": true, // Fri 17:59
		"2026-11-27T17:00:00Z": false,
		"2026-07-06T06:00:00Z": true, // Mon 08:00 in summer
		"2026-11-28T09:30:00Z": true, // Sat 10:30
		"2026-11-29T09:30:00Z": false,
	} {
		moment, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		inside, local, err := within(hours, moment)
		if err != nil || inside != want {
			t.Errorf("%s (%s there): %t, %v", at, local, inside, err)
		}
	}
	if _, _, err := within(policy.Hours{Zone: "Europe/Nowhere", Weekly: workdays()}, time.Unix(0, 0)); err == nil {
		t.Error("a zone that is not there has hours")
	}
}

func TestADateMeansItsEnd(t *testing.T) {
	zone := time.FixedZone("there", 2*3600)
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, zone)
	for typed, want := range map[string]string{"2027-06-30": "2027-06-30T22:00:00Z", "+90d": "2027-02-21T10:00:00Z", "2027-01-01T00:00:00Z": "2027-01-01T00:00:00Z"} {
		got, err := parseDate(typed, now)
		if err != nil || got.String() != want {
			t.Errorf("%s is %s, %v: want %s", typed, got, err, want)
		}
	}
	if _, err := parseDate("summer", now); exitCode(err) != exitUsage {
		t.Errorf("a date that is none: %v", err)
	}
}
