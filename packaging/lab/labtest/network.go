package labtest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Gateway is the address at which the machines see this one, while Inside is used.
const Gateway = "10.77.0.1"

// Inside calls do on the machines' own network: a socket made in there stays there.
func (l *Lab) Inside(t testing.TB, do func() error) {
	t.Helper()
	holder, err := os.ReadFile(filepath.Join("/run/pim-lab", l.name, "holder"))
	if err == nil {
		err = inNetwork("/proc/"+strings.TrimSpace(string(holder))+"/ns/net", do)
	}
	if err != nil {
		t.Fatal(err)
	}
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
