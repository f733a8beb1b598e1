package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// reporter tells brokers what happened here: each report is numbered, signed with the host's identity and kept in the
// spool until a broker has taken it. It never delays an answer: what it is told waits in a bounded queue, and is signed
// and written in batches.
type reporter struct {
	a      *Agent
	signer ssh.Signer
	queue  chan statement.Report
	spare  chan struct{} // buffered: there is something to post

	waiting int  // in the spool; guarded by the agent's spooling, as full is
	full    bool // said that there is no room; the gap in the numbers says it to brokers

	mu   sync.Mutex
	said map[string]time.Duration // what was told lately, and when: a loop of it floods neither the record nor the journal
}

const (
	reportQueue  = 1024
	reportLife   = 30 * statement.Day // how long a report stays acceptable
	refusedAgain = time.Minute        // the same refusal is reported at most this often
	recordAgain  = time.Hour          // and that one broker's record contradicts another, this often
	reportName   = "%016d.json"
	batchEvery   = time.Second
)

func newReporter(a *Agent) (*reporter, error) {
	signer, err := ssh.NewSignerFromKey(a.identity)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	names, err := a.Spool.names(reportDir)
	if err != nil {
		return nil, err
	}
	return &reporter{a: a, waiting: len(names), signer: signer, queue: make(chan statement.Report, reportQueue), spare: make(chan struct{}, 1),
		said: map[string]time.Duration{}}, nil
}

func (r *reporter) opened(s session) { r.tell(statement.SessionOpened, s, s.Opened) }
func (r *reporter) closed(s session) { r.tell(statement.SessionClosed, s, r.a.Clock.now()) }

func (r *reporter) tell(what statement.ReportWhat, s session, at statement.Time) {
	r.put(statement.Report{What: what, Grant: string(s.Stem.Grant()), Session: s.name(), Service: s.Service, Account: s.Account, At: at})
}

// refused reports that somebody was turned away; grant may be empty.
func (r *reporter) refused(service string, account statement.Account, grant broker.Stem, why string) {
	if r.lately(service+"\x00"+string(account)+"\x00"+why, refusedAgain) {
		return
	}
	report := statement.Report{What: statement.SessionRefused, Service: service, Account: account, At: r.a.Clock.now(), Why: why}
	if grant != "" {
		report.Grant = string(grant.Grant())
	}
	r.put(report)
}

// logRefused reports that a broker showed a record that contradicts what this host has seen.
func (r *reporter) logRefused(by statement.BrokerName, why error) {
	if !r.lately("record\x00"+string(by), recordAgain) {
		r.put(statement.Report{What: statement.LogRefused, Service: "pim-hostd", At: r.a.Clock.now(), Why: fmt.Sprintf("broker %s: %v", by, why)})
	}
}

// lately reports whether the same was told less than this long ago; when it was not, it counts as told now.
func (r *reporter) lately(key string, every time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.a.Clock.Boot()
	if last, told := r.said[key]; told && now-last < every {
		return true
	}
	if len(r.said) >= reportQueue {
		clear(r.said)
	}
	r.said[key] = now
	return false
}

func (r *reporter) put(report statement.Report) {
	select {
	case r.queue <- report:
	default:
		r.a.Log.Error("report dropped: the queue is full", "what", report.What, "session", report.Session)
	}
}

// run signs and spools what is told, a batch at a time, until ctx ends; what is in the queue then is still spooled.
func (r *reporter) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case report := <-r.queue:
			select { // more of the same comes with it
			case <-ctx.Done():
			case <-r.a.Clock.After(batchEvery):
			}
			r.keep(report)
			r.keepAll()
			poke(r.spare)
		case <-ctx.Done():
		}
	}
	r.keepAll()
}

func (r *reporter) keepAll() {
	for len(r.queue) > 0 {
		r.keep(<-r.queue)
	}
}

// keep also tells the journal of sessions: a line each at the moment of a start would wake the journal beside every sudo.
func (r *reporter) keep(report statement.Report) {
	if report.What != statement.SessionRefused { // the journal was told of refusals at once
		r.a.Log.Info("session "+string(report.What), "session", report.Session, "grant", report.Grant, "service", report.Service,
			"account", report.Account, "at", report.At)
	}
	if err := r.spool(report); err != nil && !errors.Is(err, errNoRoom) {
		r.a.Log.Error("report not kept", "what", report.What, "session", report.Session, "error", err)
	}
}

var errNoRoom = errors.New("no room for more reports")

// room reports whether one more report may wait. The first that may not takes a number all the same, so that brokers see
// a gap, and is the only one the journal hears of.
func (r *reporter) room() error {
	if r.waiting < r.a.most.reports {
		r.full = false
		return nil
	}
	if r.full {
		return errNoRoom
	}
	r.full = true
	_, err := r.a.Spool.nextSequence()
	r.a.Log.Error("reports are dropped: as many as this host keeps wait for a broker", "waiting", r.waiting)
	return errors.Join(errNoRoom, err)
}

func (r *reporter) spool(report statement.Report) error {
	head, err := r.a.head(statement.KindReport, reportLife)
	if err != nil {
		return err
	}
	r.a.spooling.Lock()
	defer r.a.spooling.Unlock()
	if err := r.room(); err != nil {
		return err
	}
	if report.Sequence, err = r.a.Spool.nextSequence(); err != nil {
		return err
	}
	report.Head, report.Log, report.Epoch = head, r.a.logHead(), r.a.ledger.snapshot(0).epoch.Epoch
	proof, err := statement.Sign(report, r.signer)
	if err != nil {
		return err
	}
	if err := r.a.Spool.putJSON(proof, reportDir, fmt.Sprintf(reportName, report.Sequence)); err != nil {
		return err
	}
	r.waiting++
	return nil
}

// post hands every spooled report to a broker, in order. A report that a broker understands and refuses is set
// aside; one it cannot take now stops the round.
func (r *reporter) post(ctx context.Context, submit func(context.Context, statement.Proof) error) error {
	r.a.spooling.Lock()
	names, err := r.a.Spool.names(reportDir)
	r.a.spooling.Unlock()
	if err != nil {
		return err
	}
	for _, name := range names {
		proof, err := r.a.Spool.readProof(reportDir, name)
		if err == nil {
			err = submit(ctx, proof)
		}
		if kind := broker.KindOf(err); kind == broker.Unavailable || ctx.Err() != nil {
			return err
		}
		err = r.done(name, err)
		if err != nil {
			r.a.Log.Warn("report not taken", "report", name, "error", err)
		}
	}
	return nil
}

// done takes a report that a broker took, or refused, out of the queue.
func (r *reporter) done(name string, refused error) error {
	r.a.spooling.Lock()
	defer r.a.spooling.Unlock()
	r.waiting = max(0, r.waiting-1)
	path := r.a.Spool.path(reportDir, name)
	if refused == nil {
		return removeFile(path)
	}
	if aside, err := r.a.Spool.names(asideDir); err == nil && len(aside) < r.a.most.aside {
		r.a.Spool.setAside(refused, reportDir, name)
		return refused
	}
	return errors.Join(refused, removeFile(path))
}

// nextSequence counts up before a report is written: a number may be lost in a crash, never used twice.
func (s *Spool) nextSequence() (uint64, error) {
	last, err := s.number(sequenceFile)
	if err != nil {
		return 0, err
	}
	return last + 1, s.putNumber(sequenceFile, last+1)
}

// head begins a statement by this host.
func (a *Agent) head(kind statement.Kind, life statement.Seconds) (statement.Head, error) {
	nonce := make([]byte, 16)
	if _, err := io.ReadFull(a.Random, nonce); err != nil {
		return statement.Head{}, errors.Join(errors.New("nonce"), err)
	}
	now := a.Clock.now()
	s := a.ledger.snapshot(now)
	return statement.Head{V: statement.Version, Kind: kind, Deployment: s.chain.Deployment(), Policy: s.chain.Ref(), Host: s.host.Name,
		Nonce: hex.EncodeToString(nonce), Created: now, NotAfter: now.Add(life)}, nil
}
