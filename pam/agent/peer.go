package agent

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process names one process for ever: a pid alone is reused.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, /proc/PID/stat field 22; 0 when it was not seen in time
}

// peer is who asks, as the kernel says it. What the question says about its caller is never believed over this.
type peer struct {
	PID       int
	effective uint32 // SO_PEERCRED: 0 for everything setuid (F22)
	real      uint32 // the uid that started the setuid program
	pidfd     int    // holds the process: while it lives, its number is given to no other
}

// peerOf asks the kernel about the other end of a connected socket. The caller closes the peer.
func peerOf(fd int) (*peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, err
	}
	if cred.Pid <= 0 {
		return nil, errors.New("no pid: the caller lives in another pid namespace")
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil { // Linux before 6.5
		pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err != nil {
		return nil, err
	}
	p := &peer{PID: int(cred.Pid), effective: cred.Uid, pidfd: pidfd}
	if err := p.read(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// read asks for the real uid: through the pidfd on Linux 6.13 and later, else from /proc, with a look at the pidfd after it.
func (p *peer) read() error {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CREDS}
	if err := unix.IoctlPidfdInfo(p.pidfd, &info); err == nil && info.Mask&unix.PIDFD_INFO_CREDS != 0 {
		p.real = info.Ruid
		return nil
	}
	real, err := realUID(p.PID)
	if err != nil {
		return err
	}
	p.real = real
	return p.alive()
}

// process returns the process with its start time, by which it is known again over an agent's restart.
func (p *peer) process() (process, error) {
	start, err := startTime(p.PID)
	if err != nil {
		return process{}, err
	}
	return process{p.PID, start}, p.alive()
}

// alive reports whether the process that connected is still that pid: while the pidfd's process lives, its number is not
// given again. It is asked after everything read or done by number.
func (p *peer) alive() error {
	if err := unix.PidfdSendSignal(p.pidfd, 0, nil, 0); err != nil {
		return fmt.Errorf("process %d is gone: %w", p.PID, err)
	}
	return nil
}

func (p *peer) close() { unix.Close(p.pidfd) }

// procBuffer holds either file whole; what stands behind it is not looked at.
const procBuffer = 4096

// readProc reads the beginning of one of a process's files in one go.
func readProc(pid int, name string, buffer *[procBuffer]byte) ([]byte, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/" + name
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buffer[:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return buffer[:n], nil
}

// realUID reads the first number after "Uid:" in /proc/PID/status.
func realUID(pid int) (uint32, error) {
	var buffer [procBuffer]byte
	data, err := readProc(pid, "status", &buffer)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasPrefix(line, []byte("Uid:")) {
			continue
		}
		fields := strings.Fields(string(line))
		if len(fields) != 5 {
			break
		}
		uid, err := strconv.ParseUint(fields[1], 10, 32)
		return uint32(uid), err
	}
	return 0, fmt.Errorf("process %d: no Uid in its status", pid)
}

// startTime reads field 22 of /proc/PID/stat, counted from behind the last ')': a process chooses its own name.
func startTime(pid int) (uint64, error) {
	var buffer [procBuffer]byte
	data, err := readProc(pid, "stat", &buffer)
	if err != nil {
		return 0, err
	}
	end := bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[end+1:]))
	const startField = 22 - 3 // the state, field 3, stands first behind the name
	if end < 0 || len(fields) <= startField {
		return 0, fmt.Errorf("process %d: its stat is cut short", pid)
	}
	return strconv.ParseUint(fields[startField], 10, 64)
}
