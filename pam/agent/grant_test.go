package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/pam/wire"
)

func TestAGrantOpensAtFromAndEndsAtUntil(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(later(w)) // from in 300 s, for 600 s
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, false)
	m.clock.pass(301 * time.Second)
	a.settle(t.Context())
	m.wantStands(stem, true)
	m.clock.pass(600 * time.Second)
	a.settle(t.Context())
	m.wantStands(stem, false)
	if _, err := os.Stat(a.Spool.path(tombstoneDir)); err != nil {
		t.Fatal(err)
	}
	m.clock.pass(-600 * time.Second) // both clocks back, and everything forgotten but the disk: it stays over
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	m.start().settle(t.Context())
	m.wantStands(stem, false)
}

// Everything that ends the window stands before the one thing that begins it; where one of them fails, nothing begins.
func TestNoReaperNoStart(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.units.broken = context.DeadlineExceeded
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	if unit, sudoers, _ := m.stands(stem); unit || sudoers {
		t.Errorf("unit %v, sudoers %v", unit, sudoers)
	}
	if g := a.ledger.grants(); len(g) != 1 || g[0].opened != nil {
		t.Error("the ledger says it is open")
	}
	m.units.broken = nil
	a.settle(t.Context())
	if unit, _, _ := m.stands(stem); unit {
		t.Error("tried again at once")
	}
	m.clock.pass(3 * time.Second)
	a.settle(t.Context())
	m.wantStands(stem, true)
}

// Two grants of alice, one of erin. Sudo under alice's belongs to both of hers, lives in the one that lapses first, and
// goes with whichever ends first; erin's never goes with them.
func TestRevocationEndsExactlyTheSessionsOfTheGrant(t *testing.T) {
	for sentence, c := range map[string]struct{ revokeLater, closed bool }{
		"the grant whose unit it is in":                        {false, false},
		"the other grant, which lapses later":                  {true, false},
		"the other grant, when sudo -b has closed its session": {true, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			m.enforce()
			first := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
			other := w.Granted("alice", "root", "db1", 1200, forger.Key(t), "bob", "carol")
			erins := w.Granted("erin", "db-admin", "db1", 600, forger.Key(t), "gwen")
			for _, d := range []broker.Dossier{first, other, erins} {
				m.feed(d)
			}
			s := m.serve()
			s.settled()
			waitFor(t, "three grants open", func() bool { return strings.Count(m.log.String(), "grant open") == 3 })
			sudo, erin := newCaller(t, aliceUID, 0), newCaller(t, erinUID, 0)
			for caller, user := range map[*callerProcess]string{sudo: "alice", erin: "erin"} {
				if got := caller.say(s.pam, sudoAccount(user)); !got.Allow {
					t.Fatalf("%s: %+v", user, got)
				}
				if got := caller.say(s.pam, sudoOpen(user, "postgres")); !got.Allow {
					t.Fatalf("%s: %+v", user, got)
				}
			}
			if !strings.Contains(sudo.cgroups(), first.Stem().Unit()) {
				t.Fatalf("not in the unit that ends first: %s", sudo.cgroups())
			}
			if c.closed {
				sudo.say(s.pam, &wire.Close{Service: "sudo", User: "postgres", RUser: "alice"})
				s.settled()
			}
			revoked := first
			if c.revokeLater {
				revoked = other
			}
			begun := time.Now()
			if err := s.takeEnded(revoked.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the session gone", sudo.dead)
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("gone after %v", took)
			} else {
				t.Logf("gone after %v", took.Round(time.Millisecond))
			}
			s.settled()
			if erin.dead() {
				t.Error("erin's session went too")
			}
			m.wantStands(revoked.Stem(), false)
			m.wantStands(erins.Stem(), true)
			if got := newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")); !got.Allow {
				t.Errorf("her other grant goes on: %+v", got)
			}
		})
	}
}

func TestPolicyThatTakesEligibilityEndsTheGrantForGood(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
	without := next(w, func(doc *policy.Document) { doc.Groups["engineers"] = []statement.Person{"erin"} })
	if err := a.takePolicy(without.Proofs()[1]); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	m.wantStands(stem, false)
	w.Chain = without
	again := next(w, func(doc *policy.Document) { doc.Groups["engineers"] = []statement.Person{"alice", "erin"} })
	if err := a.takePolicy(again.Proofs()[2]); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	m.wantStands(stem, false)
}

// A statement made under a policy this host has not seen waits for that policy, and opens when it has come.
func TestADossierAheadOfOurPolicyWaitsForIt(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	two := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"dave", "gwen"} })
	w.Chain = two
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, false)
	if err := a.takePolicy(two.Proofs()[1]); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	m.wantStands(stem, true)
}

// Narrowing shrinks a window that is open already: the reaper is armed anew for the nearer end.
func TestANearerEndArmsTheReaperAnew(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	d := db("alice", "db1")(w)
	stem := m.feed(d)
	a := m.start()
	a.settle(t.Context())
	before := m.units.windows[stem].Until
	d.Decisions = append(d.Decisions, w.Approve("carol", d.Request, func(s *statement.Decision) { s.Duration = 60 }))
	if err := a.takeDossier(d); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	after := m.units.windows[stem].Until
	g := a.ledger.grants()
	if len(g) != 1 || after != g[0].Until {
		t.Fatalf("armed for %s, the grant ends otherwise\n%s", after, m.log)
	}
	if g[0].Until < before {
		text, err := os.ReadFile(filepath.Join(m.dir, "run", sudoersDir, stem.SudoersFile()))
		if err != nil || !strings.Contains(string(text), notAfter(after)) {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func TestWhatIsShownAgainAfterItsEndOpensNothing(t *testing.T) {
	for sentence, end := range map[string]func(a *Agent, d broker.Dossier) error{
		"ended by the stream": func(a *Agent, d broker.Dossier) error {
			return a.takeEnded(d.Request.Hash(), Tombstone{How: "return", At: forger.Now()})
		},
		"ended in the dossier": func(a *Agent, d broker.Dossier) error {
			d.Ended = &broker.Ended{How: broker.EndedByRevoke, At: forger.Now()}
			return a.takeDossier(d)
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, nil)
			m := newMachine(t, w)
			for _, fresh := range []bool{true, false} { // before the host ever saw the grant, and after it opened
				d := db("alice", "db1")(w)
				a := m.start()
				if !fresh {
					if err := a.takeDossier(d); err != nil {
						t.Fatal(err)
					}
					a.settle(t.Context())
					m.wantStands(d.Stem(), true)
				}
				if err := end(a, d); err != nil {
					t.Fatal(err)
				}
				a.settle(t.Context())
				if err := a.takeDossier(d); err != nil {
					t.Fatal(err)
				}
				a.settle(t.Context())
				m.wantStands(d.Stem(), false)
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				a = m.start()
				a.settle(t.Context())
				m.wantStands(d.Stem(), false)
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Whatever a host holds that it will not open, it looks at once a second and no more, and says once a second and no more
// that it lives: a keeper that span had drowned PID 1 in signs of life, and nobody could log in while it did.
func TestGrantsThatOpenNothingCostNothing(t *testing.T) {
	w := forger.New(t, nil)
	elsewhere := func() broker.Dossier { return db("alice", "db2")(w) }
	refused := func() broker.Dossier { return w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "mallory") }
	for sentence, c := range map[string]struct {
		dossier func() broker.Dossier
		halt    error
	}{
		"for another host":                 {dossier: elsewhere},
		"approved by somebody who may not": {dossier: refused},
		"granting has stopped":             {dossier: func() broker.Dossier { return db("alice", "db1")(w) }, halt: errors.New("forked")},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, w)
			for range 20 {
				m.feed(c.dossier())
			}
			a, beats := m.start(), 0
			a.Beat = func() { beats++ }
			a.ledger.halt = c.halt
			for range 10 {
				if pause := a.settle(t.Context()); pause < watchful {
					t.Errorf("looks again after %v", pause)
				}
			}
			if beats != 1 {
				t.Errorf("%d signs of life within a second", beats)
			}
			m.clock.pass(watchful)
			if a.settle(t.Context()); beats != 2 {
				t.Errorf("%d signs of life a second later", beats)
			}
		})
	}
}

// What a broker's whole list does not name has ended while nobody listened.
func TestAGrantTheBrokerNoLongerListsIsOver(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	kept, dropped := db("alice", "db1")(w), db("erin", "db1")(w)
	m.feed(kept)
	m.feed(dropped)
	a := m.start()
	a.settle(t.Context())
	a.endUnnamed(map[broker.Stem]bool{kept.Stem(): true})
	a.settle(t.Context())
	m.wantStands(kept.Stem(), true)
	m.wantStands(dropped.Stem(), false)
}

func TestABeatFromAnotherTimeIsNoFreshWord(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	a := m.start()
	for sentence, c := range map[string]struct {
		skew  statement.Seconds
		fresh bool
	}{
		"an hour ahead": {3600, false}, "an hour behind": {-3600, false}, "a minute ahead": {59, true}, "now": {0, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			a.ledger.heard = heard{}
			if err := a.takeBeat(a.Clock.now().Add(c.skew)); err != nil {
				t.Fatal(err)
			}
			if got := a.ledger.heard.wall != 0; got != c.fresh {
				t.Errorf("fresh %v", got)
			}
		})
	}
}
