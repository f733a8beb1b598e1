package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is one cgroup hierarchy that systemd may track processes in: on a unified machine the one, on a hybrid machine
// both the v2 tree and the name=systemd v1 tree, which must agree. Trees finds them.
type Tree string

// Trees returns the hierarchies under root (/sys/fs/cgroup): every one that systemd uses to know a unit's processes.
func Trees(root string) ([]Tree, error) {
	var found []Tree
	for _, candidate := range []string{root, filepath.Join(root, "unified"), filepath.Join(root, "systemd")} {
		if _, err := os.Stat(filepath.Join(candidate, "cgroup.procs")); err == nil {
			found = append(found, Tree(candidate))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy of systemd under %s", root)
	}
	return found, nil
}

// Place is a cgroup: the same path in every tree that has it.
type Place struct {
	dirs []string
}

// placeOf finds a unit's control group ("/system.slice/x.service", as systemd names it).
func placeOf(trees []Tree, group string) (Place, error) {
	if !filepath.IsAbs(group) || filepath.Clean(group) != group || group == "/" {
		return Place{}, fmt.Errorf("control group %q is not a unit's", group)
	}
	var p Place
	for _, t := range trees {
		dir := string(t) + group
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			p.dirs = append(p.dirs, dir)
		}
	}
	if len(p.dirs) == 0 {
		return Place{}, fmt.Errorf("control group %s is in no hierarchy", group)
	}
	return p, nil
}

// sub names a cgroup below p, which need not exist.
func (p Place) sub(name string) Place {
	var s Place
	for _, dir := range p.dirs {
		s.dirs = append(s.dirs, filepath.Join(dir, name))
	}
	return s
}

// subs names the sessions' cgroups below p that exist in any tree.
func (p Place) subs() []string {
	var names []string
	for _, dir := range p.dirs {
		found, _ := filepath.Glob(filepath.Join(dir, "s-*")) // the pattern is well formed
		for _, path := range found {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// make makes the cgroup in every tree; one that exists is fine.
func (p Place) make() error {
	for _, dir := range p.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// seat is a cgroup that was made and stands open for the one process that is to go there.
type seat struct {
	place Place
	fds   []int // of cgroup.procs, one in every tree
}

// seat makes the cgroup and opens it. The caller closes the seat.
func (p Place) seat() (*seat, error) {
	if err := p.make(); err != nil {
		return nil, err
	}
	s := &seat{place: p}
	for _, dir := range p.dirs {
		fd, err := unix.Open(filepath.Join(dir, "cgroup.procs"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		s.fds = append(s.fds, fd)
	}
	if len(s.fds) == 0 {
		return nil, errors.New("no cgroup to move into")
	}
	return s, nil
}

// take moves the process into the cgroup in every tree, and reads back that it is there.
func (s *seat) take(pid int) error {
	var buffer [4096]byte
	for i, fd := range s.fds {
		if _, err := unix.Write(fd, strconv.AppendInt(buffer[:0], int64(pid), 10)); err != nil {
			return fmt.Errorf("process %d to %s: %w", pid, s.place.dirs[i], err)
		}
		n, err := unix.Pread(fd, buffer[:], 0)
		if err != nil {
			return fmt.Errorf("%s: %w", s.place.dirs[i], err)
		}
		if pids, err := parsePIDs(buffer[:n]); err != nil || !slices.Contains(pids, pid) {
			return errors.Join(fmt.Errorf("process %d did not move to %s", pid, s.place.dirs[i]), err)
		}
	}
	return nil
}

func (s *seat) close() {
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
}

// moveTo moves every process in the cgroup and below it to another, and returns when none is left: what forked meanwhile is
// found where its parent was.
func (p Place) moveTo(to Place) error {
	if err := to.make(); err != nil {
		return err
	}
	for range mostMoves {
		pids, err := p.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := to.take(pid); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("processes of %s fork faster than they can be moved", p.dirs[0])
}

// take moves a process here; one that is gone needs no place.
func (p Place) take(pid int) error {
	for _, dir := range p.dirs {
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// mostMoves is how often the processes of one cgroup are looked for before that is given up.
const mostMoves = 100

// remove removes the cgroup if nothing lives in it, and reports whether it is gone.
func (p Place) remove() bool {
	gone := true
	for _, dir := range p.dirs {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			gone = false
		}
	}
	return gone
}

// pids lists every process in the cgroup and below it, in any tree.
func (p Place) pids() ([]int, error) {
	var all []int
	for _, dir := range p.dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return ignoreGone(err)
			}
			if d.IsDir() {
				pids, err := readPIDs(filepath.Join(path, "cgroup.procs"))
				all = append(all, pids...)
				return ignoreGone(err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// kill ends every process in the cgroup and below it, and returns when none is left. cgroup.kill takes them all at
// once; without it (v1, Linux < 5.14) it sweeps until a sweep finds nobody, so that a fork in between does not escape.
func (p Place) kill(ctx context.Context) error {
	for {
		for _, dir := range p.dirs {
			err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
		pids, err := p.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			p.killOne(pid)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of %s did not die: %w", len(pids), p.dirs[0], ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// killOne kills one process, held by a pidfd so that a reused number is not hit: it is looked up again in the
// cgroup after the pidfd is taken.
func (p Place) killOne(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if pids, err := p.pids(); err != nil || !slices.Contains(pids, pid) {
		return
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone already is what we want; the caller counts the living
}

func readPIDs(procs string) ([]int, error) {
	data, err := os.ReadFile(procs)
	if err != nil {
		return nil, err
	}
	return parsePIDs(data)
}

func parsePIDs(data []byte) ([]int, error) {
	var pids []int
	for line := range bytes.Lines(data) {
		pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// ignoreGone forgives a cgroup that went away while it was read.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
