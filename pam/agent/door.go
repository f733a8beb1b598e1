package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// door is one listening socket. A few threads wait at it in the kernel, and the one that takes a connection answers it itself:
// sudo waits for every hand that its question goes through, and a sleeping one costs it more than the answer does.
type door struct {
	fd    int // the socket
	over  int // an eventfd: readable once nobody is taken any more
	clock Clock
	log   *slog.Logger

	answering sync.WaitGroup // who stands at the door, or answers
	attending sync.WaitGroup // who hears what becomes of a session
	idle      atomic.Int32   // how many wait for the next connection
	all       atomic.Int32   // how many there are
}

const (
	// atOnce is how many questions one socket answers at a time; more wait in the backlog.
	atOnce = 64
	// standing is how many wait at a door when nobody comes.
	standing = 4
	// scarce is how long one waits for what the machine is out of: descriptors, memory.
	scarce = 100 * time.Millisecond
)

// newDoor takes a socket over from net, whose own poller would be woken by every connection as well.
func newDoor(l *net.UnixListener, c Clock, log *slog.Logger) (*door, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &door{clock: c, log: log}
	var inner error
	if err := raw.Control(func(fd uintptr) { d.fd, inner = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || inner != nil {
		return nil, errors.Join(err, inner)
	}
	if d.over, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(d.fd))
	}
	l.SetUnlinkOnClose(false)
	return d, l.Close()
}

// serve has every connection answered until ctx ends, and returns when the last of them is over; it closes the door. What
// nobody took waits in the kernel for the next agent.
func (d *door) serve(ctx context.Context, answer func(*talk)) error {
	shut := context.AfterFunc(ctx, func() { _, _ = unix.Write(d.over, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer shut()
	var ears []int
	var err error
	for len(ears) < standing && err == nil {
		var ear int
		if ear, err = d.ear(); err == nil {
			ears = append(ears, ear)
		}
	}
	for _, ear := range ears {
		if err == nil {
			d.stand(ctx, ear, answer)
			continue
		}
		_ = unix.Close(ear)
	}
	d.answering.Wait()
	d.attending.Wait()
	return errors.Join(err, unix.Close(d.fd), unix.Close(d.over))
}

// ear is an epoll instance for one who waits: a connection wakes one of them, the end wakes all.
func (d *door) ear() (int, error) {
	ear, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("epoll: %w", err)
	}
	err = errors.Join(
		unix.EpollCtl(ear, unix.EPOLL_CTL_ADD, d.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE}),
		unix.EpollCtl(ear, unix.EPOLL_CTL_ADD, d.over, &unix.EpollEvent{Events: unix.EPOLLIN}))
	if err != nil {
		return -1, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(ear))
	}
	return ear, nil
}

// stand adds one at the door, who takes over the ear and leaves again when enough others wait.
func (d *door) stand(ctx context.Context, ear int, answer func(*talk)) {
	d.all.Add(1)
	d.idle.Add(1)
	d.answering.Go(func() {
		defer unix.Close(ear)
		defer d.all.Add(-1)
		for {
			t := d.next(ctx, ear)
			left := d.idle.Add(-1)
			if t == nil {
				return
			}
			if left == 0 {
				d.answering.Go(func() { d.another(ctx, answer) })
			}
			answer(t)
			t.close()
			if d.idle.Add(1) > standing {
				d.idle.Add(-1)
				return
			}
		}
	})
}

// another adds one because all who are there answer. Where there is no descriptor for its ear, those go on alone.
func (d *door) another(ctx context.Context, answer func(*talk)) {
	if d.all.Load() >= atOnce {
		return
	}
	if ear, err := d.ear(); err == nil {
		d.stand(ctx, ear, answer)
	}
}

// next waits for the next connection; nil when ctx has ended. A machine that has no descriptor or memory left for one now has
// it again later, and the agent is still there then.
func (d *door) next(ctx context.Context, ear int) *talk {
	var event [1]unix.EpollEvent
	for said := false; ; {
		_, err := unix.EpollWait(ear, event[:], -1)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			var fd int
			if fd, _, err = unix.Accept4(d.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
				return newTalk(fd)
			}
		}
		switch err {
		case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED: // another was faster; a signal; it has gone again
			continue
		}
		if !said {
			d.log.Error("no connection taken, trying again", "error", err)
		}
		said = true
		select {
		case <-ctx.Done():
		case <-d.clock.After(scarce):
		}
	}
}
