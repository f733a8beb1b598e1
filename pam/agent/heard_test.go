package agent

import (
	"testing"
	"time"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func TestStaleness(t *testing.T) {
	strict := policy.Offline{Mode: policy.OfflineStrict}
	grace := policy.Offline{Mode: policy.OfflineGrace, Grace: 900}
	window := policy.Offline{Mode: policy.OfflineWindow}
	for sentence, c := range map[string]struct {
		offline policy.Offline
		silent  time.Duration // since the last word, on both clocks
		back    time.Duration // then the wall clock is set back by this
		never   bool
		starts  bool
	}{
		"strict, a word just now":                          {strict, 0, 0, false, true},
		"strict, three beats ago":                          {strict, 15 * time.Second, 0, false, true},
		"strict, a second later":                           {strict, 16 * time.Second, 0, false, false},
		"strict, later, with the wall clock set back":      {strict, 16 * time.Second, 10 * time.Second, false, false},
		"strict, never a word":                             {strict, 0, 0, true, false},
		"no mode at all is strict":                         {policy.Offline{}, 16 * time.Second, 0, false, false},
		"an unknown mode is strict":                        {policy.Offline{Mode: "always", Grace: 900}, 16 * time.Second, 0, false, false},
		"grace, within it":                                 {grace, 15 * time.Minute, 0, false, true},
		"grace, past it":                                   {grace, 15*time.Minute + time.Second, 0, false, false},
		"grace, past it, with the wall clock set back 1 h": {grace, 16 * time.Minute, time.Hour, false, false},
		"grace, never a word":                              {grace, 0, 0, true, false},
		"window, cut off for a day":                        {window, 24 * time.Hour, 0, false, true},
		"window, never a word":                             {window, 0, 0, true, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			wall, boot := time.Unix(2_000_000_000, 0), 1000*time.Hour
			clock := Clock{Wall: func() time.Time { return wall }, Boot: func() time.Duration { return boot }}
			var h heard
			if !c.never {
				h = heardAt(clock.now(), clock)
			}
			wall, boot = wall.Add(c.silent-c.back), boot+c.silent
			if err := h.fresh(c.offline, clock); (err == nil) != c.starts {
				t.Errorf("got %v, want starts %v", err, c.starts)
			}
		})
	}
}

// A word that was heard before a restart keeps its age, also when the wall clock now stands before it.
func TestAWordKeepsItsAgeOverARestart(t *testing.T) {
	strict := policy.Offline{Mode: policy.OfflineStrict}
	clock := Clock{Wall: func() time.Time { return time.Unix(2_000_000_000, 0) }, Boot: func() time.Duration { return time.Hour }}
	if heardAt(2_000_000_000-16, clock).fresh(strict, clock) == nil {
		t.Error("a restart made an old word fresh")
	}
	if err := heardAt(2_000_000_000-14, clock).fresh(strict, clock); err != nil {
		t.Error(err)
	}
}

func TestTheEarlierClockEndsTheWindow(t *testing.T) {
	for sentence, c := range map[string]struct{ wall, boot, left time.Duration }{
		"nothing happened":            {0, 0, time.Hour},
		"half the time went by":       {30 * time.Minute, 30 * time.Minute, 30 * time.Minute},
		"the wall clock was set on":   {50 * time.Minute, 0, 10 * time.Minute},
		"the wall clock was set back": {-2 * time.Hour, 59 * time.Minute, time.Minute},
		"set back over its beginning": {-100 * time.Hour, time.Hour, 0},
	} {
		t.Run(sentence, func(t *testing.T) {
			wall, boot := time.Unix(2_000_000_000, 0), 1000*time.Hour
			clock := Clock{Wall: func() time.Time { return wall }, Boot: func() time.Duration { return boot }}
			d := clock.deadlineOf(statement.Time(2_000_003_600))
			wall, boot = wall.Add(c.wall), boot+c.boot
			if got := clock.remaining(d); got != c.left {
				t.Errorf("%v left, want %v", got, c.left)
			}
		})
	}
}
