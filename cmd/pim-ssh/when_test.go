package main

import (
	"testing"
	"time"

	"pim-ssh/broker/statement"
)

func TestDurationsAreReadStrictly(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want statement.Seconds // 0: refused
	}{
		"an hour":                   {"1h", 3600},
		"minutes":                   {"90m", 5400},
		"two units":                 {"1h30m", 5400},
		"all units":                 {"1d2h3m4s", 93784},
		"a week":                    {"7d", 7 * statement.Day},
		"nothing":                   {"", 0},
		"no unit":                   {"60", 0},
		"zero":                      {"0h", 0},
		"negative":                  {"-1h", 0},
		"a fraction":                {"1.5h", 0},
		"units in the wrong order":  {"30m1h", 0},
		"a unit twice":              {"1h1h", 0},
		"an unknown unit":           {"1w", 0},
		"a space":                   {"1 h", 0},
		"full-width digits":         {"１h", 0},
		"more than a year":          {"400d", 0},
		"so many that it overflows": {"999999d", 0},
		"trailing words":            {"1hour", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseDuration(c.text)
			if (err == nil) != (c.want != 0) || err == nil && got != c.want {
				t.Errorf("parseDuration(%q) = %d, %v; want %d", c.text, got, err, c.want)
			}
			if err != nil && exitCode(err) != exitUsage {
				t.Errorf("exit code %d, want %d", exitCode(err), exitUsage)
			}
		})
	}
}

func TestWhenIsReadAsPeopleWriteIt(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 23, 9, 30, 0, 0, berlin)
	for name, c := range map[string]struct{ text, want string }{
		"RFC 3339 in UTC":            {"2026-11-23T22:00:00Z", "2026-11-23T22:00:00Z"},
		"RFC 3339 with an offset":    {"2026-11-23T22:00:00+01:00", "2026-11-23T21:00:00Z"},
		"from now":                   {"+2h", "2026-11-23T10:30:00Z"},
		"a time of day still ahead":  {"22:00", "2026-11-23T21:00:00Z"},
		"a time of day already over": {"09:00", "2026-11-24T08:00:00Z"},
		"this very minute":           {"09:30", "2026-11-24T08:30:00Z"},
		"a word":                     {"tomorrow", ""},
		"an hour that is none":       {"25:00", ""},
		"a negative distance":        {"+-2h", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseWhen(c.text, now)
			if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
				t.Errorf("parseWhen(%q) = %s, %v; want %q", c.text, got, err, c.want)
			}
		})
	}
}

func TestSpansReadBackAsTheyWereWritten(t *testing.T) {
	for _, d := range []statement.Seconds{1, 59, 60, 3600, 3661, 5400, 86400, 93784, 7 * statement.Day} {
		if got, err := parseDuration(span(d)); err != nil || got != d {
			t.Errorf("span(%d) = %q reads back as %d, %v", d, span(d), got, err)
		}
	}
}
