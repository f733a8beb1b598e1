package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// vigil waits for the decision on one request. What a broker says on the stream only makes it look again.
type vigil struct {
	*contact
	pending   reading
	heard     *uint64     // log index after which the stream goes on
	stream    *api.Stream // nil while none is open
	lookAgain time.Time
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
		if err := v.nextWord(ctx); err != nil {
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
		for _, need := range r.needs {
			c.term.Say("waiting for %d of [%s] …", need.Count, people([]broker.Need{need}))
		}
	}
	return len(r.decisions)
}

// nextWord waits for the next event of the person. A stream that breaks is opened again after a pause with jitter.
func (v *vigil) nextWord(ctx context.Context) error {
	if v.stream == nil {
		return v.listen(ctx)
	}
	for {
		frame, err := v.stream.Next()
		if ctx.Err() != nil {
			return v.over(ctx)
		}
		if err != nil {
			v.heard, v.stream = v.stream.Position(), nil
			return v.pause(ctx, err)
		}
		if len(frame.Event) > 0 || v.overdue() {
			return nil
		}
	}
}

// listen opens the stream; whoever called looks once more after that, so nothing falls between.
func (v *vigil) listen(ctx context.Context) error {
	client, err := v.as(ctx)
	if err != nil {
		return err
	}
	stream, err := client.Watch(ctx, v.heard)
	if err != nil {
		return v.pause(ctx, err)
	}
	v.stream = stream
	context.AfterFunc(ctx, stream.Close)
	return nil
}

// overdue makes a wait look again every minute even if no event came: a broker that withholds events is no news.
func (v *vigil) overdue() bool {
	if v.now().Before(v.lookAgain) {
		return false
	}
	v.lookAgain = v.now().Add(time.Minute)
	return true
}

func (v *vigil) pause(ctx context.Context, why error) error {
	if broker.KindOf(why) != broker.Unavailable && ctx.Err() == nil {
		return why
	}
	select {
	case <-ctx.Done():
		return v.over(ctx)
	case <-time.After(time.Second + rand.N(time.Second)):
		return nil
	}
}
