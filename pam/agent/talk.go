package agent

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// talk is one connection that was taken, for as long as one exchange may last. The thread that took it reads and writes it.
type talk struct {
	fd    int
	until time.Time // a timer of the kernel's, not a window: real time
}

func newTalk(fd int) *talk { return &talk{fd: fd, until: time.Now().Add(exchange)} }

// Read reads what has come, or waits for it until the exchange is over.
func (t *talk) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(t.fd, b)
		switch {
		case err == unix.EAGAIN:
			if err := t.wait(unix.POLLIN); err != nil {
				return 0, err
			}
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all of b; who hangs up meanwhile raises no signal here.
func (t *talk) Write(b []byte) (int, error) {
	wrote := 0
	for wrote < len(b) {
		n, err := unix.SendmsgN(t.fd, b[wrote:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			if err := t.wait(unix.POLLOUT); err != nil {
				return wrote, err
			}
		case err == unix.EINTR:
		case err != nil:
			return wrote, os.NewSyscallError("send", err)
		default:
			wrote += n
		}
	}
	return wrote, nil
}

// wait waits until the connection can be read or written, or the exchange is over.
func (t *talk) wait(events int16) error {
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: events}}
	for {
		left := time.Until(t.until)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}

// saidAll ends our side: the other reads to the end.
func (t *talk) saidAll() error {
	return os.NewSyscallError("shutdown", unix.Shutdown(t.fd, unix.SHUT_WR))
}

// keep gives the connection away, to be read without any end. The caller closes what it gets.
func (t *talk) keep() *os.File {
	line := os.NewFile(uintptr(t.fd), "line")
	t.fd = -1
	return line
}

func (t *talk) close() {
	if t.fd >= 0 {
		_ = unix.Close(t.fd)
	}
	t.fd = -1
}
