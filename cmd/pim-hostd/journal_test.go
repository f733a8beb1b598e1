package main

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"pim-ssh/pam/agent"
)

// Lines reach journald with the priority that an alert is found by, whatever stands in them.
func TestTheJournalKnowsHowUrgentALineIs(t *testing.T) {
	for sentence, c := range map[string]struct {
		level slog.Level
		text  string
		want  string
	}{
		"an alert":                    {agent.LevelAlert, "look", "<1>level=ALERT msg=look\n"},
		"an error":                    {slog.LevelError, "look", "<3>level=ERROR msg=look\n"},
		"a warning":                   {slog.LevelWarn, "look", "<4>level=WARN msg=look\n"},
		"a plain line":                {slog.LevelInfo, "look", "level=INFO msg=look\n"},
		"a line that would be louder": {slog.LevelInfo, "a\n<0>level=ALERT look", "level=INFO msg=\"a\\n<0>level=ALERT look\"\n"},
	} {
		t.Run(sentence, func(t *testing.T) {
			var out bytes.Buffer
			logTo(prioritized{&out}).Log(context.Background(), c.level, c.text)
			if out.String() != c.want {
				t.Errorf("%q, want %q", out.String(), c.want)
			}
		})
	}
}
