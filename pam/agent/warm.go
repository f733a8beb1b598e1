package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Moving a process between cgroups takes the kernel's one lock for that, whose first writer after a pause waits for an RCU
// grace period: 0.03 ms when somebody moved something in the last 15 ms, 6–15 ms when not (FACTS F21, measured again on
// 6.18). So from the moment somebody knocks, the agent moves itself to where it is, every 8 ms, for as long as the next
// start is likely: 0.3 % of one CPU for that while, and nothing when nobody comes.
const (
	warmEvery = 8 * time.Millisecond
	warmFor   = 2 * time.Second
)

// knocked says that a start is likely. It wakes nobody who is awake.
func (a *Agent) knocked() {
	until := int64(a.Clock.Boot() + warmFor)
	if a.warmUntil.Swap(until) < int64(a.Clock.Boot()) {
		poke(a.knock)
	}
}

// keepWarm runs until ctx ends. What it does changes nothing, so nothing it fails at matters.
func (a *Agent) keepWarm(ctx context.Context) {
	procs, err := unix.Open(a.OwnProcs, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(procs)
	for ctx.Err() == nil {
		for int64(a.Clock.Boot()) < a.warmUntil.Load() && ctx.Err() == nil {
			_, _ = unix.Write(procs, []byte("0"))
			select {
			case <-ctx.Done():
			case <-a.Clock.After(warmEvery):
			}
		}
		select {
		case <-ctx.Done():
		case <-a.knock:
		}
	}
}

// OwnProcs finds the cgroup.procs file of the cgroup we live in ourselves: writing 0 to it moves nobody anywhere.
func OwnProcs(trees []Tree) (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(data) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(fields) != 3 || fields[0] != "0" && fields[1] != "name=systemd" {
			continue
		}
		for _, t := range trees {
			if v1 := filepath.Base(string(t)) == "systemd"; v1 == (fields[0] != "0") {
				return filepath.Join(string(t), fields[2], "cgroup.procs"), nil
			}
		}
	}
	return "", fmt.Errorf("own cgroup not found in %v", trees)
}
