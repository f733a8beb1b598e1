package agent

import (
	"context"
	"log/slog"

	"pim-ssh/broker"
)

// LevelAlert is the level of what a person is to look at at once: journald's alert.
const LevelAlert = slog.LevelError + 4

// alarm rings when a grant opens that nobody approved beforehand: here, by this host itself, before anything can start. No
// broker can keep the line out of this machine's journal. A grant that an earlier agent opened has rung already.
func (a *Agent) alarm(g broker.Grant) {
	if _, stands := a.Units.Place(g.Stem); !g.Alarm || stands {
		return
	}
	a.Log.Log(context.Background(), LevelAlert, "A GRANT OPENS THAT NOBODY APPROVED", "grant", g.ID, "person", g.Person, "account", g.Account, "role", g.Role,
		"asked", g.Asked, "until", g.Until)
}
