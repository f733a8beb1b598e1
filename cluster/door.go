package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker/statement"
)

// complainEvery is how often the same is said of one broker.
const complainEvery = time.Minute

// Why a broker is not spoken to, though it holds the key of one.
var (
	errOtherName = errors.New("it greets as a broker whose key it does not hold")
	errCopied    = errors.New("its disk is a copy of this broker's")
	errForeign   = errors.New("it was bootstrapped from another chain file, or one of the two was restored and the other was not; " +
		"where the old record is: pim-brokerd quarantine, then pim-brokerd restore FILE")
	errOtherDisk = errors.New("it came back with another disk and has forgotten what it promised; give it the disk it had, " +
		"or on it: pim-brokerd quarantine, then pim-brokerd join CHAINFILE")
)

// serverID is what raft knows a member by: the name of a broker that was bootstrapped, and name and disk of one that
// joined. No id comes twice, because no disk does.
func serverID(name statement.BrokerName, disk string) raft.ServerID {
	if disk == "" {
		return raft.ServerID(name)
	}
	return raft.ServerID(string(name) + "/" + disk)
}

// split takes a server's id apart. A broker that was bootstrapped has no disk in it.
func split(id raft.ServerID) (name statement.BrokerName, disk string, joined bool) {
	first, disk, joined := strings.Cut(string(id), "/")
	return statement.BrokerName(first), disk, joined
}

// door decides whom this broker speaks raft with: a broker whose key TLS has checked, on the disk that it must have.
type door struct {
	name  statement.BrokerName
	disk  string // this one's
	id    raft.ServerID
	begin founding
	known *raftboltdb.BoltStore // the disks of brokers that were bootstrapped, as first met
	log   *slog.Logger

	mu    sync.Mutex
	said  map[string]time.Time             // when something was last said of a broker
	heard map[statement.BrokerName]Refusal // what others said to this one
}

func newDoor(name statement.BrokerName, disk string, begin founding, known *raftboltdb.BoltStore, log *slog.Logger) *door {
	return &door{name: name, disk: disk, id: serverID(name, ""), begin: begin, known: known, log: log,
		said: map[string]time.Time{}, heard: map[statement.BrokerName]Refusal{}}
}

// Refusal is what another broker answered in place of a greeting.
type Refusal struct {
	At  time.Time
	Why string // printable
}

// own is what this broker says.
func (d *door) own() greeting {
	return greeting{origin: d.begin.origin, mark: d.disk, id: d.id}
}

// judge holds a broker, whose name TLS has proved, to what it says. A broker that was bootstrapped is remembered by the
// disk it had the first time it was met.
func (d *door) judge(name statement.BrokerName, g greeting) error {
	claimed, disk, joined := split(g.id)
	switch {
	case claimed != name || joined && disk != g.mark:
		return errOtherName
	case g.mark == d.disk:
		return errCopied
	case g.origin != d.begin.origin:
		return d.begin.foreign()
	case joined:
		return errOtherDisk
	default:
		return d.remember(name, g.mark)
	}
}

// remember keeps the disk that a bootstrapped broker had the first time it was met, and refuses any other from then on.
func (d *door) remember(name statement.BrokerName, mark string) error {
	before, err := d.known.Get(diskOf(name))
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return d.known.Set(diskOf(name), []byte(mark))
	case err != nil:
		return err
	case string(before) != mark:
		return errOtherDisk
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
		return errors.Join(fmt.Errorf("%s: %w", name, err), conn.Close())
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
		return "", errors.Join(fmt.Errorf("%s: %w", name, err), refuse(conn, err))
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
