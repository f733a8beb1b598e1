package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
)

// TestTheReserveHoldsAThousandEnds measures what one statement takes in each database.
func TestTheReserveHoldsAThousandEnds(t *testing.T) {
	l := newLone(t)
	used := func() (all [2]uint64) {
		for i, file := range l.node.reserve.files {
			var err error
			if all[i], err = usedBytes(file); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	for range 100 { // until the first pages are filled
		l.propose(l.refusal())
	}
	const n = 200
	before := used()
	for range n {
		l.propose(l.refusal())
	}
	after := used()
	for i, file := range l.node.reserve.files {
		each := (after[i] - before[i]) / n
		t.Logf("%s: %d bytes for each statement, %d of them in the reserve", filepath.Base(file.Name()), each, reserveBytes/each)
		if reserveBytes/each < 1000 {
			t.Errorf("only %d fit", reserveBytes/each)
		}
	}
}

// TestOnlyRoomIsWaitedFor tells a full disk from one that failed.
func TestOnlyRoomIsWaitedFor(t *testing.T) {
	for name, try := range map[string]struct {
		err  error
		full bool
	}{
		"a write without room":              {&fs.PathError{Op: "write", Err: syscall.ENOSPC}, true},
		"a write over the quota":            {fmt.Errorf("log: %w", &fs.PathError{Op: "write", Err: syscall.EDQUOT}), true},
		"a file that cannot be made longer": {errors.New("file resize error: truncate raft.db: no space left on device"), true},
		"a sync without room":               {syscall.ENOSPC, false},
		"a file's sync without room":        {&fs.PathError{Op: "sync", Err: syscall.ENOSPC}, false},
		"a failed sync":                     {syscall.EIO, false},
		"a failed write":                    {&fs.PathError{Op: "write", Err: syscall.EIO}, false},
		"a disk made read-only":             {&fs.PathError{Op: "write", Err: syscall.EROFS}, false},
		"no error":                          {nil, false},
	} {
		if full(try.err) != try.full {
			t.Errorf("%s: %t", name, !try.full)
		}
	}
}

// TestAFailedWriteIsTheLast fails one write of each kind: the node stops, writes nothing more, and its disk is not used again.
func TestAFailedWriteIsTheLast(t *testing.T) {
	for _, at := range []Point{PointLog, PointEvents, PointSnapshot} {
		t.Run(string(at), func(t *testing.T) {
			l := newLone(t)
			l.close()
			failing, tried := false, 0
			config := l.config()
			config.Seams.Write = func(point Point, do func() error) error {
				if !failing || point != at {
					return do()
				}
				tried++
				return syscall.EIO
			}
			node := opened(t, config)
			l.node = node
			if err := node.raft.Barrier(0).Error(); err != nil {
				t.Fatal(err)
			}
			failing = true
			if at == PointSnapshot {
				node.raft.Snapshot().Error()
			} else if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("it answered %v", err)
			}
			<-node.Failed()
			if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("it answered %v afterwards", err)
			}
			node.raft.Apply([]byte("x"), 0)
			if tried != 1 || !errors.Is(node.Err(), errFailed) {
				t.Errorf("tried %d times; %v", tried, node.Err())
			}
			l.close()
			if _, err := Open(l.config()); !errors.Is(err, ErrDisk) {
				t.Errorf("the next start says %v", err)
			}
			if _, err := os.Stat(l.file(damagedFile)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAFullDiskIsNoFailure has a write fail for lack of room: the node goes on.
func TestAFullDiskIsNoFailure(t *testing.T) {
	l := newLone(t)
	l.close()
	full := false
	config := l.config()
	config.Seams.Write = func(point Point, do func() error) error {
		if full && point == PointLog {
			return &fs.PathError{Op: "write", Path: raftFile, Err: syscall.ENOSPC}
		}
		return do()
	}
	l.node = opened(t, config)
	full = true
	if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("it answered %v", err)
	}
	full = false
	if err := l.node.Ready(t.Context()); err != nil || l.node.raft.State() != raft.Leader {
		t.Fatal(err)
	}
	if _, err := l.propose(l.refusal()); broker.KindOf(err) != broker.Missing {
		t.Errorf("with room again it answered %v", err)
	}
}

// TestALogThatWasCutAndCannotGoOnStopsTheBroker takes away what another leader contradicts, and has no room for what that one sent.
// Raft believes then that it still has what it took away.
func TestALogThatWasCutAndCannotGoOnStopsTheBroker(t *testing.T) {
	entries := func(term, first, last uint64) (all []*raft.Log) {
		for index := first; index <= last; index++ {
			all = append(all, &raft.Log{Index: index, Term: term, Data: []byte("x")})
		}
		return all
	}
	for name, c := range map[string]struct {
		first, last uint64 // what is forgotten
		again       bool   // and something is written before the disk is full
		stops       bool
	}{
		"what comes last is contradicted":   {4, 6, false, true},
		"all of it is":                      {1, 6, false, true},
		"it has gone on since":              {4, 6, true, false},
		"the oldest are in a snapshot":      {1, 3, false, false},
		"nothing is forgotten, and no room": {0, 0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := raftboltdb.NewBoltStore(filepath.Join(memory(t), "log.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			isFull, stopped, dir := false, error(nil), memory(t)
			seams := Seams{Write: func(_ Point, do func() error) error {
				if isFull {
					return &fs.PathError{Op: "write", Path: raftFile, Err: syscall.ENOSPC}
				}
				return do()
			}}
			log := newStoppingLog(seamedLog{chainedStore{store}, seams}, &failstop{dir: dir, fail: func(err error) { stopped = err }})
			err = log.StoreLogs(entries(1, 1, 6))
			if c.last > 0 {
				err = errors.Join(err, log.DeleteRange(c.first, c.last))
			}
			if c.again {
				err = errors.Join(err, log.StoreLogs(entries(2, c.first, c.first)))
			}
			if err != nil {
				t.Fatal(err)
			}
			isFull = true
			if err := log.StoreLogs(entries(2, 7, 7)); !full(err) {
				t.Errorf("written: %v", err)
			}
			if errors.Is(stopped, errCut) != c.stops {
				t.Errorf("it stops for %v", stopped)
			}
			if _, err := os.Stat(filepath.Join(dir, damagedFile)); err == nil {
				t.Error("a good disk is condemned")
			}
			isFull = false
			if err := log.StoreLogs(entries(2, c.first+6, c.first+6)); (err != nil) != c.stops {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}
