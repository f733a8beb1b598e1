package main

import (
	"testing"

	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// TestStatusIsOneLine of what systemctl status shows.
func TestStatusIsOneLine(t *testing.T) {
	refused := map[statement.BrokerName]cluster.Refusal{"b2": {Why: "refused: b4 is no member"}, "b1": {Why: "refused: b4 waits"}}
	for name, c := range map[string]struct {
		leader   statement.BrokerName
		refusals map[statement.BrokerName]cluster.Refusal
		want     string
	}{
		"it leads":                  {"b4", nil, "leads"},
		"it follows":                {"b1", nil, "follows b1"},
		"nobody leads":              {"", nil, "no broker leads"},
		"others do not speak to it": {"", refused, "no broker leads; b1 says: refused: b4 waits; b2 says: refused: b4 is no member"},
	} {
		if said := statusOf("b4", c.leader, c.refusals); said != c.want {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
}
