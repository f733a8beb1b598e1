package main

import (
	"context"
	"math/rand/v2"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
)

// ear follows the person's events. What a broker says on the stream only makes its owner look again.
type ear struct {
	*contact
	heard     *uint64     // log index after which the stream goes on
	stream    *api.Stream // nil while none is open
	past      bool        // what is said before the first beat happened before anybody listened
	others    bool        // what others do is news too: a beat tells that the log has grown, though not by what
	reached   uint64      // how far it had grown when the owner last looked
	lookAgain time.Time
}

// listening begins after a log index; nil is the beginning.
func (c *contact) listening(after *uint64) *ear {
	return &ear{contact: c, heard: after, past: after == nil, lookAgain: c.now().Add(time.Minute)}
}

// nextWord waits for the next event of the person. A stream that breaks is opened again after a pause with jitter. When the
// context ends, its cause is returned.
func (e *ear) nextWord(ctx context.Context) error {
	if e.stream == nil {
		return e.listen(ctx)
	}
	for {
		frame, err := e.stream.Next()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			e.heard, e.stream = e.stream.Position(), nil
			return pause(ctx, err)
		}
		if e.past && frame.Beat == 0 {
			continue
		}
		if e.past || len(frame.Event) > 0 || e.grown(frame) || e.overdue() {
			e.past = false
			return nil
		}
	}
}

// listen opens the stream; whoever called looks once more after that, so nothing falls between.
func (e *ear) listen(ctx context.Context) error {
	client, err := e.as(ctx)
	if err != nil {
		return err
	}
	stream, err := client.Watch(ctx, e.heard)
	if err != nil {
		return pause(ctx, err)
	}
	e.stream = stream
	context.AfterFunc(ctx, stream.Close)
	return nil
}

// grown reports whether a beat says that somebody did something.
func (e *ear) grown(frame api.Frame) bool {
	if !e.others || frame.Index == nil || *frame.Index == e.reached {
		return false
	}
	e.reached = *frame.Index
	return true
}

// overdue makes a wait look again every minute even if no event came: a broker that withholds events is no news, and some
// things come with time alone.
func (e *ear) overdue() bool {
	if e.now().Before(e.lookAgain) {
		return false
	}
	e.lookAgain = e.now().Add(time.Minute)
	return true
}

func pause(ctx context.Context, why error) error {
	if broker.KindOf(why) != broker.Unavailable && ctx.Err() == nil {
		return why
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Second + rand.N(time.Second)):
		return nil
	}
}
