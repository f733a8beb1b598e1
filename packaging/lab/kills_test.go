//go:build lab

package lab

import (
	"math"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pim-ssh/packaging/lab/labtest"
)

// soaking says whether this is `make soak`, which runs everything at length.
func soaking() bool { return os.Getenv("LAB_SOAK") != "" }

// seeded is LAB_SEED, or 1: what a test draws follows from it.
func seeded(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(1)
	if text := os.Getenv("LAB_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("LAB_SEED: %v", err)
		}
	}
	t.Logf("LAB_SEED=%d", seed)
	return seed
}

// TestBrokersKilledUnderLoad kills the leader again and again while people do everything that people do, each time at a seeded
// step of some statement's way; then all brokers at once. Nothing that was answered may be lost or come twice, nobody's command
// may fail, the states must be the same, and the next write may not be far.
func TestBrokersKilledUnderLoad(t *testing.T) {
	s := settled{labtest.Up(t, "--brokers", "3")}
	for _, host := range []string{"db1", "web1"} { // what they would make of the grants is no part of this
		s.KillMachine(t, host)
	}
	leaders, all := 15, 5
	if soaking() {
		leaders, all = 200, 50
	}
	seed := seeded(t)
	draw := mathrand.New(mathrand.NewPCG(seed, 9))
	c := newCrowd(t, s)
	c.begin(seed)
	typed := s.types(t, "erin")
	var took []time.Duration
	hit := 0
	leader := s.leader(t)
	for range leaders {
		killed, underWay := c.killAt(t, draw, s.running(t, leader, "/usr/sbin/pim-brokerd run"))
		hit += underWay
		labtest.WaitFor(t, "an answer", 15*time.Second, func() bool { return c.after(killed) != 0 })
		took = append(took, c.after(killed))
		leader = s.back(t, leader)
	}
	slices.Sort(took)
	p50, most := took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond)
	t.Logf("leader killed %d times, with %d statements under way: next answer p50 %v, max %v", leaders, hit, p50, most)
	if p50 > 1500*time.Millisecond || most > 3*time.Second {
		t.Errorf("want p50 1.5 s and max 3 s at most: %v", took)
	}
	t.Logf("erin's own commands meanwhile: %d, none failed", typed())
	took, hit = nil, 0
	for range all {
		var pids []int
		for _, b := range brokers {
			pids = append(pids, s.running(t, b, "/usr/sbin/pim-brokerd run")...)
		}
		killed, underWay := c.killAt(t, draw, pids)
		hit += underWay
		labtest.WaitFor(t, "an answer", 20*time.Second, func() bool { return c.after(killed) != 0 })
		took = append(took, c.after(killed))
		s.back(t)
		c.telling.Lock()
		c.agree(t)
		c.telling.Unlock()
	}
	slices.Sort(took)
	t.Logf("all three killed at once %d times, with %d statements under way: same digest after each; next answer p50 %v, max %v",
		all, hit, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	c.held(t)
}

// types has a person use pim-ssh itself on desk, without pause; the returned function ends that, fails the test if a command
// failed, and counts them.
func (s settled) types(t *testing.T, person string) (done func() int) {
	t.Helper()
	const line = `n=400; while [ ! -e /tmp/enough ]; do n=$((n+1))
  id=$(pim-ssh request web-deploy@web1 --for ${n}s --why load --no-wait --quiet) && echo asked && pim-ssh return "g-${id#r-}" --quiet >/dev/null && echo returned || echo failed $?
done`
	typing := s.BeginLab(t, "as", person, "--", "sh", "-c", line)
	typing.Expect(t, "returned", 10*time.Second)
	return func() int {
		t.Helper()
		s.Exec(t, "desk", "touch", "/tmp/enough").Want(t, 0)
		said := typing.Wait(t, 30*time.Second).Want(t, 0).Out
		if strings.Contains(said, "failed") {
			t.Errorf("a person's command failed:\n%s", said)
		}
		return strings.Count(said, "\n")
	}
}

// step is where on its way a statement is.
type step int

// The steps that this process sees. What a broker does with it falls between left and answers.
const (
	leaves step = iota
	left
	answers
	whenever // no statement's step
)

// strike waits for the next statement that reaches a step.
type strike struct {
	at   step
	once sync.Once
	hit  func()
}

// reached lets a strike come down that waits for this step.
func (c *crowd) reached(at step) {
	if s := c.strike.Load(); s != nil && s.at == at {
		s.once.Do(s.hit)
	}
}

// killAt kills processes at once, at a moment drawn: most often while a statement is written to the disks, which takes a few
// milliseconds from its leaving here to the answer. It returns when that was, and how many statements were under way.
func (c *crowd) killAt(t *testing.T, draw *mathrand.Rand, pids []int) (killed time.Time, underWay int) {
	t.Helper()
	at, pause := left, time.Duration(50*math.Exp2(9*draw.Float64()))*time.Microsecond // 50 µs to 26 ms, short ones as often as long ones
	switch n := draw.IntN(20); {
	case n < 2:
		at, pause = leaves, 0
	case n < 5:
		at, pause = answers, 0
	case n < 7:
		at, pause = whenever, time.Duration(draw.IntN(300))*time.Millisecond
	case n < 8:
		pause = 0
	}
	done := make(chan struct{})
	kill := func() {
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("killing %d: %v", pid, err)
			}
		}
		killed, underWay = time.Now(), int(c.underWay.Load())
		close(done)
	}
	hit := kill
	if pause > 0 {
		hit = func() { time.AfterFunc(pause, kill) }
	}
	if at == whenever {
		hit()
	} else {
		c.strike.Store(&strike{at: at, hit: hit})
		defer c.strike.Store(nil)
	}
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		t.Fatal("no statement reached the step at which to kill")
	}
	return killed, underWay
}
