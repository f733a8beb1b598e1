package edge

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// What one stream may cost. A stream holds no queue: it reads the event log at its own pace, so a slow reader costs one
// batch, is cut when a write takes too long, and resumes from the index it reached.
const (
	batch           = 64 // events read at once
	frameTimeout    = 10 * time.Second
	watchersPerName = 8
	watchersTotal   = 20_000
)

// errGone ends the stream of a reader that went away or was too slow; it resumes from where it was.
var errGone = errors.New("the reader is gone")

// watchers counts open streams by who reads them.
type watchers struct {
	mu    sync.Mutex
	total int
	by    map[string]int
}

// enter takes a place for one more stream, or refuses.
func (w *watchers) enter(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.total >= watchersTotal || w.by[name] >= watchersPerName {
		return broker.Refuse(broker.Unavailable, "close another watch, or try another broker", "too many watch streams")
	}
	if w.by == nil {
		w.by = map[string]int{}
	}
	w.total++
	w.by[name]++
	return nil
}

func (w *watchers) leave(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total--
	if w.by[name]--; w.by[name] == 0 {
		delete(w.by, name)
	}
}

// recent keeps the latest decoded events, because every stream reads the same ones at about the same time. Nobody changes
// a decoded event.
type recent struct {
	mu    sync.Mutex
	slots [256]struct {
		index uint64
		event broker.Event
	}
}

func (r *recent) decode(index uint64, leaf []byte) (broker.Event, error) {
	slot := &r.slots[index%uint64(len(r.slots))]
	r.mu.Lock()
	known, at := slot.event, slot.index
	r.mu.Unlock()
	if known != nil && at == index {
		return known, nil
	}
	event, err := broker.DecodeEvent(leaf)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	slot.index, slot.event = index, event
	r.mu.Unlock()
	return event, nil
}

// reader is whoever watches: a person or a host. It turns events into the frames that are theirs.
type reader interface {
	// name tells readers apart for the caps.
	name() string
	// permit reports whether the reader may still read, by the state of this moment. It is asked before every batch.
	permit(*broker.State) error
	// opening returns the frames a stream starts with: what the reader has to know when nothing is known of after.
	opening(*broker.State) []api.Frame
	// preface returns what a stream says first that does not start with opening.
	preface(*broker.State) []api.Frame
	// frames turns consecutive events into frames, by a state that has folded at least them. It runs while the state is
	// held, so it reads nothing else; errRecall asks for a recall, after which frames is called again.
	frames(*broker.State, []broker.Event) ([]api.Frame, error)
	// recall reads what frames needs of the log. Nothing is held meanwhile.
	recall(context.Context) error
}

// errRecall is how frames says that it has to read the log first.
var errRecall = errors.New("the log has to be read first")

// watch streams frames until the reader goes, falls behind, or may no longer read.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) (any, error) {
	after, given, err := number(r, "after")
	if err != nil {
		return nil, err
	}
	who, err := s.watcher(r)
	if err != nil {
		return nil, err
	}
	st := &stream{server: s, who: who, out: w, control: http.NewResponseController(w)}
	opening, err := st.authorise(r.Context(), after, given)
	if err != nil {
		return nil, err
	}
	if err := s.watchers.enter(who.name()); err != nil { // not before it is known that the name is the caller's
		return nil, err
	}
	defer s.watchers.leave(who.name())
	defer held(r.Context())()
	if err := st.start(opening); err != nil {
		return nil, err
	}
	if err := st.follow(r.Context()); !errors.Is(err, errGone) {
		s.note(r, err)
	}
	return nil, nil
}

// watcher authenticates: a proof in the headers is a person's, else the TLS key is a host's.
func (s *Server) watcher(r *http.Request) (reader, error) {
	if key, shown := hostKey(r); shown && r.Header.Get(api.HeaderProof) == "" {
		return &hostReader{identity: key, now: s.now, seen: &s.seen}, nil
	}
	shown, err := s.evidence(r)
	if err != nil {
		return nil, err
	}
	return &personReader{shown: shown, opened: s.now(), now: s.now, log: s.cluster.Events}, nil
}

// stream is one open watch.
type stream struct {
	server  *Server
	who     reader
	out     http.ResponseWriter
	control *http.ResponseController
	next    uint64 // index of the first event that is not said yet
	last    look
	said    look // the newest one of which everything has been said
}

// authorise finds out whether the reader may read, where the stream begins and with what. Errors before the first byte
// are the caller's to answer.
func (st *stream) authorise(ctx context.Context, after uint64, given bool) (opening []api.Frame, err error) {
	err = st.server.view(ctx, func(state *broker.State) error {
		if err := st.who.permit(state); err != nil {
			return err
		}
		if given && after < state.Index() {
			st.next, opening = after+1, st.who.preface(state)
			return nil
		}
		opening = st.who.opening(state)
		if opening != nil {
			st.next = state.Index()
		}
		return nil
	})
	return opening, err
}

// start says 200 and the opening frames.
func (st *stream) start(opening []api.Frame) error {
	if err := st.control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	st.out.Header().Set("Content-Type", "application/x-ndjson")
	st.out.Header().Set("Cache-Control", "no-store")
	st.out.WriteHeader(http.StatusOK)
	return st.write(opening)
}

// follow says what is committed, as it is committed, and a beat when nothing is.
func (st *stream) follow(ctx context.Context) error {
	beats := time.NewTicker(api.BeatEvery * time.Second)
	defer beats.Stop()
	due := st.last.number + 1 // a beat is due that speaks of this look or a later one; 0: none
	for {
		grown, more, err := st.step(ctx)
		switch {
		case err != nil:
			return err
		case more || st.said.number < due:
			continue
		case due != 0:
			if err := st.beat(); err != nil {
				return err
			}
			due = 0
		}
		select {
		case <-grown:
		case <-beats.C:
			due = st.last.number + 1
		case <-ctx.Done():
			return nil
		case <-st.server.stopping:
			return nil
		}
	}
}

// look is the how-manieth time that a stream looked at the state, when that began, and how many events the state held.
type look struct {
	number, events uint64
	at             statement.Time
}

// step says one batch, and reports whether there may be more at once.
func (st *stream) step(ctx context.Context) (grown <-chan struct{}, more bool, err error) {
	now := look{number: st.last.number + 1, at: st.server.now()}
	leaves, grown, err := st.server.cluster.Events(st.next, batch)
	if err != nil {
		return nil, false, err
	}
	events := make([]broker.Event, len(leaves))
	for i, leaf := range leaves {
		if events[i], err = st.server.recent.decode(st.next+uint64(i), leaf); err != nil {
			return nil, false, err
		}
	}
	frames, err := st.say(ctx, events, &now)
	if errors.Is(err, errRecall) {
		if err = st.who.recall(ctx); err == nil {
			frames, err = st.say(ctx, events, &now)
		}
	}
	if err != nil {
		return nil, false, err
	}
	st.next += uint64(len(events))
	for _, l := range []look{st.last, now} { // the events were read before the look, and may be fewer than it held
		if st.next >= l.events {
			st.said = l
		}
	}
	st.last = now
	return grown, len(events) == batch, st.write(frames)
}

// say has the reader, who must still be allowed to read, turn events into frames.
func (st *stream) say(ctx context.Context, events []broker.Event, now *look) (frames []api.Frame, err error) {
	err = st.server.view(ctx, func(state *broker.State) error {
		now.events = state.Index()
		err := st.who.permit(state)
		if err == nil {
			frames, err = st.who.frames(state, events)
		}
		return err
	})
	return frames, err
}

// beat says how far the stream has come, and that this was everything at a time. Before the first event there is nothing to
// come from.
func (st *stream) beat() error {
	frame := api.Frame{Beat: st.said.at}
	if _, isHost := st.who.(*hostReader); isHost {
		frame.Checkpoint = st.server.headline()
	}
	if st.next > 0 {
		frame.Index = indexed(st.next - 1)
	}
	return st.write([]api.Frame{frame})
}

func indexed(index uint64) *uint64 { return &index }

// write sends frames, each a line. A reader that does not take them in time is cut.
func (st *stream) write(frames []api.Frame) error {
	for _, frame := range frames {
		line, err := st.server.spelled.frame(frame)
		if err != nil {
			return err
		}
		if err := st.control.SetWriteDeadline(time.Now().Add(st.server.patience)); err != nil {
			return err
		}
		if _, err := st.out.Write(line); err != nil {
			return errGone
		}
	}
	if len(frames) > 0 && st.control.Flush() != nil {
		return errGone
	}
	return nil
}
