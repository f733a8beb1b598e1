package edge

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// hostReader is an enrolled host, known by its TLS key. It gets what it needs to judge for itself, and the ends.
type hostReader struct {
	identity statement.Key
	now      func() statement.Time
	seen     *sightings
	host     statement.HostName
}

func (h *hostReader) name() string { return "host " + string(h.identity) }

func (h *hostReader) permit(state *broker.State) error {
	enrolled, known := state.HostOf(h.identity)
	if !known {
		return broker.Refuse(broker.Denied, "pim-hostd enrol TOKENFILE", "no enrolled host has the key %s", h.identity.Fingerprint())
	}
	h.host = enrolled.Name
	h.seen.note(h.host, h.now())
	return nil
}

// sightings are when this broker last served each host's stream.
type sightings struct {
	mu sync.Mutex
	at map[statement.HostName]statement.Time
}

func (s *sightings) note(host statement.HostName, now statement.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[statement.HostName]statement.Time{}
	}
	s.at[host] = now
}

func (s *sightings) of(host statement.HostName) statement.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[host]
}

// opening is the whole policy chain and every dossier of this host whose window is not over, ended ones included: a host
// that lost its disk must learn what was ended.
func (h *hostReader) opening(state *broker.State) []api.Frame {
	frames := []api.Frame{}
	for _, proof := range state.Chain().Proofs() {
		frames = append(frames, api.Frame{Policy: &proof})
	}
	frames = append(frames, h.preface(state)...)
	for _, r := range state.RequestsAt(h.host) {
		switch {
		case r.Grant != nil && h.now() < r.Grant.Until:
			frames = append(frames, api.Frame{Dossier: &r.Dossier})
		case r.State == broker.StateWithdrawn:
			frames = append(frames, api.Frame{Ended: endedOf(r)})
		}
	}
	return frames
}

// preface is the restore that began the newest epoch: what the host knows of before may be from a record that is gone.
func (h *hostReader) preface(state *broker.State) []api.Frame {
	epoch := state.Epoch()
	if epoch.Number == 0 {
		return nil
	}
	return []api.Frame{{Restore: &epoch.Proof}}
}

// recall is never asked of a host: the state holds all it needs.
func (h *hostReader) recall(context.Context) error { return nil }

func (h *hostReader) frames(state *broker.State, events []broker.Event) ([]api.Frame, error) {
	var frames []api.Frame
	for _, event := range events {
		if frame, ours := h.frame(state, event); ours {
			frame.Index = indexed(event.Head().Index)
			frames = append(frames, frame)
		}
	}
	return frames, nil
}

// frame turns one event into this host's frame. Events that concern no host, or another, give none.
func (h *hostReader) frame(state *broker.State, event broker.Event) (api.Frame, bool) {
	switch e := event.(type) {
	case *broker.PolicyAdopted:
		return api.Frame{Policy: &e.Proof}, true
	case *broker.PolicyForked:
		return api.Frame{Policy: &e.Proof}, true
	case *broker.EpochBegun:
		return api.Frame{Restore: &e.Proof}, true
	case *broker.GrantOpened:
		return h.dossier(state, e.Grant.Stem)
	case *broker.CertificateIssued:
		if e.Proof == nil {
			return api.Frame{}, false
		}
		return h.dossier(state, e.Grant.Stem())
	case *broker.GrantReturned:
		return h.ended(state, e.Grant.Stem())
	case *broker.GrantRevoked:
		return h.ended(state, e.Grant.Stem())
	case *broker.RequestWithdrawn:
		return h.ended(state, e.Request.Stem())
	default:
		return api.Frame{}, false
	}
}

// dossier is a request's dossier as it is by now. One the state has dropped was over long ago.
func (h *hostReader) dossier(state *broker.State, stem broker.Stem) (api.Frame, bool) {
	r, held := state.Request(stem.Request())
	if !held || !slices.Contains(r.Body.Hosts, h.host) {
		return api.Frame{}, false
	}
	return api.Frame{Dossier: &r.Dossier}, true
}

func (h *hostReader) ended(state *broker.State, stem broker.Stem) (api.Frame, bool) {
	r, held := state.Request(stem.Request())
	if !held || !slices.Contains(r.Body.Hosts, h.host) {
		return api.Frame{}, false
	}
	return api.Frame{Ended: endedOf(r)}, true
}

// endedOf is the tombstone of a request that was withdrawn, or whose grant was ended.
func endedOf(r broker.Request) *api.EndedFrame {
	frame := &api.EndedFrame{Request: r.Dossier.Request.Hash(), How: broker.EndedByWithdraw, At: r.ClosedAt}
	if r.Dossier.Ended != nil {
		frame.How, frame.At = r.Dossier.Ended.How, r.Dossier.Ended.At
	}
	return frame
}

// personReader is a person: they get the events that are theirs, an auditor every one.
type personReader struct {
	shown   evidence
	opened  statement.Time // a read lives a minute, its stream as long as the key or the session is good
	now     func() statement.Time
	log     func(index uint64, limit int) ([][]byte, <-chan struct{}, error)
	person  statement.Person
	auditor bool

	mine     map[broker.Stem]bool // the person's own requests that this stream has come across
	begun    bool
	start    uint64 // index of the first event it was asked about: what came before, recall reads
	recalled bool
}

func (p *personReader) name() string { return "person " + string(p.shown.body.Person) }

func (p *personReader) permit(state *broker.State) error {
	person, err := p.shown.person(state.Chain(), p.opened, p.now())
	if err != nil {
		return err
	}
	p.person, p.auditor = person, state.Chain().Current().Auditor(person)
	return nil
}

// opening is nothing: a person's stream starts with the first event there ever was.
func (p *personReader) opening(*broker.State) []api.Frame { return nil }

// preface is nothing: a person reads the epochs with the events.
func (p *personReader) preface(*broker.State) []api.Frame { return nil }

func (p *personReader) frames(state *broker.State, events []broker.Event) ([]api.Frame, error) {
	var frames []api.Frame
	if !p.begun && len(events) > 0 {
		p.begun, p.start = true, events[0].Head().Index
	}
	for _, event := range events {
		own, err := p.own(state, event)
		if err != nil {
			return nil, err
		}
		if !own {
			continue
		}
		leaf, err := broker.EncodeEvent(event)
		if err != nil {
			return nil, err
		}
		frames = append(frames, api.Frame{Index: indexed(event.Head().Index), Event: leaf})
	}
	return frames, nil
}

// own reports whether an event is this person's: they did it, or it happened to what they asked for.
func (p *personReader) own(state *broker.State, event broker.Event) (bool, error) {
	if p.auditor {
		return true, nil
	}
	actor, stem := concerns(event)
	if filed, isRequest := event.(*broker.RequestFiled); isRequest && filed.Person == p.person {
		p.remember(stem)
	}
	if actor == p.person || stem == "" {
		return actor == p.person, nil
	}
	return p.asked(state, stem)
}

// asked reports whether the request is the person's. The state has dropped what was over an hour ago: for a stream that
// resumes further back the log has to say.
func (p *personReader) asked(state *broker.State, stem broker.Stem) (bool, error) {
	if p.mine[stem] {
		return true, nil
	}
	if r, held := state.Request(stem.Request()); held {
		return r.Body.Person == p.person, nil
	}
	if !p.recalled && p.start > 0 {
		return false, errRecall
	}
	return false, nil
}

func (p *personReader) remember(stem broker.Stem) {
	if p.mine == nil {
		p.mine = map[broker.Stem]bool{}
	}
	p.mine[stem] = true
}

// recall reads the log from its beginning to where the stream started, once, for the person's own requests.
func (p *personReader) recall(ctx context.Context) error {
	p.recalled = true
	for index := uint64(0); index < p.start && ctx.Err() == nil; {
		leaves, _, err := p.log(index, batch)
		if err != nil || len(leaves) == 0 {
			return err
		}
		for _, leaf := range leaves {
			if err := p.recallOne(leaf); err != nil {
				return err
			}
		}
		index += uint64(len(leaves))
	}
	return ctx.Err()
}

// recallOne decodes only what can be a request: text inside an event cannot hold these bytes, its quotes are escaped.
func (p *personReader) recallOne(leaf []byte) error {
	if !bytes.Contains(leaf, []byte(`"kind":"RequestFiled"`)) {
		return nil
	}
	event, err := broker.DecodeEvent(leaf)
	if filed, isRequest := event.(*broker.RequestFiled); err == nil && isRequest && filed.Person == p.person {
		p.remember(filed.Request.Stem())
	}
	return err
}

// concerns returns who did what an event tells, and which request it happened to; either may be none.
func concerns(event broker.Event) (statement.Person, broker.Stem) {
	switch e := event.(type) {
	case *broker.RequestFiled:
		return e.Person, e.Request.Stem()
	case *broker.DecisionFiled:
		return e.Person, e.Request.Stem()
	case *broker.RequestApproved:
		return "", e.Request.Stem()
	case *broker.RequestDenied:
		return e.Person, e.Request.Stem()
	case *broker.RequestWithdrawn:
		return e.Person, e.Request.Stem()
	case *broker.RequestExpired:
		return "", e.Request.Stem()
	case *broker.GrantOpened:
		return e.Grant.Person, e.Grant.Stem
	case *broker.GrantReturned:
		return e.Person, e.Grant.Stem()
	case *broker.GrantRevoked:
		return e.Person, e.Grant.Stem()
	case *broker.GrantLapsed:
		return "", e.Grant.Stem()
	case *broker.CertificateIssued:
		return "", e.Grant.Stem()
	case *broker.GrantStarted:
		return "", e.Grant.Stem()
	case *broker.GrantReviewed:
		return e.Person, e.Grant.Stem()
	case *broker.RenewalAsked:
		return e.Person, ""
	case *broker.FactorEnrolled:
		return e.Person, ""
	case *broker.FactorReset:
		return e.Of, ""
	case *broker.StatementRefused:
		return e.Person, ""
	case *broker.EpochBegun:
		return e.Person, ""
	default:
		return "", ""
	}
}
