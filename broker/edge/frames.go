package edge

import (
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
	for _, r := range state.Requests() {
		if !slices.Contains(r.Body.Hosts, h.host) {
			continue
		}
		switch {
		case r.Grant != nil && h.now() < r.Grant.Until:
			frames = append(frames, api.Frame{Dossier: &r.Dossier})
		case r.State == broker.StateWithdrawn:
			frames = append(frames, api.Frame{Ended: endedOf(r)})
		}
	}
	return frames
}

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
	askers  map[broker.Stem]statement.Person // of requests this stream has come across
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

func (p *personReader) frames(state *broker.State, events []broker.Event) ([]api.Frame, error) {
	var frames []api.Frame
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
	if filed, isRequest := event.(*broker.RequestFiled); isRequest {
		p.remember(stem, filed.Person)
	}
	if actor == p.person || stem == "" {
		return actor == p.person, nil
	}
	asker, err := p.asker(state, stem)
	return asker == p.person, err
}

func (p *personReader) remember(stem broker.Stem, asker statement.Person) {
	if p.askers == nil {
		p.askers = map[broker.Stem]statement.Person{}
	}
	p.askers[stem] = asker
}

// asker returns who asked. The state has dropped what was over an hour ago; for a stream that resumes further back the
// log itself is read again, from its start, once for each such request.
func (p *personReader) asker(state *broker.State, stem broker.Stem) (statement.Person, error) {
	if asker, known := p.askers[stem]; known {
		return asker, nil
	}
	if r, held := state.Request(stem.Request()); held {
		p.remember(stem, r.Body.Person)
		return r.Body.Person, nil
	}
	for index := uint64(0); index < state.Index(); {
		leaves, _, err := p.log(index, batch)
		if err != nil {
			return "", err
		}
		for _, leaf := range leaves {
			event, err := broker.DecodeEvent(leaf)
			if err != nil {
				return "", err
			}
			if filed, isRequest := event.(*broker.RequestFiled); isRequest {
				p.remember(filed.Request.Stem(), filed.Person)
			}
		}
		if _, known := p.askers[stem]; known || len(leaves) == 0 {
			break
		}
		index += uint64(len(leaves))
	}
	return p.askers[stem], nil
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
	case *broker.StatementRefused:
		return e.Person, ""
	default:
		return "", ""
	}
}
