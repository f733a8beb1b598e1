package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"

	"pim-ssh/pam/agent"
)

// journal logs to standard error, which systemd keeps; the journal has its own clock. A terminal gets no priorities.
func journal() *slog.Logger {
	if os.Getenv("JOURNAL_STREAM") == "" {
		return logTo(os.Stderr)
	}
	return logTo(prioritized{os.Stderr})
}

func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.TimeKey:
			return slog.Attr{}
		case a.Key == slog.LevelKey && a.Value.Any() == agent.LevelAlert:
			return slog.String(slog.LevelKey, "ALERT")
		}
		return a
	}}))
}

// priorities are journald's words for ours: the first attribute of a line says its level.
var priorities = []struct{ level, priority string }{{"level=ALERT ", "<1>"}, {"level=ERROR ", "<3>"}, {"level=WARN ", "<4>"}}

// prioritized puts before each line what journald reads its priority from (sd-daemon(3)).
type prioritized struct{ w io.Writer }

// Write writes one line, as slog's handlers give it.
func (p prioritized) Write(line []byte) (int, error) {
	for _, known := range priorities {
		if bytes.HasPrefix(line, []byte(known.level)) {
			_, err := p.w.Write(append([]byte(known.priority), line...))
			return len(line), err
		}
	}
	return p.w.Write(line)
}
