package broker

import (
	"bytes"
	"errors"
	"testing"

	"pim-ssh/broker/statement"
)

// Under rules 1 this build does with a cluster statement what the build before it does, which knows no such thing: it is
// nothing to file, leaves no event, and brokers of both builds go on alike.
func TestUnderRules1AClusterStatementIsNothingToFile(t *testing.T) {
	for name, make := range map[string]func(sc *scene) Command{
		"an add":    func(sc *scene) Command { return sc.command(sc.adds("dave", "b1", disk("x"), false)) },
		"a removal": func(sc *scene) Command { return sc.command(sc.removes("dave", "b1", "")) },
		"mallory's": func(sc *scene) Command { return sc.command(sc.raises("mallory", 2)) },
		"rules 3":   func(sc *scene) Command { return sc.command(sc.raises("dave", 3)) },
		"in a request's place": func(sc *scene) Command {
			c := sc.command(sc.raises("dave", 2))
			c.Kind, c.Rules = FileRequest, 1
			return c
		},
		"a raise by an owned leader under the old rules": func(sc *scene) Command {
			c := sc.command(sc.raises("dave", 2))
			c.Rules = 1
			return c
		},
		"an add under rules nobody raised": func(sc *scene) Command {
			c := sc.command(sc.adds("dave", "b1", disk("x"), false))
			c.Rules = 2
			return c
		},
		"mallory's raise by an owned leader": func(sc *scene) Command {
			c := sc.command(sc.raises("mallory", 2))
			c.Rules = 2
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			c := make(sc)
			before := sc.s.Digest()
			d, err := sc.apply(c)
			if KindOf(err) == "" || len(d.Events) != 0 || sc.s.Digest() != before {
				t.Errorf("events %v: %v", kinds(d.Events), err)
			}
			if _, raised := err.(*Error); c.Rules == 1 && (!raised || KindOf(err) != Invalid) {
				t.Errorf("refused as %s: %v", KindOf(err), err)
			}
		})
	}
}

// Which rules a command must be made under.
func TestACommandUnderOtherRulesIsNotDecided(t *testing.T) {
	ask := func(sc *scene) statement.Proof { return sc.asks("alice", "web-deploy", "web1") }
	cases := map[string]struct {
		scene func(tester) *scene
		make  func(sc *scene) statement.Proof
		rules int
		stops bool
		kind  Kind // "": taken, unless it stops
	}{
		"rules 1 under 1":                             {newScene, ask, 1, false, ""},
		"rules 2 under 1":                             {newScene, ask, 2, false, Unavailable},
		"no rules under 1":                            {newScene, ask, 0, false, Unavailable},
		"rules 1 under 2":                             {grown, ask, 1, false, Unavailable},
		"rules 2 under 2":                             {grown, ask, 2, false, ""},
		"rules this build does not know":              {newest, ask, Rules + 1, true, ""},
		"a raise to rules this build does not":        {newest, func(sc *scene) statement.Proof { return sc.raises("dave", Rules+1) }, Rules + 1, true, ""},
		"a raise by a leader that does not know them": {newest, func(sc *scene) statement.Proof { return sc.raises("dave", Rules+1) }, Rules, false, Conflict},
		"the raise":                                   {newScene, func(sc *scene) statement.Proof { return sc.raises("dave", 2) }, 2, false, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := c.scene(t)
			command := sc.command(c.make(sc))
			command.Rules = c.rules
			before := sc.s.Digest()
			d, err := sc.apply(command)
			if MustStop(err) != c.stops || c.stops != errors.Is(err, ErrUnknownVersion) || !c.stops && KindOf(err) != c.kind {
				t.Errorf("got %v", err)
			}
			if recorded := err == nil || c.kind == Conflict; recorded != (len(d.Events) > 0) || !recorded && sc.s.Digest() != before {
				t.Errorf("events %v: %v", kinds(d.Events), err)
			}
		})
	}
}

func TestANewDeploymentBeginsUnderTheNewestRules(t *testing.T) {
	p := signPolicy(t, labPolicy(t), "dave")
	c, err := CommandFor(p, dawn)
	if err != nil {
		t.Fatal(err)
	}
	s := NewState()
	c.Founding = 1
	d, err := Decide(s, c.Under(s))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := EncodeEvent(d.Events[0])
	if err != nil || !bytes.Contains(leaf, []byte(`"rules":3,"founding":1,"proof":`)) {
		t.Errorf("%s: %v", leaf, err)
	}
	Evolve(s, d.Events[0])
	if s.Rules() != Rules {
		t.Errorf("rules %d", s.Rules())
	}
	for name, spelled := range map[string]string{"rules 1 written out": `"rules":1,`, "no rules written out": `"rules":0,`, "rules below": `"rules":-1,`} {
		if _, err := DecodeEvent(bytes.Replace(leaf, []byte(`"rules":3,`), []byte(spelled), 1)); err == nil || MustStop(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeEvent(bytes.Replace(leaf, []byte(`"rules":3,`), []byte(`"rules":4,`), 1)); !MustStop(err) {
		t.Errorf("rules of a later build: %v", err)
	}
	if _, err := DecodeEvent(bytes.Replace(leaf, []byte(`"rules":3,`), nil, 1)); err == nil {
		t.Error("founders under rules 1")
	}
	if _, err := DecodeEvent(bytes.Replace(leaf, []byte(`"index":0,`), []byte(`"index":7,`), 1)); err == nil {
		t.Error("a deployment began in the middle")
	}
}

// A log under rules 1 and the state it folds to carry no trace of this build.
func TestUnderRules1NothingNewIsWritten(t *testing.T) {
	sc := everything(t)
	data, err := EncodeState(sc.s)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{`"cluster"`, `"rules"`, `"members"`} {
		for _, leaf := range append(encoded(t, sc.log), data) {
			if bytes.Contains(leaf, []byte(word)) {
				t.Errorf("%s in %.200s", word, leaf)
			}
		}
	}
}
