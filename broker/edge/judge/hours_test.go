package judge

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func at(t *testing.T, text string) statement.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return statement.TimeOf(moment)
}

// TestHoursAreTheWallClocksOfTheirZone knows what a clock in Berlin shows, on the days on which it is changed too.
func TestHoursAreTheWallClocksOfTheirZone(t *testing.T) {
	office := []policy.Span{{From: 8 * 60, Until: 18 * 60}, {From: (4*24 + 8) * 60, Until: (4*24 + 18) * 60}} // Monday and Friday
	night := []policy.Span{{From: (6*24 + 2) * 60, Until: (6*24 + 3) * 60}}                                   // Sunday, 02:00 to 03:00
	for name, try := range map[string]struct {
		zone   string
		weekly []policy.Span
		at     string
		within bool
		local  string
	}{
		"the first minute":                  {"Europe/Berlin", office, "2026-11-23T07:00:00Z", true, "Mon 08:00"},
		"the second before it":              {"Europe/Berlin", office, "2026-11-23T06:59:59Z", false, "Mon 07:59"},
		"the last second":                   {"Europe/Berlin", office, "2026-11-23T16:59:59Z", true, "Mon 17:59"},
		"the end, which is no part of it":   {"Europe/Berlin", office, "2026-11-23T17:00:00Z", false, "Mon 18:00"},
		"another day":                       {"Europe/Berlin", office, "2026-11-24T10:00:00Z", false, "Tue 11:00"},
		"a later span of the week":          {"Europe/Berlin", office, "2026-11-27T16:59:00Z", true, "Fri 17:59"},
		"summer time":                       {"Europe/Berlin", office, "2026-07-06T06:00:00Z", true, "Mon 08:00"},
		"summer time, an hour early":        {"Europe/Berlin", office, "2026-07-06T05:59:59Z", false, "Mon 07:59"},
		"the zone's Monday, still Sunday":   {"Pacific/Auckland", office, "2026-11-22T19:30:00Z", true, "Mon 08:30"},
		"the zone's Sunday, Monday in UTC":  {"America/Los_Angeles", office, "2026-11-23T07:30:00Z", false, "Sun 23:30"},
		"a zone of half an hour":            {"Asia/Kolkata", office, "2026-11-23T02:30:00Z", true, "Mon 08:00"},
		"the hour that there is not":        {"Europe/Berlin", night, "2026-03-29T01:30:00Z", false, "Sun 03:30"},
		"the second before that hour":       {"Europe/Berlin", night, "2026-03-29T00:59:59Z", false, "Sun 01:59"},
		"the hour that there is twice":      {"Europe/Berlin", night, "2026-10-25T00:30:00Z", true, "Sun 02:30"},
		"the same hour again":               {"Europe/Berlin", night, "2026-10-25T01:30:00Z", true, "Sun 02:30"},
		"the end of the second":             {"Europe/Berlin", night, "2026-10-25T02:00:00Z", false, "Sun 03:00"},
		"the whole week":                    {"UTC", []policy.Span{{From: 0, Until: 7 * 24 * 60}}, "2026-11-29T23:59:59Z", true, "Sun 23:59"},
		"no span":                           {"UTC", nil, "2026-11-23T10:00:00Z", false, "Mon 10:00"},
		"a zone that there is not":          {"Europe/Nowhere", office, "2026-11-23T10:00:00Z", false, "an unknown time"},
		"the broker's own zone is nobody's": {"Local", office, "2026-11-23T10:00:00Z", false, "an unknown time"},
		"a path":                            {"../../etc/passwd", office, "2026-11-23T10:00:00Z", false, "an unknown time"},
	} {
		t.Run(name, func(t *testing.T) {
			within, local := Hours(policy.Hours{Zone: try.zone, Weekly: try.weekly}, at(t, try.at))
			if within != try.within || local != try.local {
				t.Errorf("%t at %s: want %t at %s", within, local, try.within, try.local)
			}
		})
	}
}
