package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// shown is a record in a broker's hands: tiles and a checkpoint, honest or not. What its entries say is not a host's business.
type shown struct {
	files fstest.MapFS
	head  statement.LogHead
}

// recordOf is a record of so many entries, in which one may differ.
func recordOf(t testing.TB, size, changed int) shown {
	t.Helper()
	entries := make([][]byte, size)
	for i := range entries {
		entries[i] = fmt.Appendf(nil, "event %d", i)
	}
	if changed < size {
		entries[changed] = []byte("not what happened")
	}
	r := shown{files: fstest.MapFS{}}
	head, files, err := audit.Grow(statement.LogHead{}, audit.FromFS(r.files), entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		r.files[f.Path] = &fstest.MapFile{Data: f.Data}
	}
	r.head = head
	return r
}

func (r shown) source() audit.Source { return audit.FromFS(r.files) }

// signed is the record's checkpoint, signed with this key.
func (r shown) signed(t testing.TB, w *forger.World, key ssh.Signer) string {
	t.Helper()
	text, err := audit.Sign(audit.Checkpoint{Deployment: w.Chain.Deployment(), LogHead: r.head}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const never = 1 << 20 // no entry is changed

// two is a world of two brokers, and the second one's log key.
func two(t testing.TB) (*forger.World, ssh.Signer) {
	second := forger.Key(t)
	public := func() statement.Key { return signtest.Public(forger.Key(t)) }
	return forger.New(t, func(doc *policy.Document) {
		doc.Brokers["b2"] = policy.Broker{Address: "b2:7443", Identity: public(), CA: public(), Log: signtest.Public(second)}
	}), second
}

// TestABrokersRecordIsHeldToWhatThisHostHasSeen shows a host that has seen 300 events of b1 another checkpoint.
func TestABrokersRecordIsHeldToWhatThisHostHasSeen(t *testing.T) {
	w, second := two(t)
	other := forger.New(t, nil)
	for sentence, c := range map[string]struct {
		text  func() string
		from  shown
		fresh bool
		kept  uint64
		loud  error // nil: the journal is told, nobody else
	}{
		"the same again":                        {func() string { return recordOf(t, 300, never).signed(t, w, w.Log) }, shown{}, true, 300, nil},
		"a longer one, proved":                  {func() string { return recordOf(t, 700, never).signed(t, w, w.Log) }, recordOf(t, 700, never), true, 700, nil},
		"a longer one of another broker":        {func() string { return recordOf(t, 301, never).signed(t, w, second) }, recordOf(t, 301, never), true, 301, nil},
		"a longer one with fewer tiles":         {func() string { return recordOf(t, 700, never).signed(t, w, w.Log) }, recordOf(t, 40, never), false, 300, nil},
		"a shorter one of the same broker":      {func() string { return recordOf(t, 299, never).signed(t, w, w.Log) }, recordOf(t, 299, never), false, 300, audit.ErrShrunk},
		"a shorter one of another broker":       {func() string { return recordOf(t, 299, never).signed(t, w, second) }, recordOf(t, 299, never), false, 300, nil},
		"another one of the same length":        {func() string { return recordOf(t, 300, 299).signed(t, w, w.Log) }, recordOf(t, 300, 299), false, 300, audit.ErrForked},
		"the same length of another broker":     {func() string { return recordOf(t, 300, 7).signed(t, w, second) }, recordOf(t, 300, 7), false, 300, audit.ErrForked},
		"a longer one with another past":        {func() string { return recordOf(t, 700, 12).signed(t, w, w.Log) }, recordOf(t, 700, 12), false, 300, audit.ErrForked},
		"a longer one with honest tiles":        {func() string { return recordOf(t, 700, 12).signed(t, w, w.Log) }, recordOf(t, 700, never), false, 300, audit.ErrForged},
		"none any more":                         {func() string { return "" }, shown{}, false, 300, nil},
		"one that nobody signed":                {func() string { return recordOf(t, 700, never).signed(t, w, forger.Key(t)) }, recordOf(t, 700, never), false, 300, nil},
		"one of another deployment":             {func() string { return recordOf(t, 700, never).signed(t, other, w.Log) }, recordOf(t, 700, never), false, 300, nil},
		"one signed with the broker's identity": {func() string { return recordOf(t, 700, never).signed(t, w, identityOf(t, w)) }, recordOf(t, 700, never), false, 300, nil},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, w)
			a := m.start()
			first := recordOf(t, 300, never)
			if err := a.takeHead(first.signed(t, w, w.Log), first.source()); err != nil {
				t.Fatal(err)
			}
			err := a.takeHead(c.text(), c.from.source())
			if (err == nil) != c.fresh || a.logHead().Size != c.kept {
				t.Errorf("%v, kept %d; want fresh %v, kept %d\n%s", err, a.logHead().Size, c.fresh, c.kept, m.log)
			}
			if c.loud == nil {
				if len(a.reports.queue) != 0 {
					t.Error("an accusation was reported")
				}
				return
			}
			if !errors.Is(err, c.loud) || !strings.Contains(m.log.String(), "A BROKER'S RECORD CONTRADICTS") || len(a.reports.queue) != 1 {
				t.Fatalf("%v, %d reports\n%s", err, len(a.reports.queue), m.log)
			}
			if report := <-a.reports.queue; report.What != statement.LogRefused || !strings.Contains(report.Why, "broker b") {
				t.Errorf("reported %+v", report)
			}
			if _, err := os.Stat(filepath.Join(a.Spool.path(asideDir), "checkpoint-b1")); err != nil && !strings.Contains(sentence, "another broker") {
				t.Errorf("evidence: %v", err)
			}
		})
	}
}

func identityOf(t testing.TB, w *forger.World) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromSigner(w.Identity)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// TestAHeadSurvivesARestartAndTornIsSetAside: what a host has seen is on disk before it counts.
func TestAHeadSurvivesARestartAndTornIsSetAside(t *testing.T) {
	w, _ := two(t)
	m := newMachine(t, w)
	a := m.start()
	r := recordOf(t, 300, never)
	if err := a.takeHead(r.signed(t, w, w.Log), r.source()); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	a = m.start()
	if a.logHead() != r.head {
		t.Errorf("after a restart: %+v", a.logHead())
	}
	if err := a.takeHead(recordOf(t, 300, 5).signed(t, w, w.Log), nil); !errors.Is(err, audit.ErrForked) {
		t.Errorf("a fork after a restart: %v", err)
	}
	_ = a.Close()
	whole, err := os.ReadFile(m.spool().path(headFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, m.spool(), whole[:100], headFile)
	a = m.start()
	if a.logHead().Size != 0 || !strings.Contains(m.log.String(), "set aside") {
		t.Errorf("torn: %+v\n%s", a.logHead(), m.log)
	}
}

// TestALongerRecordIsProvedOnceAMinute: ten thousand hosts do not fetch tiles at every beat.
func TestALongerRecordIsProvedOnceAMinute(t *testing.T) {
	w, _ := two(t)
	m := newMachine(t, w)
	a := m.start()
	asked := 0
	show := func(r shown) error {
		return a.takeHead(r.signed(t, w, w.Log), func(path string) ([]byte, error) {
			asked++
			return r.source()(path)
		})
	}
	for i, size := range []int{10, 20, 30, 40} {
		if err := show(recordOf(t, size, never)); err != nil || i >= 2 && asked > 4 {
			t.Fatalf("%d: %v after %d questions", size, err, asked)
		}
	}
	if a.logHead().Size != 20 {
		t.Errorf("kept %d", a.logHead().Size)
	}
	m.clock.pass(time.Minute)
	if err := show(recordOf(t, 50, 15)); !errors.Is(err, audit.ErrForked) {
		t.Errorf("a fork a minute later: %v", err)
	}
	if err := show(recordOf(t, 50, never)); err != nil || a.logHead().Size != 50 {
		t.Errorf("the honest one: %v, kept %d", err, a.logHead().Size)
	}
}

// TestARemovedBrokersHeadStandsAgainstNobody: b2 forked its log and was shown first; the stewards take it out of policy.
func TestARemovedBrokersHeadStandsAgainstNobody(t *testing.T) {
	w, second := two(t)
	m := newMachine(t, w)
	a := m.start()
	forked, honest := recordOf(t, 300, 5), recordOf(t, 300, never)
	if err := a.takeHead(forked.signed(t, w, second), forked.source()); err != nil {
		t.Fatal(err)
	}
	if err := a.takeHead(honest.signed(t, w, w.Log), honest.source()); !errors.Is(err, audit.ErrForked) {
		t.Fatalf("the fork was not noticed: %v", err)
	}
	chain := next(w, func(doc *policy.Document) { delete(doc.Brokers, "b2") })
	if err := a.takePolicy(chain.Proofs()[1]); err != nil {
		t.Fatal(err)
	}
	if err := a.takeHead(honest.signed(t, w, w.Log), honest.source()); err != nil || a.logHead() != honest.head {
		t.Errorf("%v, kept %+v\n%s", err, a.logHead(), m.log)
	}
}

// TestAForkedBrokersBeatsAreNoFreshWordAndReportsCarryTheHead runs the agent against a broker over TLS.
func TestAForkedBrokersBeatsAreNoFreshWordAndReportsCarryTheHead(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	m.enforce()
	b := newScripted(t, w, w.Identity)
	b.record = recordOf(t, 700, 12)
	s := m.following(b)
	d := strict(w)
	honest := recordOf(t, 300, never)
	beat := func(text string) {
		b.frame(api.Frame{Index: at(7), Beat: statement.TimeOf(m.clock.Wall()), Checkpoint: text})
	}
	b.frame(api.Frame{Dossier: &d})
	beat(honest.signed(t, w, w.Log))
	waitFor(t, "the grant open", func() bool { return strings.Contains(m.log.String(), "grant open") })
	waitFor(t, "a start", func() bool { return newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")).Allow })
	m.clock.pass(16 * time.Second)
	beat(b.record.signed(t, w, w.Log))
	waitFor(t, "the fork told", func() bool { return strings.Contains(m.log.String(), "A BROKER'S RECORD CONTRADICTS") })
	if got := newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")); got.Allow || !strings.Contains(got.Text, "last heard") {
		t.Errorf("under a forked broker's beat: %+v", got)
	}
	waitFor(t, "the fork reported", func() bool {
		return slices.ContainsFunc(b.reports(), func(r statement.Report) bool {
			return r.What == statement.LogRefused && r.Log == honest.head && strings.Contains(r.Why, "broker b1")
		})
	})
	beat(honest.signed(t, w, w.Log))
	waitFor(t, "a start under an honest beat", func() bool { return newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")).Allow })
}

// TestThreatABrokerMakesAHostWriteOnceInAWhile beats as fast as frames are taken, each time with another lie.
func TestThreatABrokerMakesAHostWriteOnceInAWhile(t *testing.T) {
	w := forger.New(t, nil)
	first := recordOf(t, 300, never)
	for sentence, c := range map[string]struct {
		frame func(i int, now statement.Time) api.Frame
		said  string
		again time.Duration
	}{
		"records that contradict what was seen": {func(i int, now statement.Time) api.Frame {
			return api.Frame{Beat: now, Checkpoint: recordOf(t, 299-i, never).signed(t, w, w.Log)}
		}, "A BROKER'S RECORD CONTRADICTS", quiet},
		"longer records without their tiles": {func(i int, now statement.Time) api.Frame {
			return api.Frame{Beat: now, Checkpoint: recordOf(t, 700+i, never).signed(t, w, w.Log)}
		}, "is not proved", quiet},
		"clocks far from ours": {func(i int, now statement.Time) api.Frame {
			return api.Frame{Beat: now.Add(statement.Seconds(1000 + i)), Checkpoint: first.signed(t, w, w.Log)}
		}, "differ too much", watchful},
		"revisions that do not follow": {func(i int, now statement.Time) api.Frame {
			p := w.Ask("alice", "root", "db1", statement.Seconds(60+i), w.People["alice"], nil)
			return api.Frame{Policy: &p}
		}, "policy revision refused", quiet},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, w)
			a := m.start()
			if err := a.takeHead(first.signed(t, w, w.Log), first.source()); err != nil {
				t.Fatal(err)
			}
			evidence, written, begun := a.Spool.path(asideDir, headFile+"-b1"), 0, a.Clock.Boot()
			show := func(i int) {
				if err := a.take(c.frame(i, a.Clock.now()), &listing{record: recordOf(t, 40, never).source()}); err != nil {
					t.Fatal(err)
				}
				if os.Remove(evidence) == nil {
					written++
				}
			}
			for i := range 20 {
				show(i)
			}
			said, most := strings.Count(m.log.String(), c.said), 1+int((a.Clock.Boot()-begun)/c.again)
			if said < 1 || said > most || written > most {
				t.Errorf("20 frames: said %d times, evidence written %d times; want %d\n%s", said, written, most, m.log)
			}
			m.clock.pass(c.again)
			show(20)
			if strings.Count(m.log.String(), c.said) != said+1 {
				t.Errorf("after a while it is not said again\n%s", m.log)
			}
		})
	}
}
