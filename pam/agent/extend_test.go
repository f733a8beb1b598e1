package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// extended is a host on which alice holds db-admin until 600 s from now, with what runs under it: a sudo of hers. All clocks
// are the test's.
type extended struct {
	*serving
	t     *testing.T
	world *forger.World
	first broker.Dossier
	runs  *callerProcess
}

func newExtended(t *testing.T, edit func(*policy.Document)) *extended {
	t.Helper()
	w := forger.New(t, edit)
	m := newMachine(t, w)
	m.enforce()
	x := &extended{t: t, world: w, first: w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")}
	m.feed(x.first)
	x.serving = m.serve()
	x.settled()
	x.runs = x.start("alice", aliceUID)
	return x
}

// start begins a sudo run that sits there.
func (x *extended) start(person string, uid int) *callerProcess {
	x.t.Helper()
	c := newCaller(x.t, uid, 0)
	if got := c.say(x.pam, sudoAccount(person)); !got.Allow {
		x.t.Fatalf("%s: %+v\n%s", person, got, x.m.log)
	}
	c.begin("postgres")
	return c
}

// extend is a grant that goes on where another ends, approved by bob; bend may change the request before it is signed.
func (x *extended) extend(of broker.Dossier, bend func(*statement.Request)) broker.Dossier {
	x.t.Helper()
	return x.world.Extension(of, 600, forger.Key(x.t), bend, "bob")
}

// shows has the agent take dossiers from a broker.
func (x *extended) shows(dossiers ...broker.Dossier) {
	x.t.Helper()
	for _, d := range dossiers {
		if err := x.takeDossier(d); err != nil {
			x.t.Fatal(err)
		}
	}
	x.settled()
}

func (x *extended) pass(seconds int) {
	x.t.Helper()
	x.m.clock.pass(time.Duration(seconds) * time.Second)
	x.settled()
}

// wantArmed wants a unit's reapers to strike when another grant ends.
func (x *extended) wantArmed(unit, end broker.Dossier) {
	x.t.Helper()
	g, err := broker.Prove(x.world.Chain, end)
	if err != nil {
		x.t.Fatal(err)
	}
	waitFor(x.t, string(unit.Stem())+" armed for "+g.Until.String(), func() bool {
		x.m.units.mu.Lock()
		defer x.m.units.mu.Unlock()
		return x.m.units.windows[unit.Stem()].Until == g.Until
	})
}

func (x *extended) wantRuns(c *callerProcess, alive bool) {
	x.t.Helper()
	if !alive {
		waitFor(x.t, "what ran is dead", c.dead)
		return
	}
	if c.dead() {
		x.t.Fatalf("what ran is dead\n%s", x.m.log)
	}
}

// wantStands waits until all of a grant stands, or nothing.
func (x *extended) wantStands(d broker.Dossier, want bool) {
	x.t.Helper()
	x.m.soonStands(d.Stem(), want)
}

// again stops the agent, lets something happen, and starts the next.
func (x *extended) again(meanwhile func()) {
	x.t.Helper()
	x.stop()
	meanwhile()
	x.serving = x.m.serve()
	x.settled()
}

// What runs goes on to the extension's end, natively: the unit is armed for it long before the old end. What starts after
// the old end starts under the extension alone.
func TestAnExtensionKeepsWhatRunsAndNothingElse(t *testing.T) {
	x := newExtended(t, nil)
	second := x.extend(x.first, nil)
	x.wantArmed(x.first, x.first)
	x.shows(second)
	x.wantArmed(x.first, second)
	if left := x.leftFor("alice"); left < 1100 || left > 1200 {
		t.Errorf("a new run is told that it has %d s", left)
	}
	x.pass(601)
	x.wantRuns(x.runs, true)
	x.wantArmed(x.first, second)
	waitFor(t, "after the old end the unit stands, and no rule", func() bool {
		unit, sudoers, _ := x.m.stands(x.first.Stem())
		return unit && !sudoers
	})
	x.wantStands(second, true)
	late := x.start("alice", aliceUID)
	if !strings.Contains(late.cgroups(), second.Stem().Unit()) {
		t.Errorf("a new run is in %s", late.cgroups())
	}
	x.pass(600)
	x.wantRuns(x.runs, false)
	x.wantRuns(late, false)
	x.wantStands(x.first, false)
	x.wantStands(second, false)
}

// leftFor is what a new run is told.
func (x *extended) leftFor(person string) uint32 {
	x.t.Helper()
	return newCaller(x.t, aliceUID, 0).say(x.pam, sudoAccount(person)).Seconds
}

// Attacks, and what comes near an extension without being one: the old window ends when it ends.
func TestWhatIsNoExtensionProlongsNothing(t *testing.T) {
	bent := func(bend func(x *extended, r *statement.Request)) func(*extended) broker.Dossier {
		return func(x *extended) broker.Dossier {
			return x.extend(x.first, func(r *statement.Request) { bend(x, r) })
		}
	}
	for sentence, forge := range map[string]func(x *extended) broker.Dossier{
		"one that nobody approved": func(x *extended) broker.Dossier {
			d := x.extend(x.first, nil)
			d.Decisions = nil
			return d
		},
		"one that carol denied": func(x *extended) broker.Dossier {
			d := x.extend(x.first, nil)
			d.Decisions = append(d.Decisions, x.world.Approve("carol", d.Request, func(s *statement.Decision) { s.Verdict = statement.Deny }))
			return d
		},
		"erin's, of alice's grant": func(x *extended) broker.Dossier {
			return x.world.ExtensionBy("erin", x.first, 600, forger.Key(x.t), nil, "bob")
		},
		"one of another role":                    bent(func(_ *extended, r *statement.Request) { r.Role = "postgres-only" }),
		"one that begins a second after the end": bent(func(_ *extended, r *statement.Request) { r.At++ }),
		"one for another host":                   bent(func(_ *extended, r *statement.Request) { r.Hosts = []statement.HostName{"db2"} }),
		"one of a grant that nobody has":         bent(func(_ *extended, r *statement.Request) { r.Extends = "g-aaaaaaaaaaaaaaaaaaaaaaaaaa" }),
		"one that says nothing of the old":       bent(func(_ *extended, r *statement.Request) { r.Extends = "" }),
		"one that ends before the old":           bent(func(_ *extended, r *statement.Request) { r.At, r.Duration = 0, 300 }),
		"one that was returned at once": func(x *extended) broker.Dossier {
			d := x.extend(x.first, nil)
			d.Ended = &broker.Ended{How: broker.EndedByReturn, At: forger.Now()}
			return d
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			x := newExtended(t, anotherRole)
			x.shows(forge(x))
			x.wantArmed(x.first, x.first)
			x.pass(601)
			x.wantRuns(x.runs, false)
			x.wantStands(x.first, false)
		})
	}
}

// A yes dated ahead prolongs nothing before its time has come, as it opens nothing.
func TestAnExtensionFromTheFutureWaits(t *testing.T) {
	x := newExtended(t, nil)
	second := x.extend(x.first, func(r *statement.Request) { r.At, r.Duration = 0, 1200 })
	second.Decisions = []statement.Proof{x.world.Approve("bob", second.Request, func(s *statement.Decision) { s.Created += 300 })}
	x.shows(second)
	x.wantArmed(x.first, x.first)
	x.pass(301)
	x.wantArmed(x.first, second)
}

// anotherRole gives alice a second role on the same hosts.
func anotherRole(doc *policy.Document) {
	another := doc.Roles["db-admin"]
	another.Sudo = another.Sudo[:1]
	doc.Roles["postgres-only"] = another
}

// An extension that ends before its time takes with it what it carried, and only that.
func TestAnExtensionThatEndsEarlyLeavesTheOldEnd(t *testing.T) {
	for sentence, how := range map[string]broker.EndedHow{"revoked": broker.EndedByRevoke, "returned": broker.EndedByReturn} {
		t.Run(sentence+" before the old end", func(t *testing.T) {
			x := newExtended(t, nil)
			second := x.extend(x.first, nil)
			x.shows(second)
			x.ends(second, how)
			x.wantArmed(x.first, x.first)
			x.wantRuns(x.runs, true)
			x.pass(601)
			x.wantRuns(x.runs, false)
		})
		t.Run(sentence+" after the old end", func(t *testing.T) {
			x := newExtended(t, nil)
			second := x.extend(x.first, nil)
			x.shows(second)
			x.pass(700)
			x.wantRuns(x.runs, true)
			begun := time.Now()
			x.ends(second, how)
			x.wantRuns(x.runs, false)
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("dead after %v", took)
			}
			x.wantStands(x.first, false)
		})
	}
	t.Run("narrowed after the old end", func(t *testing.T) {
		x := newExtended(t, nil)
		second := x.extend(x.first, nil)
		x.shows(second)
		x.pass(700)
		narrower := second
		narrower.Decisions = append(narrower.Decisions, x.world.Approve("carol", second.Request, func(d *statement.Decision) { d.Duration = 300 }))
		x.shows(narrower)
		x.wantArmed(x.first, narrower)
		x.wantRuns(x.runs, true)
		x.pass(201)
		x.wantRuns(x.runs, false)
	})
	t.Run("by a policy, after the old end", func(t *testing.T) {
		x := newExtended(t, nil)
		x.shows(x.extend(x.first, nil))
		x.pass(700)
		without := next(x.world, func(doc *policy.Document) { doc.Groups["engineers"] = []statement.Person{"erin"} })
		if err := x.takePolicy(without.Proofs()[1]); err != nil {
			t.Fatal(err)
		}
		x.wantRuns(x.runs, false)
	})
	t.Run("the old one revoked: its sessions go at once", func(t *testing.T) {
		x := newExtended(t, nil)
		second := x.extend(x.first, nil)
		x.shows(second)
		x.ends(x.first, broker.EndedByRevoke)
		x.wantRuns(x.runs, false)
		x.pass(601)
		x.wantStands(second, true)
	})
}

// ends is a broker's bare word.
func (x *extended) ends(d broker.Dossier, how broker.EndedHow) {
	x.t.Helper()
	if err := x.takeEnded(d.Request.Hash(), Tombstone{How: EndedHow(how), At: forger.Now()}); err != nil {
		x.t.Fatal(err)
	}
	x.settled()
}

// A third extends the second: what runs under the first goes on through both, also when the second lapsed long ago.
func TestAChainOfExtensions(t *testing.T) {
	x := newExtended(t, nil)
	second := x.extend(x.first, nil)
	third := x.extend(second, nil)
	x.shows(third)
	x.wantArmed(x.first, x.first) // a chain with a link missing is none
	x.shows(second)
	x.wantArmed(x.first, third)
	x.pass(700)
	middle := x.start("alice", aliceUID)
	x.pass(600)
	x.wantRuns(x.runs, true)
	x.wantRuns(middle, true)
	x.again(func() {})
	x.wantRuns(x.runs, true)
	x.wantRuns(middle, true)
	x.wantArmed(x.first, third)
	x.wantArmed(second, third)
	x.ends(third, broker.EndedByRevoke)
	x.wantRuns(x.runs, false)
	x.wantRuns(middle, false)
	for _, d := range []broker.Dossier{x.first, second, third} {
		x.wantStands(d, false)
	}
}

// A link that somebody revoked carries nothing on, though what extends it is live.
func TestAChainEndsWhereALinkWasRevoked(t *testing.T) {
	x := newExtended(t, nil)
	second := x.extend(x.first, nil)
	third := x.extend(second, nil)
	x.shows(second, third)
	x.wantArmed(x.first, third)
	x.ends(second, broker.EndedByRevoke)
	x.wantArmed(x.first, x.first)
	x.pass(601)
	x.wantRuns(x.runs, false)
}

// However often a grant is extended, its unit has an end that systemd knew when it started it.
func TestAUnitLivesNoLongerThanItsCeiling(t *testing.T) {
	const week = policy.MaxWindow
	w := forger.New(t, func(doc *policy.Document) {
		role := doc.Roles["db-admin"]
		role.Longest = week
		doc.Roles["db-admin"] = role
	})
	m := newMachine(t, w)
	first := w.Granted("alice", "db-admin", "db1", week, forger.Key(t), "bob")
	m.feed(first)
	for link, i := first, 0; i < 5; i++ {
		link = w.Extension(link, week, forger.Key(t), nil, "bob")
		m.feed(link)
	}
	g, err := broker.Prove(w.Chain, first)
	if err != nil {
		t.Fatal(err)
	}
	m.start().settle(t.Context())
	got := m.units.windows[first.Stem()]
	if ceiling := g.From.Add(4 * week); got.Until != ceiling || got.Remaining > got.Most+time.Second || got.Most > (4*week).Std() {
		t.Errorf("armed for %s in %v, with a ceiling of %v; want %s\n%s", got.Until, got.Remaining, got.Most, ceiling, m.log)
	}
}

// An agent dies at any time; the next one finds the deadlines in the dossiers again, and believes no clock that was set back.
func TestAnExtensionOverARestart(t *testing.T) {
	for sentence, c := range map[string]struct {
		passed    int // before the agent dies
		meanwhile func(x *extended, second broker.Dossier)
		alive     bool
	}{
		"before the old end":                    {0, func(*extended, broker.Dossier) {}, true},
		"across the old end":                    {0, func(x *extended, _ broker.Dossier) { x.m.clock.pass(700 * time.Second) }, true},
		"after the old end":                     {700, func(*extended, broker.Dossier) {}, true},
		"across both ends":                      {0, func(x *extended, _ broker.Dossier) { x.m.clock.pass(1201 * time.Second) }, false},
		"across both, with the clock set back":  {0, func(x *extended, _ broker.Dossier) { x.m.clock.set(30*time.Second, 1201*time.Second) }, false},
		"after the old, the extension over too": {700, func(x *extended, _ broker.Dossier) { x.m.clock.set(0, 501*time.Second) }, false},
		"its tombstone came after the old end": {700, func(x *extended, second broker.Dossier) {
			x.must(x.m.spool().putTombstone(second.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}))
		}, false},
		"its tombstone came before the old end": {0, func(x *extended, second broker.Dossier) {
			x.must(x.m.spool().putTombstone(second.Request.Hash(), Tombstone{How: "revoke", At: forger.Now()}))
		}, true},
		"its dossier was lost after the old end": {700, func(x *extended, second broker.Dossier) { x.must(x.m.spool().dropDossier(second.Stem())) }, false},
		"its record was torn after the old end": {700, func(x *extended, second broker.Dossier) {
			x.must(os.WriteFile(filepath.Join(x.m.dir, "run", openDir, string(second.Stem())+".json"), []byte(`{"grant"`), 0o600))
		}, false},
		"the old dossier was lost after its end": {700, func(x *extended, _ broker.Dossier) { x.must(x.m.spool().dropDossier(x.first.Stem())) }, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			x := newExtended(t, nil)
			second := x.extend(x.first, nil)
			x.shows(second)
			x.pass(c.passed)
			x.wantRuns(x.runs, true)
			x.again(func() { c.meanwhile(x, second) })
			x.wantRuns(x.runs, c.alive)
		})
	}
}

func (x *extended) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// A host whose granting has stopped prolongs nothing that it did not before.
func TestAHostThatGrantsNothingProlongsNothing(t *testing.T) {
	for sentence, after := range map[string]bool{"stopped before the extension came": false, "stopped after it": true} {
		t.Run(sentence, func(t *testing.T) {
			x := newExtended(t, nil)
			stop := func() {
				x.ledger.mu.Lock()
				x.ledger.halt = policy.ErrFork
				x.ledger.mu.Unlock()
			}
			if !after {
				stop()
			}
			x.shows(x.extend(x.first, nil))
			stop()
			x.pass(601)
			x.wantRuns(x.runs, after)
		})
	}
}

// A run that belongs to two grants ends with the first of them to end. When that is no longer the one in whose unit it lives,
// it moves: nobody of ours need live for its end.
func TestARunOfTwoGrantsMovesToTheOneThatEndsFirst(t *testing.T) {
	x := newExtended(t, nil)
	other := x.world.Granted("alice", "root", "db1", 900, forger.Key(t), "bob", "carol")
	x.shows(other)
	both := x.start("alice", aliceUID)
	if !strings.Contains(both.cgroups(), x.first.Stem().Unit()) {
		t.Fatalf("in %s", both.cgroups())
	}
	second := x.extend(x.first, nil)
	x.shows(second)
	x.wantArmed(x.first, second)
	if !strings.Contains(both.cgroups(), other.Stem().Unit()) || !strings.Contains(x.runs.cgroups(), x.first.Stem().Unit()) {
		t.Fatalf("the run of both in %s, of the first alone in %s", both.cgroups(), x.runs.cgroups())
	}
	if late := x.start("alice", aliceUID); !strings.Contains(late.cgroups(), other.Stem().Unit()) {
		t.Errorf("a new run of both in %s", late.cgroups())
	}
	x.ends(second, broker.EndedByRevoke)
	waitFor(t, "when the extension is gone, it is back", func() bool { return strings.Contains(both.cgroups(), x.first.Stem().Unit()) })
	x.again(func() {})
	x.wantRuns(both, true)
	x.ends(other, broker.EndedByRevoke)
	x.wantRuns(both, false)
	x.wantRuns(x.runs, true)
}

// The old certificate opens nothing after the old end: the extension has its own.
func TestAnExtensionProlongsNoCertificate(t *testing.T) {
	key := forger.Key(t)
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	first := w.Granted("alice", "db-admin", "db1", 600, key, "bob")
	second := w.Extension(first, 600, key, nil, "bob")
	m.feed(first)
	m.feed(second)
	s := m.serve()
	s.settled()
	opens := func(d broker.Dossier, bend func(*ssh.Certificate)) bool {
		_, err := s.judgeCertificate(t.Context(), "postgres", w.Certificate(d, key, bend))
		return err == nil
	}
	if !opens(first, nil) || opens(second, nil) {
		t.Error("before the old end: the old one opens, the new one not yet")
	}
	m.clock.pass(601 * time.Second)
	s.settled()
	longer := func(c *ssh.Certificate) { c.ValidBefore += 600 }
	if opens(first, nil) || opens(first, longer) || !opens(second, nil) {
		t.Errorf("after the old end: the new one alone\n%s", m.log)
	}
}

// The policy expires inside the old window: an extension that comes to the host afterwards could start nothing, and prolongs nothing.
func TestThreatAnExtensionProlongsNothingUnderAnExpiredPolicy(t *testing.T) {
	x := newExtended(t, func(doc *policy.Document) { doc.Expires = forger.Now().Add(300) })
	x.pass(301)
	x.shows(x.extend(x.first, nil))
	x.wantArmed(x.first, x.first)
	x.pass(300)
	x.wantRuns(x.runs, false)
}
