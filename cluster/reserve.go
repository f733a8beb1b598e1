package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is kept on a broker's disk for ending access.
const (
	reserveBytes = 4 << 20 // in each database, beyond what it uses
	reserveSteps = 8       // in which it is made up where there is not room for all of it
	floorBytes   = 1 << 20 // free to everybody: less is almost full
)

// reserve is room that is this broker's already: blocks behind the used part of each database's own file, which nobody else
// can take. bbolt grows into them. A file system that gives none away in advance (it copies on write) leaves the floor.
type reserve struct {
	dir string

	mu    sync.Mutex
	files []*os.File // raft.db and events.db
	ends  []uint64   // up to where each has blocks
	left  uint64     // of the reserve, where it is least
	short bool       // it could not be made up
}

func openReserve(dir string) (*reserve, error) {
	r := &reserve{dir: dir}
	for _, name := range []string{raftFile, eventsFile} {
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.files, r.ends = append(r.files, file), append(r.ends, 0)
	}
	return r, r.fill()
}

func (r *reserve) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []error
	for _, file := range r.files {
		all = append(all, file.Close())
	}
	r.files = nil
	return errors.Join(all...)
}

// fill makes up what was used. A full disk is no error: low says so from then on.
func (r *reserve) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left, r.short = math.MaxUint64, false
	for i, file := range r.files {
		used, err := usedBytes(file)
		if err == nil {
			r.ends[i], err = allocated(file, used, r.ends[i])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
		has := r.ends[i] - min(used, r.ends[i])
		r.left, r.short = min(r.left, has), r.short || has < reserveBytes
	}
	return nil
}

// allocated gives a file blocks up to reserveBytes behind what it uses, or as far as there are any, and returns how far.
func allocated(file *os.File, used, before uint64) (uint64, error) {
	for step := uint64(reserveSteps); step > 0; step-- {
		end := used + step*reserveBytes/reserveSteps
		if end <= before {
			return before, nil
		}
		err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(end))
		switch {
		case err == nil, errors.Is(err, unix.EOPNOTSUPP):
			return end, nil
		case !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EINTR):
			return before, fmt.Errorf("reserving room: %w", err)
		}
	}
	return before, nil
}

// usedBytes returns how far a database reaches that may be written to meanwhile.
func usedBytes(file *os.File) (uint64, error) {
	size := uint64(os.Getpagesize())
	p, used := pages{file: file, size: size}, uint64(0)
	var all error
	for id := range uint64(2) {
		_, high, err := p.meta(id)
		all = errors.Join(all, err)
		used = max(used, high*size)
	}
	if used == 0 {
		return 0, all
	}
	return used, nil
}

// low reports whether the disk is almost full. It looks.
func (r *reserve) low() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.short || r.free() < floorBytes
}

// half reports whether so little of the reserve is left that only ends may use it.
func (r *reserve) half() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left < reserveBytes/2
}

// free returns how many bytes of the disk anybody may use.
func (r *reserve) free() uint64 {
	var at unix.Statfs_t
	if err := unix.Statfs(r.dir, &at); err != nil {
		return 0
	}
	return at.Bavail * uint64(at.Bsize)
}

// full reports whether a write failed for lack of room and nothing else: what was there before is whole, and it may be tried
// again when there is room.
func full(err error) bool {
	var at *fs.PathError
	if !errors.As(err, &at) {
		return err != nil && strings.Contains(err.Error(), "file resize error") // bbolt's, which wraps nothing
	}
	return at.Op != "sync" && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}
