package clustertest

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a connection from b1 to b2.
func pair(t *testing.T, w *Wires) (one, two *side) {
	t.Helper()
	d := w.listen("b2")
	one, err := w.dial(t.Context(), "b1", "b2")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := d.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return one, accepted.(*side)
}

func say(t *testing.T, s *side, words string) {
	t.Helper()
	if _, err := s.Write([]byte(words)); err != nil {
		t.Fatal(err)
	}
}

// heard reads what arrives within a second.
func heard(t *testing.T, s *side) string {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	n, err := s.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(p[:n])
}

func TestWires(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *Wires, *side, *side){
		"what is said arrives, in order": func(t *testing.T, _ *Wires, one, two *side) {
			say(t, one, "a")
			say(t, one, "b")
			if got := heard(t, two) + heard(t, two); got != "ab" {
				t.Errorf("heard %q", got)
			}
		},
		"a way that is cut holds what is said until it is healed, the other way goes on": func(t *testing.T, w *Wires, one, two *side) {
			w.set("b1", "b2", weather{cut: true})
			say(t, one, "a")
			say(t, two, "z")
			if got := heard(t, two); got != "" {
				t.Errorf("heard %q through a cut", got)
			}
			if got := heard(t, one); got != "z" {
				t.Errorf("heard %q the other way", got)
			}
			w.set("b1", "b2", weather{})
			if got := heard(t, two); got != "a" {
				t.Errorf("heard %q once it was healed", got)
			}
		},
		"who is frozen neither hears nor speaks": func(t *testing.T, w *Wires, one, two *side) {
			say(t, one, "a")
			w.freeze("b2", true)
			if got := heard(t, two); got != "" {
				t.Errorf("heard %q", got)
			}
			if err := two.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := two.Write([]byte("z")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it spoke: %v", err)
			}
			w.freeze("b2", false)
			if got := heard(t, two); got != "a" {
				t.Errorf("heard %q later", got)
			}
		},
		"a killed process's connections end, a dead machine's say nothing": func(t *testing.T, w *Wires, one, two *side) {
			three, four := pair(t, w)
			w.part("b1", false)
			if _, err := two.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after a kill: %v", err)
			}
			if _, err := three.Write([]byte("x")); err == nil {
				t.Error("the dead speak")
			}
			five, six := pair(t, w)
			w.part("b1", true)
			say(t, five, "never")
			if got := heard(t, six); got != "" {
				t.Errorf("a machine without power said %q", got)
			}
			_ = four
		},
		"nobody reaches a door behind a cut": func(t *testing.T, w *Wires, _, _ *side) {
			w.set("b2", "b1", weather{cut: true})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := w.dial(ctx, "b1", "b2"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		},
		"what is lost comes late": func(t *testing.T, w *Wires, one, two *side) {
			w.set("b1", "b2", weather{loss: 0.9})
			begin := time.Now()
			for range 5 {
				if _, err := one.Write([]byte("a")); err != nil {
					return // it broke, which is the other way
				}
			}
			if err := two.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(two, make([]byte, 5)); err != nil || time.Since(begin) < resend {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWires(1)
				one, two := pair(t, w)
				test(t, w, one, two)
				w.closeAll()
			})
		})
	}
}
