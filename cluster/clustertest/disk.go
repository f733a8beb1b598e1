package clustertest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pim-ssh/cluster"
)

const (
	raftFile   = "raft.db"
	eventsFile = "events.db"
	lagWrites  = 3 // how many writes an unsynced database loses with the power
	metaPages  = 2 // of a bbolt file: the headers; one is written last, after everything else is synced
)

// trouble is what a disk does wrong for a while.
type trouble struct {
	slow   time.Duration // a write takes at most so much longer
	stall  time.Duration // and always so much
	fails  syscall.Errno // writes fail
	struck bool          // one did
}

// When is on which side of a write a broker dies.
type when string

// The closed set.
const (
	before when = "before"
	within when = "torn within"
	after  when = "after"
)

// plan is a death that waits for its moment.
type plan struct {
	at     cluster.Point
	when   when
	skip   int // writes at that point to let pass first
	silent bool
}

// write does one durable write of a node, as its disk would, and dies there if that is the plan.
func (l *life) write(at cluster.Point, do func() error) error {
	if l.gone.Load() || l.broker.current() != l { // not yet, or no longer
		return do()
	}
	l.pass(at)
	if err := l.broker.strike(at); err != nil {
		return l.struck(at, err, do)
	}
	if l.broker.cluster.shape.Broken == NoSync && at == cluster.PointLog {
		l.remember()
	}
	p := l.broker.planned(at)
	if p == nil {
		return do()
	}
	l.broker.cluster.log.note("%s dies %s %q", l.broker.Name, p.when, at)
	switch p.when {
	case before:
		l.die(p.silent, nil)
		return do()
	case within:
		return l.tear(at, p.silent, do)
	default:
		err := do()
		l.die(p.silent, nil)
		return err
	}
}

// struck is a write that fails. Raft itself ends the process when its term or vote is not written.
func (l *life) struck(at cluster.Point, err error, do func() error) error {
	if at == cluster.PointVote {
		l.broker.cluster.log.note("%s ends: its vote is not written: %v", l.broker.Name, err)
		l.die(false, nil)
		return do()
	}
	return &fs.PathError{Op: "write", Path: string(at), Err: err}
}

// pass takes as long as the disk, or the process, is held up.
func (l *life) pass(cluster.Point) {
	l.broker.mu.Lock()
	slow, stall := l.broker.ills.slow, l.broker.ills.stall
	l.broker.mu.Unlock()
	if slow > 0 {
		l.locked.Lock()
		stall += time.Duration(l.random.Int64N(int64(slow)))
		l.locked.Unlock()
	}
	if stall > 0 {
		_ = pause(l.ctx, stall) // a dead one's is as good as over
	}
	_ = l.broker.cluster.Wires.thawed(l.ctx, l.broker.Name)
}

// strike returns the error that a write meets. A disk that fails for good does so under other writes than a vote: raft
// panics there, and would take this process with it.
func (b *Broker) strike(at cluster.Point) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ills.fails == 0 || b.ills.fails != syscall.ENOSPC && at == cluster.PointVote {
		return nil
	}
	b.ills.struck = true
	return b.ills.fails
}

// planned returns the plan whose moment this is.
func (b *Broker) planned(at cluster.Point) *plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.plan == nil || b.plan.at != at {
		return nil
	}
	if b.plan.skip > 0 {
		b.plan.skip--
		return nil
	}
	return b.plan
}

// DieAt has the broker die at its next write at a point, or after some more.
func (b *Broker) dieAt(p plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan = &p
}

// Trouble gives the disk its trouble; the zero value takes it away.
func (b *Broker) trouble(is trouble) {
	b.mu.Lock()
	defer b.mu.Unlock()
	is.struck = b.ills.struck
	b.ills = is
}

// tear does a write and dies in the middle of it: what reached the disk is what a database that syncs its pages before
// its header can leave: some of the pages, or all, and the header that was. (The header fits one sector: it is never half there.)
func (l *life) tear(at cluster.Point, silent bool, do func() error) error {
	file := raftFile
	if at == cluster.PointEvents {
		file = eventsFile
	}
	if at == cluster.PointSnapshot {
		return l.tearSnapshot(silent, do)
	}
	had, errHad := readStable(filepath.Join(l.dir, file))
	err := do()
	l.die(silent, func(dir string) {
		has, errHas := readStable(filepath.Join(dir, file))
		if errHad != nil || errHas != nil {
			panic(errors.Join(errHad, errHas))
		}
		l.locked.Lock()
		torn := l.torn(had, has)
		l.locked.Unlock()
		if err := os.WriteFile(filepath.Join(dir, file), torn, 0o600); err != nil {
			panic(err)
		}
	})
	return err
}

// torn mixes a bbolt file before and after one write. If more than one was written meanwhile, it is the file after them.
// The caller holds locked.
func (l *life) torn(had, has []byte) []byte {
	if transaction(has) != transaction(had)+1 {
		return has
	}
	page := int(binary.LittleEndian.Uint32(has[24:])) // meta's page size, behind page header, magic and version
	mixed := bytes.Clone(had)
	if len(has) > len(had) { // grown, and synced, before anything is written
		mixed = append(mixed, make([]byte, len(has)-len(had))...)
	}
	all := l.random.IntN(3) == 0
	for at := metaPages * page; at < len(has); at += page {
		if all || l.random.IntN(2) == 0 {
			copy(mixed[at:], has[at:at+page])
		}
	}
	return mixed
}

// transaction is the number of the newest transaction in a bbolt file.
func transaction(data []byte) uint64 {
	page := int(binary.LittleEndian.Uint32(data[24:]))
	return max(binary.LittleEndian.Uint64(data[64:]), binary.LittleEndian.Uint64(data[page+64:])) // txid, in either header
}

// tearSnapshot leaves a snapshot that was not finished: its file is cut, and its name still says so.
func (l *life) tearSnapshot(silent bool, do func() error) error {
	l.die(silent, func(dir string) {
		unfinished := filepath.Join(dir, "snapshots", "9-99999999-1.tmp")
		if err := errors.Join(os.MkdirAll(unfinished, 0o700), os.WriteFile(filepath.Join(unfinished, "state.bin"), []byte(`{"v":1,"ind`), 0o600)); err != nil {
			panic(err)
		}
	})
	return do()
}

// remember keeps raft.db as it is before a write that is not synced.
func (l *life) remember() {
	data, err := readStable(filepath.Join(l.dir, raftFile))
	if err != nil {
		return
	}
	l.locked.Lock()
	defer l.locked.Unlock()
	l.lag = append(l.lag, data)
	if len(l.lag) > lagWrites {
		l.lag = l.lag[1:]
	}
}

// forget takes back what was not synced.
func (l *life) forget(dir string) {
	l.locked.Lock()
	defer l.locked.Unlock()
	if len(l.lag) == 0 {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, raftFile), l.lag[0], 0o600); err != nil {
		panic(err)
	}
}

// copyDisk copies a directory as it is at one moment: until two readings agree.
func copyDisk(from, to string) {
	last, err := readTree(from)
	for {
		again, errAgain := readTree(from)
		if err == nil && errAgain == nil && maps.EqualFunc(last, again, bytes.Equal) {
			break
		}
		last, err = again, errAgain
	}
	for path, data := range last {
		there := filepath.Join(to, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(there), 0o700), write(there, data)); err != nil {
			panic(err)
		}
	}
}

// write makes a file, or a directory for nil.
func write(path string, data []byte) error {
	if data == nil {
		return os.MkdirAll(path, 0o700)
	}
	return os.WriteFile(path, data, 0o600)
}

// readTree reads every file of a directory; a directory is nil.
func readTree(root string) (map[string][]byte, error) {
	found := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || d.IsDir() {
			found[name] = nil
			return err
		}
		data, err := os.ReadFile(path)
		found[name] = append([]byte{}, data...)
		return err
	})
	return found, err
}

// readStable reads a file as it is at one moment.
func readStable(path string) ([]byte, error) {
	last, err := os.ReadFile(path)
	for {
		again, errAgain := os.ReadFile(path)
		if err == nil && errAgain == nil && bytes.Equal(last, again) {
			return last, nil
		}
		if errors.Is(errAgain, fs.ErrNotExist) {
			return nil, errAgain
		}
		last, err = again, errAgain
	}
}
