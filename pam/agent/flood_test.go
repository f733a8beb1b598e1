package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/pam/wire"
)

func filesIn(t *testing.T, m *machine, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.dir, "host", dir))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// An owned broker says the same thing for ever: the disk, the keeper and the journal hear of it once.
func TestWhatABrokerSaysAgainCostsNothing(t *testing.T) {
	w := forger.New(t, nil)
	refused := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "mallory")
	unknown := w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob").Request.Hash()
	for sentence, c := range map[string]struct {
		frame api.Frame
		file  string
	}{
		"a dossier that opens nothing":    {api.Frame{Dossier: &refused}, filepath.Join(dossierDir, string(refused.Stem())+".json")},
		"the end of a request never seen": {api.Frame{Ended: &api.EndedFrame{Request: unknown, How: broker.EndedByRevoke, At: 1}}, filepath.Join(tombstoneDir, unknown.String()+".json")},
		"a beat":                          {api.Frame{Index: at(7), Beat: forger.Now()}, heardFile},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, w)
			a := m.start()
			hear := func() os.FileInfo {
				if err := a.take(c.frame, &listing{}); err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(filepath.Join(m.dir, "host", c.file))
				if err != nil {
					t.Fatal(err)
				}
				return info
			}
			first := hear()
			a.settle(t.Context())
			for range 5 {
				if !os.SameFile(first, hear()) {
					t.Fatal("written again")
				}
			}
			if len(a.wake) != 0 {
				t.Error("the keeper was woken again")
			}
			if n := strings.Count(m.log.String(), "opens nothing"); n > 1 {
				t.Errorf("said %d times", n)
			}
		})
	}
}

// Nor does it fill memory or disk with what opens nothing; what stands, and every end, stays.
func TestDossiersThatOpenNothingAreBounded(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	live, ended := db("alice", "db1")(w), db("erin", "db1")(w)
	a := m.start()
	a.most.dossiers = 5
	for _, d := range []broker.Dossier{live, ended} {
		if err := a.takeDossier(d); err != nil {
			t.Fatal(err)
		}
	}
	a.settle(t.Context())
	if err := a.takeEnded(ended.Request.Hash(), Tombstone{How: "revoke"}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := a.takeDossier(w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "mallory")); err != nil {
			t.Fatal(err)
		}
		a.settle(t.Context())
	}
	if n := len(a.ledger.entries); n != 5 {
		t.Errorf("%d dossiers in memory", n)
	}
	if n := filesIn(t, m, dossierDir); n != 5 {
		t.Errorf("%d dossiers on disk", n)
	}
	m.wantStands(live.Stem(), true)
	if err := a.takeDossier(ended); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	m.wantStands(ended.Stem(), false)
}

// A dossier may be padded with rubbish up to what one frame may hold, and no further: it would not be read again.
func TestADossierGrowsNoFurtherThanAFrame(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	d := db("alice", "db1")(w)
	a := m.start()
	for i := range 12 {
		rubbish := d
		for j := range 12 {
			rubbish.Decisions = append(rubbish.Decisions[:len(rubbish.Decisions):len(rubbish.Decisions)],
				statement.Proof{Payload: []byte(fmt.Sprintf("%d %d %s", i, j, strings.Repeat("x", 60<<10))), Signatures: [][]byte{{1}}})
		}
		if err := a.takeDossier(rubbish); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(m.dir, "host", dossierDir, string(d.Stem())+".json"))
	if err != nil || info.Size() > api.MaxFrame {
		t.Fatalf("%v, %v", info.Size(), err)
	}
}

// Ends of requests nobody here has seen are remembered, up to a bound: past it the host listens no longer, and goes stale.
func TestEndsOfUnknownRequestsAreBounded(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	a := m.start()
	a.most.ends = 5
	var err error
	for i := range 20 {
		err = a.takeEnded(statement.HashOf([]byte{byte(i)}), Tombstone{How: "revoke"})
	}
	if err == nil || filesIn(t, m, tombstoneDir) != 5 || len(a.ledger.ended) != 5 {
		t.Errorf("%d on disk, %d in memory, %v", filesIn(t, m, tombstoneDir), len(a.ledger.ended), err)
	}
}

// Reports wait in the spool while no broker takes them, up to a bound; what is dropped leaves a gap in the numbers.
func TestReportsThatNobodyTakesAreBounded(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	a := m.start()
	a.most.reports = 5
	report := statement.Report{What: statement.SessionRefused, Service: "sudo", Account: "alice", At: forger.Now(), Why: "no"}
	for range 20 {
		a.reports.keep(report)
	}
	if n := filesIn(t, m, reportDir); n != 5 {
		t.Errorf("%d reports on disk", n)
	}
	if n := strings.Count(m.log.String(), "\n"); n > 2 {
		t.Errorf("%d lines about it", n)
	}
	a.reports.waiting = 0
	if err := os.RemoveAll(filepath.Join(m.dir, "host", reportDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(m.dir, "host", reportDir), 0o700); err != nil {
		t.Fatal(err)
	}
	a.reports.keep(report)
	if _, err := os.Stat(filepath.Join(m.dir, "host", reportDir, fmt.Sprintf(reportName, 7))); err != nil {
		t.Errorf("no gap: %v", err)
	}
}

// A broker that talks without pause is listened to at a pace; a list of live grants comes through at once.
func TestABrokerIsListenedToAtAPace(t *testing.T) {
	clock := &setClock{}
	var waited time.Duration
	c := clock.clock()
	c.After = func(d time.Duration) <-chan time.Time {
		waited += d
		clock.pass(d)
		done := make(chan time.Time, 1)
		done <- time.Time{}
		return done
	}
	p := newPace(c)
	for range frameBurst {
		p.wait(t.Context())
	}
	if waited != 0 {
		t.Errorf("waited %v in a burst", waited)
	}
	for range 10 * framesPerSecond {
		p.wait(t.Context())
	}
	if waited < 8*time.Second {
		t.Errorf("ten seconds' frames in %v", waited)
	}
}

// A broker that was owned once, and named a log index beyond all others, silences no other after it was voted out.
func TestABrokerVotedOutSilencesNoOther(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	d := db("alice", "db1")(w)
	m.feed(d)
	a := m.start()
	a.settle(t.Context())
	if err := a.take(api.Frame{Index: at(1 << 62), Beat: a.Clock.now()}, &listing{}); err != nil {
		t.Fatal(err)
	}
	without := next(w, otherBroker)
	if err := a.takePolicy(without.Proofs()[1]); err != nil {
		t.Fatal(err)
	}
	if err := a.take(api.Frame{Index: at(9), Beat: a.Clock.now()}, &listing{whole: true}); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	m.wantStands(d.Stem(), false)
}

// otherBroker replaces the only broker by another.
func otherBroker(doc *policy.Document) {
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	key, err := keyOf(identity)
	if err != nil {
		panic(err)
	}
	doc.Brokers = map[statement.BrokerName]policy.Broker{"b2": {Address: "b2:7443", Identity: key, CA: doc.Brokers["b1"].CA, Log: doc.Brokers["b1"].Log}}
}

// Whatever waits to be opened, a question holds its place among those answered at a time no longer than its asker waits: a
// few logins to an account with many such grants would have kept everybody's sudo waiting.
func TestAQuestionIsAnsweredOrDroppedInTime(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	for range 6 {
		m.feed(w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob"))
	}
	m.units.broken = errors.New("PID 1 is busy")
	s := m.serve()
	s.Agent.settled.L.Lock()
	for s.rounds == 0 {
		s.Agent.settled.Wait()
	}
	s.Agent.settled.L.Unlock()
	begun := time.Now()
	if got := newCaller(t, 0, 0).say(s.pam, &wire.Account{Service: "sshd", User: "postgres"}); got.Allow {
		t.Error("allowed")
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("after %v", took)
	}
}

// A process that has no descriptor left for one more connection goes on when it has: it does not die of it.
func TestRunningOutOfDescriptorsEndsNobody(t *testing.T) {
	m := newMachine(t, forger.New(t, nil))
	m.enforce()
	s := m.serve()
	asker := newCaller(t, aliceUID, 0)
	if got := asker.say(s.pam, sudoAccount("alice")); got.Text == "" {
		t.Fatalf("%+v", got)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	got := make(chan wire.Answer)
	go func() { got <- asker.say(s.pam, sudoAccount("alice")) }()
	waitFor(t, "the shortage noticed", func() bool { return strings.Contains(m.log.String(), "too many open files") })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	<-got
	if got := asker.say(s.pam, sudoAccount("alice")); got.Text == "" {
		t.Errorf("afterwards: %+v", got)
	}
}

// stuckUnits has a process that no kill ends (it waits in the kernel for a file system of the holder's own): closing its
// unit takes all of its time and fails.
type stuckUnits struct {
	*cgroupUnits
	stuck broker.Stem
	tries int
}

func (u *stuckUnits) Close(ctx context.Context, stem broker.Stem) error {
	if stem != u.stuck {
		return u.cgroupUnits.Close(ctx, stem)
	}
	u.tries++
	return errors.New("1 process did not die")
}

// It is tried again, ever less often: five seconds of each round for it would be five seconds late for everybody else's end.
func TestAnEndThatFailsKeepsNoOtherWaiting(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	stem := m.feed(db("alice", "db1")(w))
	a := m.start()
	units := &stuckUnits{cgroupUnits: m.units, stuck: stem}
	a.Units = units
	a.settle(t.Context())
	m.clock.pass(601 * time.Second)
	for range 10 {
		a.settle(t.Context())
	}
	if units.tries != 1 {
		t.Errorf("tried %d times at once", units.tries)
	}
	for range 60 {
		m.clock.pass(time.Second)
		a.settle(t.Context())
	}
	if units.tries < 4 || units.tries > 8 {
		t.Errorf("tried %d times within a minute", units.tries)
	}
	units.stuck = ""
	m.clock.pass(idle)
	a.settle(t.Context())
	m.wantStands(stem, false)
}
