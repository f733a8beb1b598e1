package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// complainEvery is how often the same is said of one broker.
const complainEvery = time.Minute

// Why a broker is not spoken to, though it holds the key of one.
var (
	errOtherName = errors.New("it greets as a broker whose key it does not hold")
	errCopied    = errors.New("its disk is a copy of this broker's")
	errForeign   = errors.New("it was bootstrapped from another chain file, or only one of the two was restored; where the old record is: " +
		"pim-brokerd quarantine, then pim-brokerd restore FILE")
	errOtherDisk = errors.New("it came back with another disk, and has forgotten what it stored and promised")
)

// wayBack is what to type on a broker that is to come back with an empty disk.
const wayBack = "type pim-brokerd quarantine, then pim-brokerd join CHAINFILE"

// door decides whom this broker speaks raft with: a broker whose key TLS has checked, on the disk that it must have.
type door struct {
	name  statement.BrokerName
	disk  statement.Disk // this one's
	id    raft.ServerID
	begin founding
	known *raftboltdb.BoltStore // the disks of brokers that were bootstrapped, as first met
	look  func(func(*broker.State)) error
	log   *slog.Logger
	raft  atomic.Pointer[raft.Raft]       // nil until it runs
	added atomic.Pointer[statement.Proof] // by which an operator added this broker, if it joined and knows
	chain func() policy.Chain             // as far as this broker knows
	stop  *failstop                       // of the disk that known is on

	mu    sync.Mutex
	said  map[string]time.Time             // when something was last said of a broker
	heard map[statement.BrokerName]Refusal // what others said to this one
}

func newDoor(id raft.ServerID, disk statement.Disk, begin founding, known *raftboltdb.BoltStore, look func(func(*broker.State)) error, log *slog.Logger) *door {
	return &door{name: seatOf(id).Name, disk: disk, id: id, begin: begin, known: known, look: look, log: log, stop: &failstop{},
		said: map[string]time.Time{}, heard: map[statement.BrokerName]Refusal{}}
}

// Refusal is what another broker answered in place of a greeting.
type Refusal struct {
	At  time.Time
	Why string // printable
}

// own is what this broker says.
func (d *door) own() greeting {
	g := greeting{origin: d.begin.origin, mark: d.disk, id: d.id, restore: d.begin.restore}
	if d.joined() {
		g.origin, g.added = d.begin.chain.Deployment(), d.added.Load()
	}
	return g
}

// seats are raft's members, once it runs.
func (d *door) seats() []Seat { return seatsOf(d.raft.Load()) }

// errNoVote: what this broker's disk may have stored and promised before it was replaced is not known here.
var errNoVote = errors.New("this broker has joined, and does not know yet that it was added")

// mayVote reports whether this broker's vote counts for anything. A broker that comes back with an empty disk is still a voter
// under its name to those who have not heard of that: its vote would elect who lacks what the lost disk had acknowledged.
func (d *door) mayVote() bool {
	return !d.joined() || slices.ContainsFunc(d.seats(), func(s Seat) bool { return s.id() == d.id })
}

func (d *door) joined() bool { return seatOf(d.id).Disk != "" }

// judge holds a broker, whose name TLS has proved, to what it says. A broker that was bootstrapped is remembered by the
// disk it had the first time it was met; one that joined must have the disk that an operator named.
func (d *door) judge(name statement.BrokerName, g greeting) error {
	seat := seatOf(g.id)
	switch {
	case seat.Name != name || seat.Disk != "" && seat.Disk != g.mark:
		return errOtherName
	case g.mark == d.disk:
		return errCopied
	}
	if err := d.related(seat, g); err != nil {
		return err
	}
	if err := d.stands(seat, g); err != nil || seat.Disk != "" {
		return err
	}
	return d.remember(name, g.mark)
}

// related holds a broker to this one's founding. One that joined was never told it, only the deployment: who speaks to it
// and whom it speaks to must agree on that, and on the founding among the policies, or by the restore, that it knows.
func (d *door) related(seat Seat, g greeting) error {
	same := g.origin == d.begin.origin
	switch {
	case seat.Disk != "":
		same = g.origin == d.begin.chain.Deployment()
	case d.joined():
		same = d.mayHaveFounded(g)
	}
	if !same {
		return d.begin.foreign()
	}
	return nil
}

// mayHaveFounded reports whether a broker greets as a founder of the cluster that this one has joined: of its newest epoch or,
// while none is known here, of one that an operator began, or by policies that begin as the ones known here do.
func (d *door) mayHaveFounded(g greeting) bool {
	chain, epoch := d.begin.chain, broker.Epoch{}
	_ = d.look(func(state *broker.State) { // a node that failed knows what it joined with
		epoch = state.Epoch()
		if state.Chain().Ref().Revision > chain.Ref().Revision {
			chain = state.Chain()
		}
	})
	if epoch.Number > 0 {
		return g.origin == epoch.Proof.Hash()
	}
	if g.restore != nil {
		_, err := broker.CheckRestore(chain, *g.restore)
		return err == nil
	}
	return slices.Contains(originsOf(chain.Proofs()), g.origin)
}

// stands refuses what the log rules out. Raft's members are spoken to until they have left: they may be needed for that. Who
// founded the cluster and is no member has left for good. Who joined and is no member here may be one that this broker has not
// heard of yet, and shows the operator's word on it.
func (d *door) stands(seat Seat, g greeting) (why error) {
	seats := d.seats()
	if slices.ContainsFunc(seats, func(s Seat) bool { return s.id() == g.id }) {
		return nil
	}
	vouched := d.vouched(seat, g)
	_ = d.look(func(state *broker.State) { // a node that failed goes by the keys and disks that it knows
		switch standing := state.Standing(seat.Name, seat.Disk); {
		case standing == broker.Removed:
			why = removed(state.Removal(seat.Name, seat.Disk))
		case seat.Disk == "" && len(seats) > 0:
			why = fmt.Errorf("%s is no member any more: on it, %s", seat.Name, wayBack)
		case seat.Disk == "", standing == broker.Voter, standing == broker.Watching, vouched:
		default:
			why = d.waits(seat, standing)
		}
	})
	return why
}

// vouched reports whether a broker shows the word of an operator, of this or an earlier policy, that adds it.
func (d *door) vouched(seat Seat, g greeting) bool {
	if g.added == nil {
		return false
	}
	chain := d.chain()
	for revision := chain.Ref().Revision; revision > 0; revision-- {
		word, err := broker.CheckAdded(chain.Until(revision), *g.added)
		if err == nil {
			return word.Broker == seat.Name && word.Disk == seat.Disk
		}
	}
	return false
}

func removed(r broker.Removal, _ bool) error {
	by := r.By
	if by == "" {
		by = "a policy"
	}
	return fmt.Errorf("%s was removed by %s at %s and does not come back with this disk: on it, %s", r.Name, by, r.At, wayBack)
}

// waits says what an operator has to type for a broker that joined.
func (d *door) waits(seat Seat, standing broker.Standing) error {
	first := ""
	if standing == broker.OtherDisk || slices.ContainsFunc(d.seats(), func(s Seat) bool { return s.Name == seat.Name }) {
		first = fmt.Sprintf("pim-ssh cluster remove %s, then ", seat.Name)
	}
	return fmt.Errorf("%s is no member with this disk: an operator types %spim-ssh cluster add %s --disk %s", seat.Name, first, seat.Name, seat.Disk)
}

// remember keeps the disk that a bootstrapped broker had the first time it was met, and refuses any other from then on.
func (d *door) remember(name statement.BrokerName, disk statement.Disk) error {
	before, err := d.known.Get(diskOf(name))
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return d.stop.do(raftFile, func() error {
			return errors.Join(d.known.Set(diskOf(name), []byte(disk)), sealOwn(d.known, diskOf(name)))
		})
	case err != nil:
		return err
	case string(before) != string(disk):
		return fmt.Errorf("%w: give it the disk it had, or on it, %s; an operator types pim-ssh cluster remove %s", errOtherDisk, wayBack, name)
	}
	return nil
}

func diskOf(name statement.BrokerName) []byte { return append([]byte("pim-disk-of "), name...) }

// knows reports whether a broker's disk is remembered.
func (d *door) knows(name statement.BrokerName) bool {
	_, err := d.known.Get(diskOf(name))
	return err == nil
}

// greet exchanges greetings with the broker that was dialled. The connection is closed on an error.
func (d *door) greet(name statement.BrokerName, conn net.Conn) error {
	err := conn.SetDeadline(time.Now().Add(greetTimeout))
	if err == nil {
		err = d.own().say(conn)
	}
	var theirs greeting
	if err == nil {
		theirs, err = hear(conn)
	}
	d.note(name, err)
	if err == nil {
		err = d.judge(name, theirs)
		d.complain(name, err)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// welcome exchanges greetings with a broker that dialled, and tells one that is not spoken to why: its key stands against it
// (denied), or what it says. It returns who it is.
func (d *door) welcome(name statement.BrokerName, denied error, conn net.Conn) (raft.ServerID, error) {
	if err := conn.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return "", err
	}
	theirs, err := hear(conn)
	if err != nil {
		return "", err
	}
	if denied == nil {
		denied = d.judge(name, theirs)
	}
	if err := denied; err != nil {
		d.complain(name, err)
		return "", errors.Join(err, refuse(conn, err))
	}
	return theirs.id, errors.Join(d.own().say(conn), conn.SetDeadline(time.Time{}))
}

// complain says, once a minute, why a broker is not spoken to.
func (d *door) complain(name statement.BrokerName, why error) {
	if why != nil && d.due("here", name) {
		d.log.Error("a broker is not spoken to", "broker", name, "why", why)
	}
}

// note keeps a refusal that was heard until that broker answers, and says it once a minute.
func (d *door) note(name statement.BrokerName, err error) {
	var refused refusedError
	if is := errors.As(err, &refused); is && d.due("there", name) {
		d.log.Error("another broker does not speak to this one", "broker", name, "why", refused)
	} else if !is && err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.heard, name)
		return
	}
	d.heard[name] = Refusal{time.Now(), refused.Error()}
}

// due reports whether something may be said again of a broker.
func (d *door) due(where string, name statement.BrokerName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := where + " " + string(name)
	if time.Since(d.said[what]) < complainEvery {
		return false
	}
	d.said[what] = time.Now()
	return true
}

// refusals returns what other brokers answered lately in place of a greeting.
func (d *door) refusals() map[statement.BrokerName]Refusal {
	d.mu.Lock()
	defer d.mu.Unlock()
	lately := maps.Clone(d.heard)
	maps.DeleteFunc(lately, func(_ statement.BrokerName, r Refusal) bool { return time.Since(r.At) > complainEvery })
	return lately
}
