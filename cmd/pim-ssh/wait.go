package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// waiting is a request that somebody waits for.
type waiting struct {
	pending reading
	private ed25519.PrivateKey // nil: a key is made once it is granted
	heard   *uint64            // log index from which on there may be news; nil: unknown
	noWait  bool
	timeout time.Duration
}

// wait waits until the request is decided and puts the certificate in hand, unless told not to.
func (c *contact) wait(ctx context.Context, w waiting) error {
	if w.noWait {
		c.term.Say("collect it with: pim-ssh cert %s", short(w.pending.id()))
		return c.keepIfMade(w.pending.stem(), w.private)
	}
	v := &vigil{ear: c.listening(w.heard), pending: w.pending}
	ended, view, err := v.await(ctx, w.timeout)
	if err != nil {
		return errors.Join(err, c.leave(err, w.pending, w.private))
	}
	return c.enjoy(ctx, ended, view, w.private)
}

// vigil waits for the decision on one request. What a broker says on the stream only makes it look again.
type vigil struct {
	*ear
	pending reading
}

// await follows the person's events until the request is decided, and returns the grant it became. A request that
// ended any other way is an error of its kind.
func (v *vigil) await(ctx context.Context, timeout time.Duration) (reading, api.GrantView, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, &timedOut{v.pending.id()})
	defer cancel()
	said := 0
	for {
		r, err := v.look(ctx, v.pending.id())
		if ctx.Err() != nil {
			return reading{}, api.GrantView{}, v.over(ctx)
		}
		if err == nil {
			done, view, err := v.settled(ctx, r)
			if done || err != nil {
				return r, view, err
			}
			said = v.progress(r, said)
		}
		if err != nil && broker.KindOf(err) != broker.Unavailable {
			return reading{}, api.GrantView{}, err
		}
		if err := v.nextWord(ctx); ctx.Err() != nil {
			return reading{}, api.GrantView{}, v.over(ctx)
		} else if err != nil {
			return reading{}, api.GrantView{}, err
		}
	}
}

// over says why waiting ended: at the request's own end it expired, before that nobody answered in time.
func (v *vigil) over(ctx context.Context) error {
	if v.clock() >= v.pending.request.Expires {
		return expired(v.pending)
	}
	return context.Cause(ctx)
}

func expired(r reading) error {
	return &broker.Error{Kind: broker.Expired, Msg: string(r.id()) + " expired unanswered", Hint: r.again()}
}

// again is how to ask for the same once more.
func (r reading) again() string {
	return fmt.Sprintf("pim-ssh request %s@%s --for %s --why …", r.request.Role, joined(r.request.Hosts), span(r.request.Duration))
}

// look fetches the request and verifies what it shows.
func (c *contact) look(ctx context.Context, id broker.RequestID) (reading, error) {
	client, err := c.as(ctx)
	if err != nil {
		return reading{}, err
	}
	view, err := client.Request(ctx, string(id))
	if err != nil {
		return reading{}, err
	}
	return c.read(view.Dossier, string(id))
}

// settled fetches the grant when the dossier proves one, and names the way in which the request ended otherwise.
func (c *contact) settled(ctx context.Context, r reading) (bool, api.GrantView, error) {
	switch state := r.state(c.clock()); state {
	case api.Pending:
		return false, api.GrantView{}, nil
	case api.Approved:
		client, err := c.as(ctx)
		if err != nil {
			return false, api.GrantView{}, err
		}
		view, err := client.Grant(ctx, string(r.grantID()))
		return err == nil, view, err
	case api.Denied:
		return false, api.GrantView{}, denied(r.again(), "%s", r.denial())
	case api.Withdrawn:
		return false, api.GrantView{}, &broker.Error{Kind: broker.Conflict, Msg: string(r.id()) + " was withdrawn", Hint: r.again()}
	case api.Expired:
		return false, api.GrantView{}, expired(r)
	default:
		return false, api.GrantView{}, fmt.Errorf("%s is in state %q, which this program does not know", r.id(), state)
	}
}

func (r reading) denial() string {
	for _, d := range r.decisions {
		if d.counted && d.Verdict == statement.Deny {
			if d.Reason == "" {
				return fmt.Sprintf("%s denied %s", d.Person, r.id())
			}
			return fmt.Sprintf("%s denied %s: %s", d.Person, r.id(), d.Reason)
		}
	}
	return fmt.Sprintf("%s was denied", r.id())
}

// progress tells of decisions that are new since the last time and returns how many there are.
func (c *contact) progress(r reading, said int) int {
	for _, d := range r.decisions[min(said, len(r.decisions)):] {
		c.term.Say("%s approved", d.Person)
		c.waitingFor(r)
	}
	return len(r.decisions)
}

// waitingFor says what is missing, and who may fill it later on.
func (c *contact) waitingFor(r reading) {
	if len(r.needs) > 0 {
		c.term.Say("waiting for %s …", needed(r.needs))
	}
	for _, more := range r.later(c.pin, c.clock()) {
		c.term.Say("  from %s", more)
	}
}
