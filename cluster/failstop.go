package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// errFailed: a write failed, and not for lack of room.
var errFailed = errors.New("the disk failed")

// failstop ends a broker whose disk has failed. A write that failed for anything but room may have been lost in any part, and
// the system calls it written when asked a second time: nothing is written after it, and the disk is not used again.
type failstop struct {
	dir  string
	fail func(error)

	why atomic.Pointer[error]
}

// do does one durable write, if none has failed.
func (f *failstop) do(what string, write func() error) error {
	if why := f.why.Load(); why != nil {
		return *why
	}
	err := write()
	if err == nil || full(err) || errors.Is(err, ErrDisk) || errors.Is(err, errFailed) {
		return err
	}
	err = fmt.Errorf("writing %s: %w: %w", what, errFailed, err)
	if f.fail != nil && f.why.CompareAndSwap(nil, &err) { // a disk that is being made is in nobody's use
		condemn(f.dir, err)
		f.fail(err)
	}
	return err
}

// end ends the broker, and writes nothing more; the disk may be used again.
func (f *failstop) end(why error) {
	if f.fail != nil && f.why.CompareAndSwap(nil, &why) {
		f.fail(why)
	}
}

// errCut: raft goes by a log that is longer than what the disk holds.
var errCut = errors.New("raft's log was cut, and there was no room for what comes in its place: start again once there is room")

// stoppingLog is raft's log on a disk that may fail. Raft cuts what another leader contradicts and then writes what that one
// sends; when the second fails it goes on as if nothing had been cut, promises entries that it has not, and panics when it is to
// apply them. So a full disk, which is else no failure, ends the broker there. The disk is whole.
type stoppingLog struct {
	raft.LogStore
	stop *failstop
	cut  *atomic.Bool // and nothing was written since
}

func newStoppingLog(log raft.LogStore, stop *failstop) stoppingLog {
	return stoppingLog{log, stop, &atomic.Bool{}}
}

// StoreLog stores one entry.
func (s stoppingLog) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries.
func (s stoppingLog) StoreLogs(entries []*raft.Log) error {
	err := s.stop.do(raftFile, func() error { return s.LogStore.StoreLogs(entries) })
	if err == nil {
		s.cut.Store(false)
	} else if s.cut.Load() && full(err) {
		s.stop.end(fmt.Errorf("%w: %w", errCut, err))
	}
	return err
}

// DeleteRange forgets entries.
func (s stoppingLog) DeleteRange(first, last uint64) error {
	newest, err := s.LastIndex()
	if err == nil {
		err = s.stop.do(raftFile, func() error { return s.LogStore.DeleteRange(first, last) })
	}
	if err == nil && last >= newest {
		s.cut.Store(true)
	}
	return err
}

// stoppingValues are raft's own values on a disk that may fail. Raft panics when it cannot write them.
type stoppingValues struct {
	raft.StableStore
	stop *failstop
}

// Set stores a value.
func (s stoppingValues) Set(key, value []byte) error {
	return s.stop.do(raftFile, func() error { return s.StableStore.Set(key, value) })
}

// SetUint64 stores a number.
func (s stoppingValues) SetUint64(key []byte, value uint64) error {
	return s.stop.do(raftFile, func() error { return s.StableStore.SetUint64(key, value) })
}
