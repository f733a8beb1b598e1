package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
)

// Units holds processes of grants and ends them when their time is up, whether or not we live. Systemd is the one
// that does; Open is idempotent and adopts what stands, Close returns when nothing in the unit lives. Place finds a
// unit's processes without asking anybody; false when there is no such unit.
type Units interface {
	Open(ctx context.Context, w Window) (Place, error)
	Place(stem broker.Stem) (Place, bool)
	Close(ctx context.Context, stem broker.Stem) error
	Stems(ctx context.Context) ([]broker.Stem, error)
}

// Config is the machine as the agent sees it. All fields are needed unless they say otherwise.
type Config struct {
	Spool     *Spool
	RunDir    string // /run/pim-ssh
	Enforcing string // exists when this host refuses; /var/lib/pim-ssh/enforcing
	MachineID statement.Hash
	BootID    string
	HostKeys  []statement.Key // of this machine's sshd, for its enrolment; sorted
	Clock     Clock
	Random    io.Reader
	Log       *slog.Logger
	Units     Units
	Tools     Tools
	OwnProcs  string                                                  // the agent's own cgroup.procs; see warm.go
	Lookup    func(account statement.Account) (uid uint32, err error) // the machine's own user database
	Helper    uint32                                                  // uid of pim-principals
	Exempt    []statement.Account                                     // service accounts whose own sudo rules enforce keeps
	Broker    string                                                  // host:port to dial in place of the policy's addresses; may be empty
	// InStep brings /etc in step with the policy in the spool. It is called after each new revision, one call at a time,
	// and may be nil.
	InStep func(ctx context.Context) error
	Beat   func() // a sign of life of the keeper's, at least each 30 s and at most each second. It may be nil
}

// Agent is pim-hostd's run: New recovers what a dead one left, Run serves until its context ends.
type Agent struct {
	Config
	ledger *ledger
	// extending is who extends whom as the keeper's round began: each change begins another round. Keeper only.
	extending map[broker.GrantID][]*entry
	sessions  *sessions
	reports   *reporter
	identity  ed25519.PrivateKey
	token     Enrolment
	lock      *os.File
	most      limits

	wake   chan struct{} // buffered: something changed that the keeper should look at
	reload chan struct{} // buffered: read the spool again
	restep chan struct{} // buffered: bring the machine in step with policy
	knock  chan struct{} // buffered: somebody is about to start something

	warmUntil atomic.Int64 // boottime until which a start is likely

	beaten  time.Duration // keeper only: boottime of the last sign of life; 0 before the first
	tryDisk time.Duration // boottime before which a disk that failed is not tried again; guarded by the ledger's mu
	reached uint64        // follow only: the newest log index that a broker of the present policy's named here
	noted   time.Duration // follow only: boottime at which word and position were last written; 0 before the first

	witnessed atomic.Pointer[audit.Signed] // the newest checkpoint verified here; nil before the first
	proved    time.Duration                // follow only: boottime at which a longer record was last proved
	based     bool                         // follow only: a record was proved to go on from the one that was restored
	skip      int                          // follow only: how many brokers were passed over since the start

	settled  sync.Cond // broadcast after every round of the keeper; its L guards rounds
	rounds   uint64
	spooling sync.Mutex // one writer of the spool at a time
}

const (
	sudoersDir  = "sudoers.d"
	openDir     = "open"
	sessionsDir = "sessions"
	lockFile    = "agent.lock"
)

// New reads the spool, takes the machine's one agent lock, and first of all ends what a dead agent left overdue. The
// caller closes the agent when Run has returned.
func New(ctx context.Context, c Config) (*Agent, error) {
	a := &Agent{Config: c, wake: make(chan struct{}, 1), reload: make(chan struct{}, 1), restep: make(chan struct{}, 1),
		knock: make(chan struct{}, 1), most: defaultLimits()}
	a.settled.L = &sync.Mutex{}
	for dir, mode := range map[string]os.FileMode{"": 0o755, sudoersDir: 0o750, openDir: 0o700, sessionsDir: 0o700} {
		if err := os.MkdirAll(filepath.Join(c.RunDir, dir), mode); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	var err error
	if a.lock, err = lockOnce(filepath.Join(c.RunDir, lockFile)); err != nil {
		return nil, err
	}
	if err := a.recover(ctx); err != nil {
		return nil, errors.Join(err, a.lock.Close())
	}
	return a, nil
}

// lockOnce makes a second agent exit: two would each believe that they know what stands.
func lockOnce(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another pim-hostd runs on this machine: systemctl status pim-hostd: %w", err), f.Close())
	}
	return f, nil
}

// Close gives the lock back. What stands on the machine stays: windows end without us.
func (a *Agent) Close() error { return a.lock.Close() }

// Host says who this machine is in the deployment.
func (a *Agent) Host() broker.Host {
	a.ledger.mu.RLock()
	defer a.ledger.mu.RUnlock()
	return a.ledger.host
}

// Reload makes the keeper read the spool again.
func (a *Agent) Reload() { poke(a.reload) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run serves both sockets, follows the brokers and keeps grants until ctx ends.
func (a *Agent) Run(ctx context.Context, s Sockets) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	for _, part := range []func(context.Context){a.keep, a.follow, a.step, a.keepWarm, a.reports.run} {
		group.Go(func() { part(ctx) })
	}
	err := a.serve(ctx, s)
	stop()
	group.Wait()
	return err
}

// step keeps the machine in step with policy, also with revisions that came while nobody ran.
func (a *Agent) step(ctx context.Context) {
	for a.InStep != nil {
		var again <-chan time.Time
		ref := a.ledger.snapshot(a.Clock.now()).chain.Ref()
		if !a.Spool.notedRef(inStepFile, ref) {
			err := a.InStep(ctx)
			if err == nil {
				a.spooling.Lock()
				err = a.Spool.putJSON(ref, inStepFile)
				a.spooling.Unlock()
			}
			if err != nil && ctx.Err() == nil {
				a.Log.Error("this machine is not in step with policy, trying again", "revision", ref.Revision, "error", err)
				again = a.Clock.After(idle)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.restep:
		case <-again:
		}
	}
}

// keep is the keeper: the only goroutine that opens and ends grants.
func (a *Agent) keep(ctx context.Context) {
	for {
		pause := a.settle(ctx)
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-a.reload:
			if err := a.readAgain(); err != nil {
				a.Log.Error("spool not read again; what was known stays in force", "error", err)
			}
		case <-a.Clock.After(pause):
		}
	}
}

// Bounds on how long the keeper sleeps: a wall clock that jumps is noticed within a second while anything stands.
const (
	watchful = time.Second
	idle     = 30 * time.Second
)

// settle makes the machine agree with the ledger, ends first, and says how long nothing will change by time alone.
func (a *Agent) settle(ctx context.Context) time.Duration {
	select {
	case <-a.wake: // whatever it was for, it is looked at now
	default:
	}
	a.raiseFloor()
	a.extending = a.ledger.extensions()
	pause := idle
	a.ledger.each(func(_ broker.Stem, e *entry) {
		a.beat()
		a.endIfOver(ctx, e)
	})
	a.ledger.each(func(_ broker.Stem, e *entry) {
		if len(a.wake) > 0 || len(a.reload) > 0 { // perhaps an end, which goes before all openings
			pause = 0
			return
		}
		a.beat()
		a.endIfOver(ctx, e)
		pause = min(pause, a.openIfDue(ctx, e))
	})
	a.sweep()
	a.makeRoom()
	a.settled.L.Lock()
	a.rounds++
	a.settled.L.Unlock()
	a.settled.Broadcast()
	a.beat()
	return pause
}

// beat is the keeper's sign of life, once a second at most: each one costs PID 1 a turn.
func (a *Agent) beat() {
	now := a.Clock.Boot()
	if a.Beat == nil || a.beaten != 0 && now-a.beaten < watchful {
		return
	}
	a.beaten = now
	a.Beat()
}

// awaitRound waits until the keeper has gone through the ledger once more, or until ctx ends: a login may arrive
// in the moment in which its grant is being opened.
func (a *Agent) awaitRound(ctx context.Context) {
	stop := context.AfterFunc(ctx, a.settled.Broadcast)
	defer stop()
	poke(a.wake)
	a.settled.L.Lock()
	defer a.settled.L.Unlock()
	for from := a.rounds; a.rounds < from+2 && ctx.Err() == nil; {
		a.settled.Wait()
	}
}

// raiseFloor remembers the newest time this host has seen, so that a clock set back later starts nothing. It is also how
// the agent knows that its disk takes what it is told.
func (a *Agent) raiseFloor() {
	now := a.Clock.now()
	a.ledger.mu.Lock()
	newest := max(now, a.ledger.floor)
	for _, e := range a.ledger.entries {
		if e.refused == nil && e.grant.Newest <= now.Add(slack) {
			newest = max(newest, e.grant.Newest)
		}
	}
	raised := newest >= a.ledger.floor.Add(slack/2) || a.ledger.floor == 0
	if raised {
		a.ledger.floor = newest
	}
	due := raised || a.ledger.disk != nil && a.Clock.Boot() >= a.tryDisk
	a.ledger.mu.Unlock()
	if due {
		a.keepFloor(newest)
	}
}

// keepFloor writes the floor, and says what follows: while the disk takes nothing, nothing starts, because an end that only
// memory holds would be undone by the next agent.
func (a *Agent) keepFloor(newest statement.Time) {
	a.spooling.Lock()
	err := a.Spool.putTime(floorFile, newest)
	a.spooling.Unlock()
	a.diskSays(err)
}

// diskSays takes what came of a write that must not get lost.
func (a *Agent) diskSays(err error) {
	a.ledger.mu.Lock()
	before := a.ledger.disk
	a.ledger.disk = nil
	if err != nil {
		a.ledger.disk = fmt.Errorf("its spool cannot be written: %w", err)
		a.tryDisk = a.Clock.Boot() + watchful
	}
	a.ledger.mu.Unlock()
	switch {
	case err != nil && before == nil:
		a.Log.Error("granting has stopped on this host until its spool can be written", "error", err)
	case err == nil && before != nil:
		a.Log.Info("the spool can be written again")
	}
}

// readAgain takes the spool's present content into the ledger. It never walks policy back and never forgets an end.
func (a *Agent) readAgain() error {
	a.spooling.Lock() // over both disk and ledger, as takeDossier does
	defer a.spooling.Unlock()
	c, err := a.Spool.load()
	if err != nil {
		return err
	}
	h := heardAt(c.heard, a.Clock)
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	if c.chain.Ref().Revision < a.ledger.chain.Ref().Revision {
		return fmt.Errorf("the spool holds policy revision %d, known is %d", c.chain.Ref().Revision, a.ledger.chain.Ref().Revision)
	}
	fresh := newLedger(c, h)
	maps.Copy(a.ledger.ended, fresh.ended)
	for stem, e := range fresh.entries {
		old, known := a.ledger.entries[stem]
		if !known {
			a.ledger.entries[stem] = e
			continue
		}
		old.proof = e.proof
		if old.ended == nil {
			old.ended = e.ended
		}
	}
	for stem, e := range a.ledger.entries {
		if _, kept := fresh.entries[stem]; !kept && e.ended == nil {
			e.refused = errors.New("its dossier is no longer in the spool")
		}
	}
	a.ledger.chain, a.ledger.floor, a.ledger.halt = fresh.chain, max(a.ledger.floor, fresh.floor), fresh.halt
	if fresh.heard.wall != 0 {
		a.ledger.heard = fresh.heard
	}
	a.ledger.explain(a.Log, a.Clock.now())
	if fresh.halt != nil {
		a.Log.Error("granting has stopped on this host", "why", fresh.halt)
	}
	a.Log.Info("spool read", "policy", a.ledger.chain.Ref().Revision, "dossiers", len(c.dossiers))
	return nil
}
