package agent

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"pim-ssh/broker"
)

// unitPlace opens a grant's unit in real cgroups.
func unitPlace(t *testing.T, u *cgroupUnits, stem broker.Stem) Place {
	t.Helper()
	u.sudoers = t.TempDir()
	place, err := u.Open(t.Context(), Window{Stem: stem, Until: 1, Remaining: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// put moves one process.
func put(p Place, pid int) error {
	s, err := p.seat()
	if err != nil {
		return err
	}
	defer s.close()
	return s.take(pid)
}

// shell starts a shell in the background; it ends with the test.
func shell(t *testing.T, line string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", line)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = c.Wait(); close(done) }()
	t.Cleanup(func() { _ = c.Process.Kill(); <-done })
	return c
}

func TestASessionIsMovedReadBackAndKilledAlone(t *testing.T) {
	u := newCgroupUnits(t)
	unit := unitPlace(t, u, stemForTests)
	one, two := shell(t, "sleep 600; true"), shell(t, "sleep 600; true")
	for name, c := range map[string]*exec.Cmd{"s-1": one, "s-2": two} {
		if err := put(unit.sub(name), c.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if unit.sub("s-1").remove() {
		t.Error("a cgroup with a process in it was removed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := unit.sub("s-1").kill(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "s-1 removed", unit.sub("s-1").remove)
	if pids, err := unit.sub("s-2").pids(); err != nil || len(pids) == 0 {
		t.Errorf("the other session went too: %v, %v", pids, err)
	}
}

// What forks while the kill walks the tree must not survive it.
func TestNothingForkedInTheKillSurvives(t *testing.T) {
	for sentence, trees := range map[string]int{"by cgroup.kill and by sweeping": 0, "by sweeping the last tree alone": 1} {
		t.Run(sentence, func(t *testing.T) {
			u := newCgroupUnits(t)
			unit := unitPlace(t, u, stemForTests)
			if trees == 1 {
				unit.dirs = unit.dirs[len(unit.dirs)-1:] // on a hybrid machine: v1, which has no cgroup.kill
			}
			session := unit.sub("s-1")
			storm := shell(t, `trap "" TERM HUP; while :; do (setsid sleep 5 &) ; sleep 0.005; done`)
			if err := put(session, storm.Process.Pid); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "twenty processes", func() bool { pids, err := session.pids(); return err == nil && len(pids) > 20 })
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			begun := time.Now()
			if err := unit.kill(ctx); err != nil {
				t.Fatal(err)
			}
			t.Logf("killed in %v", time.Since(begun).Round(time.Millisecond))
			if pids, err := unit.pids(); err != nil || len(pids) != 0 {
				t.Errorf("alive: %v, %v", pids, err)
			}
			waitFor(t, "the session's cgroup stays empty", session.remove)
		})
	}
}

func TestAProcessThatIsGoneIsNotPlaced(t *testing.T) {
	u := newCgroupUnits(t)
	unit := unitPlace(t, u, stemForTests)
	c := exec.Command("/bin/true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if err := put(unit.sub("s-1"), c.Process.Pid); err == nil {
		t.Error("a dead process was placed")
	}
	if err := put(Place{}, 1); err == nil {
		t.Error("a process was placed nowhere")
	}
}

func TestOnlyAUnitsOwnControlGroupIsAPlace(t *testing.T) {
	trees, err := Trees("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"", "/", "/..", "/a/../..", "system.slice/x", "/system.slice//x", "/no-such-group-anywhere"} {
		if p, err := placeOf(trees, group); err == nil {
			t.Errorf("%q is %v", group, p)
		}
	}
}
