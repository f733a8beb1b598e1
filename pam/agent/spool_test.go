package agent

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

func write(t testing.TB, s *Spool, data []byte, parts ...string) {
	t.Helper()
	if err := os.WriteFile(s.path(parts...), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, s *Spool) contents {
	t.Helper()
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// next is the world's next revision, changed by edit and signed by dave.
func next(w *forger.World, edit func(*policy.Document)) policy.Chain {
	doc := w.Chain.Next(*w.Chain.Current(), forger.Now()+90*24*3600)
	edit(&doc)
	chain, err := w.Chain.Advance(w.SignPolicy(doc, "dave"))
	if err != nil {
		w.T.Fatal(err)
	}
	return chain
}

func setAside(t testing.TB, s *Spool) int {
	t.Helper()
	entries, err := os.ReadDir(s.path(asideDir))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// stride is how many bytes lie between two at which a file is torn; one, unless -short says that it has to be quick.
func stride() int {
	if testing.Short() {
		return 7
	}
	return 1
}

func TestADossierTornAtAnyByteOpensNothingAndIsKept(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	s := m.spool()
	d := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
	whole := encode(t, d)
	name, torn := string(d.Stem())+".json", 0
	for length := 0; length < len(whole); length += stride() {
		torn++
		write(t, s, whole[:length], dossierDir, name)
		found, err := s.loadDossiers()
		if err != nil || len(found) != 0 {
			t.Fatalf("torn at byte %d of %d: found %d, %v", length, len(whole), len(found), err)
		}
		if _, err := os.Stat(s.path(dossierDir, name)); !os.IsNotExist(err) {
			t.Fatalf("torn at byte %d: still in place", length)
		}
	}
	if setAside(t, s) != torn {
		t.Errorf("%d of %d torn files were kept", setAside(t, s), torn)
	}
	if n := strings.Count(m.log.String(), "refused and set aside"); n != torn {
		t.Errorf("%d of %d were said", n, torn)
	}
	write(t, s, whole, dossierDir, name)
	if found, err := s.loadDossiers(); err != nil || len(found) != 1 {
		t.Errorf("whole: found %d, %v", len(found), err)
	}
}

func TestAPolicyRevisionTornAtAnyByteStopsGrantingAndNeverFallsBack(t *testing.T) {
	w := forger.New(t, nil)
	s := newMachine(t, w).spool()
	chain := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"dave", "gwen"} })
	if err := s.putPolicy(chain); err != nil {
		t.Fatal(err)
	}
	if c := load(t, s); c.halt != nil || c.chain.Ref() != chain.Ref() {
		t.Fatalf("whole: revision %d, halt %v", c.chain.Ref().Revision, c.halt)
	}
	whole := encode(t, chain.Proofs()[1])
	for length := 0; length < len(whole); length += stride() {
		write(t, s, whole[:length], policyDir, policyName(2))
		got, err := s.loadPolicies(w.Chain)
		if err != nil || got.Ref().Revision != 1 {
			t.Fatalf("torn at byte %d: revision %d, %v", length, got.Ref().Revision, err)
		}
		if s.checkNewest(got) == nil {
			t.Fatalf("torn at byte %d: granting goes on under revision 1", length)
		}
	}
}

func TestATombstoneTornAtAnyByteStillEnds(t *testing.T) {
	s := newMachine(t, forger.New(t, nil)).spool()
	request := statement.HashOf([]byte("a request"))
	whole := encode(t, Tombstone{How: "return", At: forger.Now()})
	for length := range len(whole) + 1 {
		write(t, s, whole[:length], tombstoneDir, request.String()+".json")
		found, err := s.loadTombstones()
		if _, dead := found[request]; err != nil || !dead {
			t.Fatalf("torn at byte %d: %v, %v", length, found, err)
		}
	}
}

func TestTimesAndNotesTornAtAnyByte(t *testing.T) {
	s := newMachine(t, forger.New(t, nil)).spool()
	at := forger.Now()
	for _, name := range []string{heardFile, floorFile} {
		whole := []byte(at.String() + "\n")
		for length := range whole {
			write(t, s, whole[:length], name)
			got := s.readTime(name)
			if got != 0 && (got != at || length < len(whole)-1) {
				t.Errorf("%s torn at byte %d: %s", name, length, got)
			}
		}
	}
	chain := load(t, s).chain
	whole := encode(t, chain.Ref())
	for length := range whole {
		write(t, s, whole[:length], newestFile)
		if s.checkNewest(chain) == nil {
			t.Errorf("the note of the newest policy torn at byte %d: granting goes on", length)
		}
	}
}

func TestAnInterruptedWriteLeavesTheOldFile(t *testing.T) {
	w := forger.New(t, nil)
	s := newMachine(t, w).spool()
	d := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
	if err := s.putDossier(d); err != nil {
		t.Fatal(err)
	}
	write(t, s, []byte(`{"request":`), dossierDir, tempPrefix+"0123456789abcdef")
	if c := load(t, s); len(c.dossiers) != 1 || setAside(t, s) != 0 {
		t.Errorf("%d dossiers, %d set aside", len(c.dossiers), setAside(t, s))
	}
	if names, err := os.ReadDir(s.path(dossierDir)); err != nil || len(names) != 1 {
		t.Errorf("%d files, %v: the temporary one stayed", len(names), err)
	}
}

func TestADossierUnderAnotherNameIsRefused(t *testing.T) {
	w := forger.New(t, nil)
	s := newMachine(t, w).spool()
	d := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
	for sentence, name := range map[string]string{
		"another grant's stem": strings.Repeat("a", 26) + ".json",
		"a path":               "..json",
		"upper case":           strings.ToUpper(string(d.Stem())) + ".json",
	} {
		t.Run(sentence, func(t *testing.T) {
			write(t, s, encode(t, d), dossierDir, name)
			if c := load(t, s); len(c.dossiers) != 0 {
				t.Error("believed")
			}
		})
	}
}

func TestALostRevisionStopsGrantingUntilItIsBack(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	s := m.spool()
	two := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"dave", "gwen"} })
	if err := s.putPolicy(two); err != nil {
		t.Fatal(err)
	}
	load(t, s)
	if err := os.Remove(s.path(policyDir, policyName(2))); err != nil {
		t.Fatal(err)
	}
	d := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
	m.feed(d)
	a := m.start()
	if a.ledger.halt == nil {
		t.Fatal("granting goes on under the older revision")
	}
	a.settle(t.Context())
	if g := a.ledger.grants(); len(g) != 1 || a.ledger.snapshot(a.Clock.now()).mayStart(g[0].Grant, a.Clock) == nil {
		t.Error("a start is allowed while a revision is missing")
	}
	if err := a.takePolicy(two.Proofs()[1]); err != nil || a.ledger.halt != nil {
		t.Errorf("the revision is back: %v, halt %v", err, a.ledger.halt)
	}
}

func TestAForkStopsGrantingForGood(t *testing.T) {
	w := forger.New(t, nil)
	s := newMachine(t, w).spool()
	one := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"dave", "gwen"} })
	other := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"dave", "bob"} })
	if err := s.putPolicy(one); err != nil {
		t.Fatal(err)
	}
	write(t, s, encode(t, other.Proofs()[1]), policyDir, "99999999.json")
	for range 2 { // found, and remembered
		if c := load(t, s); c.halt == nil || c.chain.Ref() != one.Ref() {
			t.Fatalf("halt %v at revision %d", c.halt, c.chain.Ref().Revision)
		}
	}
}

func TestRubbishInTheForkDirectoryStopsNobody(t *testing.T) {
	s := newMachine(t, forger.New(t, nil)).spool()
	foreign := forger.New(t, nil)
	write(t, s, encode(t, foreign.Chain.Proofs()[0]), forkDir, policyName(1))
	write(t, s, []byte("{"), forkDir, policyName(2))
	if c := load(t, s); c.halt != nil {
		t.Error(c.halt)
	}
}

func TestEnrolRefuses(t *testing.T) {
	w := forger.New(t, nil)
	honest := func() TokenFile {
		var f TokenFile
		if err := json.Unmarshal(w.Token("db1", map[string]string{"tier": "db"}), &f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	token := func(by statement.Person, bend func(*statement.HostToken)) func(*TokenFile) {
		return func(f *TokenFile) {
			opened, err := statement.Open(f.Token)
			if err != nil {
				t.Fatal(err)
			}
			body := opened.Body.(statement.HostToken)
			bend(&body)
			f.Token = w.Sign(body, by)
		}
	}
	attacker := forger.New(t, nil)
	cases := map[string]func(*TokenFile){
		"a token signed by nobody of importance": token("mallory", func(b *statement.HostToken) { b.Person = "mallory" }),
		"a token that mallory signed as dave":    token("mallory", func(*statement.HostToken) {}),
		"an expired token": token("dave", func(b *statement.HostToken) {
			b.Created, b.NotAfter, b.Expires = forger.Now()-7200, forger.Now()-3600, forger.Now()-3600
		}),
		"another deployment's chain":           func(f *TokenFile) { f.Chain = attacker.Chain.Proofs() },
		"a token for another deployment":       token("dave", func(b *statement.HostToken) { b.Deployment = attacker.Chain.Deployment() }),
		"a token of a policy it does not hold": token("dave", func(b *statement.HostToken) { b.Policy.Revision = 2 }),
		"no chain":                             func(f *TokenFile) { f.Chain = nil },
		"another secret":                       func(f *TokenFile) { f.Secret = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) },
		"a short secret":                       func(f *TokenFile) { f.Secret = "AAAA" },
		"a request in place of the token":      func(f *TokenFile) { f.Token = w.Ask("dave", "db-admin", "db1", 60, forger.Key(t), nil) },
	}
	for sentence, bend := range cases {
		t.Run(sentence, func(t *testing.T) {
			s, err := NewSpool(t.TempDir(), (&journalLines{}).logger(), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			f := honest()
			bend(&f)
			if _, err := s.Enrol(encode(t, f), HashMachineID("m1"), rand.Reader); err == nil {
				t.Error("enrolled")
			}
			if _, err := s.load(); err == nil || !strings.Contains(err.Error(), "pim-hostd enrol") {
				t.Errorf("after a refused enrolment: %v", err)
			}
		})
	}
}

func TestEnrolTwiceIsRefused(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	if _, err := m.spool().Enrol(w.Token("db2", nil), HashMachineID("m1"), rand.Reader); err == nil {
		t.Error("a second token replaced the first")
	}
	if c := load(t, m.spool()); c.enrolment.Host.Name != "db1" || c.enrolment.Host.Labels["tier"] != "db" {
		t.Errorf("host is %v", c.enrolment.Host)
	}
}

func TestACopiedSpoolServesNoOtherMachine(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	c := m.config()
	c.MachineID = HashMachineID("m2")
	if a, err := New(t.Context(), c); err == nil {
		t.Error("another machine took the spool", a.Close())
	}
}

func TestAnEndedDossierIsEndedForEver(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	d := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob")
	ended := d
	ended.Ended = &broker.Ended{How: broker.EndedByReturn, At: forger.Now()}
	m.feed(ended)
	load(t, m.spool())
	m.feed(d)
	a := m.start()
	a.settle(t.Context())
	m.wantStands(d.Stem(), false)
}
