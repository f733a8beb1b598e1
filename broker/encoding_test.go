package broker

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestALeafInAnySecondSpellingIsRefused(t *testing.T) {
	sc := newScene(t)
	sc.granted()
	leaf := string(encoded(t, sc.log[len(sc.log)-4:])[0]) // DecisionFiled
	cases := map[string][2]string{
		"an unknown member":       {`"person":`, `"x":1,"person":`},
		"a duplicate member":      {`"person":"bob"`, `"person":"bob","person":"bob"`},
		"a member in other case":  {`"person":`, `"Person":`},
		"a space":                 {`,"person":`, `, "person":`},
		"members in other order":  {`"v":1,"index":`, `"index":`},
		"an id of another shape":  {`"request":"r-`, `"request":"x-`},
		"a time of another shape": {`T08:00:00Z`, `T08:00:00+00:00`},
		"another kind's proof":    {`"kind":"DecisionFiled"`, `"kind":"RequestWithdrawn"`},
		"an escaped letter":       {`"person":"bob"`, `"person":"\u0062ob"`},
	}
	for name, c := range cases {
		touched := strings.Replace(leaf, c[0], c[1], 1)
		if touched == leaf {
			t.Errorf("%s: nothing to touch", name)
		}
		if _, err := DecodeEvent([]byte(touched)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, data := range []string{leaf + " ", leaf + "{}", " " + leaf, leaf[1:], ""} {
		if _, err := DecodeEvent([]byte(data)); err == nil {
			t.Errorf("accepted %.20q…", data)
		}
	}
}

func TestUnknownVersionsAndKindsStopTheBroker(t *testing.T) {
	for _, leaf := range []string{`{"v":2,"index":0,"at":"","kind":"RequestExpired","request":""}`, `{"v":1,"index":0,"at":"","kind":"GrantProlonged"}`, `{}`} {
		if _, err := DecodeEvent([]byte(leaf)); !errors.Is(err, ErrUnknownVersion) || !MustStop(err) {
			t.Errorf("event %s: %v", leaf, err)
		}
	}
	if _, err := DecodeCommand([]byte(`{"v":2}`)); !MustStop(err) {
		t.Errorf("command: %v", err)
	}
	if _, err := DecodeCommand([]byte(`{"v":1,"at":"","kind":"Tick","rules":1,"x":1}`)); err == nil || MustStop(err) {
		t.Errorf("a command with an unknown member: %v", err)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, e := range morning() {
		leaf, err := EncodeEvent(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(leaf)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEvent(data)
		if err != nil {
			return
		}
		again, err := EncodeEvent(e)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q became %q: %v", data, again, err)
		}
		Evolve(NewState(), e) // whatever decodes can be evolved
		s := NewState()
		for _, m := range morning() {
			Evolve(s, m)
		}
		Evolve(s, e)
	})
}

func FuzzDecodeState(f *testing.F) {
	data, err := EncodeState(resume(f).s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeState(data)
		if err != nil {
			return
		}
		if _, err := Decide(s, TickAt(s.Now()+1, nil).Under(s)); err != nil {
			t.Error(err)
		}
	})
}

func FuzzDecideAndProve(f *testing.F) {
	sc := resume(f)
	p := sc.asks("alice", "db-admin", "db1")
	yes := sc.approves("bob", p)
	f.Add(p.Payload, p.Signatures[0], yes.Payload, yes.Signatures[0])
	f.Fuzz(func(t *testing.T, asked, signed, decided, approved []byte) {
		request, decision := p, yes
		request.Payload, request.Signatures = asked, [][]byte{signed}
		decision.Payload, decision.Signatures = decided, [][]byte{approved}
		g, err := Prove(sc.chain, sc.dossier(request, decision))
		if err == nil && (!bytes.Equal(asked, p.Payload) || !bytes.Equal(decided, yes.Payload)) {
			t.Errorf("a grant from bytes that nobody signed: %+v", g)
		}
		if c, err := CommandFor(request, sc.now); err == nil {
			_, _ = Decide(sc.s, c.Under(sc.s))
		}
	})
}
