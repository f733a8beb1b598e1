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

// stoppingLog is raft's log on a disk that may fail.
type stoppingLog struct {
	raft.LogStore
	stop *failstop
}

// StoreLog stores one entry.
func (s stoppingLog) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries.
func (s stoppingLog) StoreLogs(entries []*raft.Log) error {
	return s.stop.do(raftFile, func() error { return s.LogStore.StoreLogs(entries) })
}

// DeleteRange forgets entries.
func (s stoppingLog) DeleteRange(first, last uint64) error {
	return s.stop.do(raftFile, func() error { return s.LogStore.DeleteRange(first, last) })
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
