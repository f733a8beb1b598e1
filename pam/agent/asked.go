package agent

import (
	"sync"
	"time"
)

// asked remembers which sudo runs were allowed in PAM's account phase. In open_session sudo has become root for good
// (its real uid is 0), so what the kernel said about the caller must be kept from the phase before.
type asked struct {
	mu  sync.Mutex
	yes map[process]caller
}

// caller is the person's uid behind one sudo process, and until when (boottime) its open may come.
type caller struct {
	uid    uint32
	exempt bool
	until  time.Duration
}

const (
	askedFor = 30 * time.Second // account and open_session stand next to each other in sudo
	askedMax = 4096
)

func newAsked() *asked { return &asked{yes: map[process]caller{}} }

// remember keeps one yes. `sudo -v` and `sudo -l` never open, so old ones are dropped.
func (a *asked) remember(p process, c caller, now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, was := range a.yes {
		if was.until < now || len(a.yes) >= askedMax {
			delete(a.yes, old)
		}
	}
	c.until = now + askedFor
	a.yes[p] = c
}

// take returns the yes for exactly this process, once.
func (a *asked) take(p process, now time.Duration) (caller, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, found := a.yes[p]
	delete(a.yes, p)
	return c, found && c.until >= now
}
