package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// dated makes alice eligible for db-admin by these entries and nothing else.
func dated(entries ...policy.Eligibility) func(*policy.Document) {
	return func(doc *policy.Document) {
		doc.V = policy.Version
		role := doc.Roles["db-admin"]
		role.Eligible = []policy.Name{"erin"}
		for _, e := range entries {
			e.Who = "alice"
			role.Dated = append(role.Dated, e)
		}
		doc.Roles["db-admin"] = role
	}
}

func only(hosts ...statement.HostName) *policy.Selector { return &policy.Selector{Names: hosts} }

// An eligibility that ends in the middle of a window ends it there, on the hosts that it covers: in the unit's reapers, in
// sudoers and for logins, though the certificate was made for the whole window.
func TestAWindowEndsOnAHostWithTheEligibilityThere(t *testing.T) {
	now := forger.Now()
	soon := now + 300
	for sentence, c := range map[string]struct {
		entries []policy.Eligibility
		until   statement.Time // here; 0: it never opens
		whole   bool           // the grant itself outlasts what is left of it here
	}{
		"dated everywhere":                    {[]policy.Eligibility{{Until: soon}}, soon, false},
		"dated here, for ever elsewhere":      {[]policy.Eligibility{{Until: soon, Hosts: only("db1")}, {Hosts: only("db2")}}, soon, true},
		"dated by label here":                 {[]policy.Eligibility{{Until: soon, Hosts: &policy.Selector{Labels: map[string]string{"tier": "db"}}}, {Hosts: only("db2")}}, soon, true},
		"for ever here, dated elsewhere":      {[]policy.Eligibility{{Until: soon, Hosts: only("db2")}, {Hosts: only("db1")}}, now + 600, true},
		"two here: the longer counts":         {[]policy.Eligibility{{Until: soon, Hosts: only("db1")}, {Until: soon + 60, Hosts: only("db1", "db2")}}, soon + 60, false},
		"one here that begins later, one now": {[]policy.Eligibility{{From: soon - 1, Hosts: only("db1")}, {Until: soon, Hosts: only("db1", "db2")}}, soon, false},
		"elsewhere only":                      {[]policy.Eligibility{{Hosts: only("db2")}}, 0, true},
		"elsewhere now, here from later on":   {[]policy.Eligibility{{Hosts: only("db2")}, {From: soon, Hosts: only("db1")}}, 0, true},
		"by a label that this host lacks":     {[]policy.Eligibility{{Hosts: &policy.Selector{Labels: map[string]string{"tier": "web"}}}, {Hosts: only("db2")}}, 0, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, dated(c.entries...))
			m := newMachine(t, w)
			m.enforce()
			key := forger.Key(t)
			r := w.Ask("alice", "db-admin", "db1", 600, key, func(r *statement.Request) {
				r.Hosts, r.Created = append(r.Hosts, "db2"), now
			})
			d := broker.Dossier{Request: r, Decisions: []statement.Proof{w.Approve("bob", r, func(d *statement.Decision) { d.Created = now })}}
			g, err := broker.Prove(w.Chain, d)
			if err != nil {
				t.Fatal(err)
			}
			if whole := g.Until > now+598; whole != c.whole {
				t.Fatalf("the grant ends at %s", g.Until)
			}
			stem := m.feed(d)
			s := m.serve()
			s.settled()
			m.soonStands(stem, c.until != 0)
			opens := func() bool {
				_, err := s.judgeCertificate(t.Context(), "postgres", w.Certificate(d, key, nil))
				return err == nil
			}
			if opens() != (c.until != 0) {
				t.Fatalf("a login: %v\n%s", opens(), m.log)
			}
			if c.until == 0 {
				return
			}
			text, err := os.ReadFile(filepath.Join(m.dir, "run", sudoersDir, stem.SudoersFile()))
			if err != nil || !strings.Contains(string(text), "NOTAFTER="+notAfter(c.until)) {
				t.Errorf("%v\n%s", err, text)
			}
			if armed := m.units.windows[stem].Until; armed != c.until {
				t.Errorf("armed for %s, want %s", armed, c.until)
			}
			runs := newCaller(t, aliceUID, 0)
			if got := runs.say(s.pam, sudoAccount("alice")); !got.Allow || got.Seconds > uint32(c.until-now) {
				t.Errorf("%+v", got)
			}
			m.clock.pass(time.Duration(c.until-now+1) * time.Second)
			s.settled()
			waitFor(t, "what ran is dead", runs.dead)
			if opens() || newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")).Allow {
				t.Error("something starts after the end here")
			}
			m.soonStands(stem, false)
		})
	}
}

// A policy that dates an eligibility while a window runs ends it there, also when the certificate says otherwise.
func TestAPolicyThatDatesAnEligibilityArmsTheReaperAnew(t *testing.T) {
	w := forger.New(t, func(doc *policy.Document) { doc.V = policy.Version })
	m := newMachine(t, w)
	stem := m.feed(w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob"))
	a := m.start()
	a.settle(t.Context())
	m.wantStands(stem, true)
	soon := forger.Now() + 100
	if err := a.takePolicy(next(w, dated(policy.Eligibility{Until: soon})).Proofs()[1]); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	if armed := m.units.windows[stem].Until; armed != soon {
		t.Errorf("armed for %s, want %s\n%s", armed, soon, m.log)
	}
	m.clock.pass(101 * time.Second)
	a.settle(t.Context())
	m.wantStands(stem, false)
}

// An extension joins the window as it is on this host: where an eligibility cut the first, there is a gap.
func TestAnExtensionJoinsNoWindowThatEndedHereBefore(t *testing.T) {
	soon := forger.Now() + 300
	x := newExtended(t, dated(policy.Eligibility{Until: soon, Hosts: only("db1")}, policy.Eligibility{Hosts: only("db2")}))
	x.shows(x.extend(x.first, nil))
	x.pass(302)
	x.wantRuns(x.runs, false)
}
