package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// session is one login or sudo run: the processes in sub-cgroup s-<N> of Stem's unit. It ends with the first of
// Grants, and lives in Stem's unit because what runs under Stem ends first.
type session struct {
	N       uint64            `json:"n"`
	Stem    broker.Stem       `json:"stem"`
	Grants  []broker.Stem     `json:"grants"`
	Process process           `json:"process"` // the sshd or sudo that asked; Start is 0 when its connection tells of its end
	Service string            `json:"service"`
	Account statement.Account `json:"account,omitzero"` // logged in as, or run as; "" while it waits
	Opened  statement.Time    `json:"opened"`

	line   bool  // more may be heard of it on the connection that placed it: it is not forgotten before that ends
	closed bool  // PAM said so; what it left in the background may still live
	seat   *seat // until keep
}

func (s session) name() string { return "s-" + strconv.FormatUint(s.N, 10) }

// waits reports that account placed it and that nothing else was heard of it yet: sudo may list, or refuse, and end. Only what
// has begun is reported.
func (s session) waits() bool { return s.Account == "" }

// cgroup is where it lives, as the kernel names it from the unit on.
func (s session) cgroup() string { return s.Stem.Unit() + "/" + s.name() }

// sessions is the registry of what runs, mirrored in dir (on /run) so that a restarted agent knows which session
// belongs to which grants.
type sessions struct {
	dir   string
	disk  sync.Mutex // over dir; taken before mu
	mu    sync.Mutex
	all   map[uint64]session
	top   uint64 // the highest number ever given
	lines int    // how many in all have a line

	ready map[broker.Stem]prepared // for the next session, one in each unit
}

// prepared is a number with its cgroup.
type prepared struct {
	n    uint64
	seat *seat
}

func loadSessions(dir string, log *slog.Logger) (*sessions, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	r := &sessions{dir: dir, all: map[uint64]session{}, ready: map[broker.Stem]prepared{}}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			continue // the write of a session that never opened
		}
		s, err := readSession(filepath.Join(dir, e.Name()))
		if err != nil {
			log.Error("session record refused", "file", e.Name(), "error", errors.Join(err, os.Remove(filepath.Join(dir, e.Name()))))
			continue
		}
		r.all[s.N] = s
		r.top = max(r.top, s.N)
	}
	return r, nil
}

func readSession(path string) (session, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return session{}, err
	}
	var s session
	if err := statement.DecodeStrict(data, &s); err != nil {
		return session{}, err
	}
	if filepath.Base(path) != s.name()+".json" {
		return session{}, fmt.Errorf("holds %s", s.name())
	}
	return s, nil
}

// open gives the session a number and moves its process into its own cgroup below the unit's place. The session is
// known when open returns; keep, which the caller owes it at once but not before it answers, does the rest.
func (r *sessions) open(s session, unit Place) (session, error) {
	n, seat, err := r.seat(s.Stem, unit)
	if err != nil {
		return s, err
	}
	s.N = n
	if err := seat.take(s.Process.PID); err != nil {
		seat.close()
		return s, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.seat = seat
	r.all[n] = s // only now: an empty cgroup of a known session is swept away
	if s.line {
		r.lines++
	}
	return s, nil
}

// seat returns the prepared seat in a grant's unit, or makes one.
func (r *sessions) seat(stem broker.Stem, unit Place) (uint64, *seat, error) {
	r.mu.Lock()
	ready, prepared := r.ready[stem]
	delete(r.ready, stem)
	if prepared {
		r.mu.Unlock()
		return ready.n, ready.seat, nil
	}
	r.top++
	n := r.top
	r.mu.Unlock()
	seat, err := unit.sub(session{N: n}.name()).seat()
	return n, seat, err
}

// keep records an open session for an agent that comes after this one. start is when its process began, 0 when it is
// gone already or need not be known again.
func (r *sessions) keep(s session, start uint64) error {
	r.mu.Lock()
	if now, known := r.all[s.N]; known {
		now.Process.Start = start
		now.leaveSeat()
		r.all[s.N] = now
	}
	r.mu.Unlock()
	return r.record(s.N)
}

func (s *session) leaveSeat() {
	if s.seat != nil {
		s.seat.close()
	}
	s.seat = nil
}

// record writes down what is known of a session now.
func (r *sessions) record(n uint64) error {
	r.disk.Lock()
	defer r.disk.Unlock()
	r.mu.Lock()
	s, known := r.all[n]
	r.mu.Unlock()
	if !known {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeRun(filepath.Join(r.dir, s.name()+".json"), data)
}

// moved notes that a session lives in another unit now.
func (r *sessions) moved(n uint64, stem broker.Stem) error {
	r.mu.Lock()
	if s, known := r.all[n]; known {
		s.Stem = stem
		r.all[n] = s
	}
	r.mu.Unlock()
	return r.record(n)
}

// begin notes that a waiting session has begun, and as whom. The caller owes it a record.
func (r *sessions) begin(n uint64, account statement.Account, at statement.Time) (session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.all[n]
	if !known || !s.waits() {
		return session{N: n}, errors.New("it does not wait")
	}
	s.Account, s.Opened = account, at
	r.all[n] = s
	return s, nil
}

// hungUp notes that nothing more is heard on the connection that placed a session.
func (r *sessions) hungUp(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, known := r.all[n]; known && s.line {
		s.line = false
		r.all[n] = s
		r.lines--
	}
}

// listening is how many sessions have a line.
func (r *sessions) listening() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines
}

// prepare makes and opens the cgroup of the next session in a grant's unit, so that its start need not.
func (r *sessions) prepare(stem broker.Stem, unit Place) error {
	n, seat, err := r.seat(stem, unit)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, another := r.ready[stem]; another { // of a start beside this one
		seat.close()
		seat.place.remove()
		return nil
	}
	r.ready[stem] = prepared{n, seat}
	return nil
}

// forget drops what was prepared for a grant that ended.
func (r *sessions) forget(stem broker.Stem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready, found := r.ready[stem]; found {
		ready.seat.close()
	}
	delete(r.ready, stem)
}

// of returns the sessions that belong to a grant, by number.
func (r *sessions) of(stem broker.Stem) []session {
	return r.which(func(s session) bool { return slices.Contains(s.Grants, stem) })
}

// by returns the session a process opened.
func (r *sessions) by(p process) (session, bool) {
	found := r.which(func(s session) bool { return s.Process == p })
	if len(found) == 0 {
		return session{}, false
	}
	return found[len(found)-1], true
}

func (r *sessions) which(fits func(session) bool) []session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []session
	for _, n := range slices.Sorted(maps.Keys(r.all)) {
		if fits(r.all[n]) {
			found = append(found, r.all[n])
		}
	}
	return found
}

// close notes that a session is over, whose processes may live on, and returns it; false when that was known, and for one
// that has not begun.
func (r *sessions) close(n uint64) (session, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.all[n]
	if !known || s.closed || s.waits() {
		return session{}, false
	}
	s.closed = true
	r.all[n] = s
	return s, true
}

// drop forgets a session in which nothing lives, and reports whether its end is still to be told.
func (r *sessions) drop(n uint64) (session, bool) {
	r.disk.Lock()
	defer r.disk.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.all[n]
	s.leaveSeat()
	delete(r.all, n)
	_ = os.Remove(filepath.Join(r.dir, s.name()+".json")) // on /run: a leftover is dropped by the next agent
	return s, known && !s.closed && !s.waits()
}

// known reports whether a session of this name is on record.
func (r *sessions) known(name string) bool {
	return len(r.which(func(s session) bool { return s.name() == name })) > 0
}

// raise makes sure that numbers of cgroups that exist are not given again.
func (r *sessions) raise(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		if n, err := strconv.ParseUint(strings.TrimPrefix(name, "s-"), 10, 63); err == nil {
			r.top = max(r.top, n)
		}
	}
}
