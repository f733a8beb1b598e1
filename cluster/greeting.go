package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker/statement"
)

const (
	greetTimeout = 5 * time.Second // bounds the exchange of greetings
	meetEvery    = 1 * time.Second
)

// Why a broker is not spoken to, though it holds a key that policy lists.
var (
	// errForeign: the two raft logs begin differently.
	errForeign = errors.New("the other broker was bootstrapped from another chain file")
	// errOtherDisk: what that broker promised and stored is gone, and it may vote twice.
	errOtherDisk = errors.New("the other broker came back with another disk: give it the disk it had, or take it out of the policy")
)

// greeting is what each side of a raft connection says first: which cluster it was bootstrapped for, and which disk it
// is. A broker remembers the disk of every other one; the name is as good as the key that TLS has checked.
type greeting struct {
	origin statement.Hash
	mark   string // markLength hex digits
	name   statement.BrokerName
	known  *raftboltdb.BoltStore // where disks are remembered
}

const markLength = 32

// say writes the greeting: origin, mark, length of the name, name.
func (g greeting) say(w io.Writer) error {
	said := append(g.origin[:], g.mark...)
	said = append(said, byte(len(g.name)))
	_, err := w.Write(append(said, g.name...))
	return err
}

// hear reads the other side's greeting and holds it to ours.
func (g greeting) hear(r io.Reader) error {
	var fixed [len(g.origin) + markLength + 1]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return err
	}
	name := make([]byte, fixed[len(fixed)-1])
	if _, err := io.ReadFull(r, name); err != nil {
		return err
	}
	if !bytes.Equal(fixed[:len(g.origin)], g.origin[:]) {
		return fmt.Errorf("%q: %w", name, errForeign)
	}
	return g.remember(name, fixed[len(g.origin):len(g.origin)+markLength])
}

// remember keeps the disk that a broker had the first time it was met, and refuses any other from then on.
func (g greeting) remember(name, mark []byte) error {
	key := diskOf(name)
	before, err := g.known.Get(key)
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return g.known.Set(key, mark)
	case err != nil:
		return err
	case !bytes.Equal(before, mark):
		return fmt.Errorf("%q: %w", name, errOtherDisk)
	}
	return nil
}

func diskOf(name []byte) []byte { return append([]byte("pim-disk-of "), name...) }

// knows reports whether a broker's disk is remembered.
func (g greeting) knows(name statement.BrokerName) bool {
	_, err := g.known.Get(diskOf([]byte(name)))
	return err == nil
}

// exchange greets the broker that was dialled. The connection is closed on an error.
func (g greeting) exchange(conn net.Conn) error {
	err := conn.SetDeadline(time.Now().Add(greetTimeout))
	if err == nil {
		err = g.say(conn)
	}
	if err == nil {
		err = g.hear(conn)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// meet dials every other broker until all have greeted: a disk can only be missed by those who knew it.
func (n *Node) meet() {
	again := time.NewTicker(meetEvery)
	defer again.Stop()
	for {
		left := 0
		for _, other := range n.begin.voters().Servers {
			if name := statement.BrokerName(other.ID); name == n.name || n.wire.greeting.knows(name) {
				continue
			}
			left++
			if conn, err := n.wire.Dial(other.Address, meetEvery); err == nil {
				conn.Close()
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-again.C:
		case <-n.closing:
			return
		}
	}
}

// incoming is a connection whose dialler has to greet first; greetings are exchanged on the first read.
type incoming struct {
	net.Conn
	greeting greeting
	once     sync.Once
	err      error
}

// Read reads what follows the greeting.
func (c *incoming) Read(p []byte) (int, error) {
	c.once.Do(func() {
		if c.err = c.greeting.hear(c.Conn); c.err == nil {
			c.err = c.greeting.say(c.Conn)
		}
	})
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}
