package policy

import (
	"strings"
	"testing"
)

// Patterns that every judge would take long to match, or that two builds' Unicode tables may read differently.
func TestThreatATicketPatternIsFastAndReadAlikeEverywhere(t *testing.T) {
	for name, c := range map[string]struct {
		pattern string
		sound   bool
	}{
		"an ordinary one":       {"(INC|CHG)-[0-9]{1,12}", true},
		"everything":            {".{1,200}", true},
		"repeats of repeats":    {"(?:" + strings.Repeat("a?", 90) + "){1000}", false},
		"a thousand times many": {"(?:[a-z]+[0-9]*-){1000}", false},
		"letters of Unicode":    {`\p{L}+-[0-9]+`, false},
		"none of them":          {`\PN+`, false},
	} {
		c0 := &checker{doc: &Document{}}
		c0.ticket(at("ticket"), c.pattern)
		if sound := len(c0.found) == 0; sound != c.sound {
			t.Errorf("%s: %v", name, c0.found)
		}
	}
}
