package labtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Gateway is the address at which the machines see this one, while Inside is used.
const Gateway = "10.77.0.1"

// Inside calls do on the machines' own network: a socket made in there stays there.
func (l *Lab) Inside(t testing.TB, do func() error) {
	t.Helper()
	holder, err := l.holder()
	if err == nil {
		err = inNetwork(holder, do)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// holder is the network's name in /proc.
func (l *Lab) holder() (string, error) {
	pid, err := os.ReadFile(filepath.Join("/run/pim-lab", l.name, "holder"))
	return filepath.Join("/proc", strings.TrimSpace(string(pid)), "ns/net"), err
}

// inNetwork moves this thread, and only this, to a network namespace and back. A thread that cannot come back ends with
// its goroutine.
func inNetwork(path string, do func() error) error {
	theirs, err := os.Open(path)
	if err != nil {
		return err
	}
	defer theirs.Close()
	runtime.LockOSThread()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer ours.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	failed := do()
	if err := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	runtime.UnlockOSThread()
	return failed
}

// Dial connects to a machine's port ("b1:7443") from the lab's own network, where this process is not.
func (l *Lab) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	machine, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	at, err := l.addressOf(machine)
	if err != nil {
		return nil, err
	}
	holder, err := l.holder()
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = inNetwork(holder, func() error {
		var refused error
		conn, refused = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, net.JoinHostPort(at, port))
		return refused
	})
	return conn, err
}

// addressOf reads it from the hosts file that every machine has.
func (l *Lab) addressOf(machine string) (string, error) {
	hosts, err := os.ReadFile(filepath.Join("/run/pim-lab", l.name, "hosts"))
	for line := range strings.Lines(string(hosts)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[1] == machine {
			return fields[0], nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("no machine %s", machine))
}
