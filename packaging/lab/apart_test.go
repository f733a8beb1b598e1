//go:build lab

package lab

import (
	mathrand "math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"pim-ssh/packaging/lab/labtest"
)

// TestBrokersApart freezes brokers and parts them in every shape while people do everything that people do: whoever has no
// majority within reach answers nothing, the others go on, nobody fights over who leads, and nothing that was answered is
// lost.
func TestBrokersApart(t *testing.T) {
	t.Parallel()
	s := settled{labtest.Up(t, "--brokers", "3")}
	for _, host := range []string{"db1", "web1"} {
		s.KillMachine(t, host)
	}
	seed := seeded(t)
	c := newCrowd(t, s)
	c.begin(seed)
	freezes := []time.Duration{time.Second, 5 * time.Second}
	if soaking() {
		freezes = append(freezes, time.Minute)
	}
	for _, length := range freezes {
		t.Run("the leader is frozen for "+length.String(), func(t *testing.T) { c.frozen(t, length) })
	}
	for _, r := range rifts {
		t.Run(r.sentence, func(t *testing.T) { c.parted(t, r) })
	}
	draw := mathrand.New(mathrand.NewPCG(seed, 10))
	t.Run("a follower's network comes and goes", func(t *testing.T) { c.flaps(t, draw, theOthers(c.leader(t))[draw.IntN(2)], 0) })
	t.Run("the leader's network comes and goes", func(t *testing.T) { c.flaps(t, draw, c.leader(t), 1) })
	c.back(t)
	c.held(t)
}

// leadership is what the brokers' journals say of who began to lead when.
type leadership struct {
	begun int
	term  uint64
}

var leadsLine = regexp.MustCompile(`(?m)msg=leadership .*leads=true term=([0-9]+)$`)

func (s settled) leaderships(t testing.TB) leadership {
	t.Helper()
	var all leadership
	for _, b := range brokers {
		for _, line := range leadsLine.FindAllStringSubmatch(s.Journal(t, b, "pim-brokerd"), -1) {
			term, err := strconv.ParseUint(line[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			all.begun++
			all.term = max(all.term, term)
		}
	}
	return all
}

// noStorm holds what happened since to so many new leaders. An election that nobody won is a term too.
func (s settled) noStorm(t testing.TB, before leadership, most int) {
	t.Helper()
	now := s.leaderships(t)
	begun, terms := now.begun-before.begun, now.term-before.term
	t.Logf("%d new leaders, %d terms", begun, terms)
	if begun > most || terms > uint64(2*most) {
		t.Errorf("a storm: %d new leaders and %d terms, want %d leaders at most", begun, terms, most)
	}
}

func (s settled) signal(t testing.TB, broker string, what syscall.Signal) {
	t.Helper()
	for _, pid := range s.running(t, broker, "/usr/sbin/pim-brokerd run") {
		if err := syscall.Kill(pid, what); err != nil {
			t.Fatal(err)
		}
	}
}

// frozen stops the leader's process and lets it go on: what it is asked then, and what was asked of it meanwhile, it must not
// answer from what it knew.
func (c *crowd) frozen(t *testing.T, length time.Duration) {
	leader := c.back(t)
	before := c.leaderships(t)
	c.signal(t, leader, syscall.SIGSTOP)
	defer c.signal(t, leader, syscall.SIGCONT)
	froze := time.Now()
	over := time.After(length)
	if length > 3*time.Second {
		c.deposed(t, leader)
		t.Logf("another broker led after %v", time.Since(froze).Round(time.Millisecond))
		c.takes(t, theOthers(leader))
	}
	var asking sync.WaitGroup
	<-time.After(time.Until(froze.Add(length - 100*time.Millisecond)))
	for range 8 { // these lie at its door when it wakes
		asking.Go(func() { c.read(leader) })
	}
	<-over
	c.signal(t, leader, syscall.SIGCONT)
	thawed := time.Now()
	asking.Wait()
	if length > 3*time.Second {
		labtest.WaitFor(t, leader+" to step down", 3*time.Second, func() bool {
			return !c.leads(t, leader)
		})
	}
	c.whole(t, thawed)
	c.noStorm(t, before, 1)
}

// deposed waits until another broker leads.
func (c *crowd) deposed(t *testing.T, leader string) {
	t.Helper()
	labtest.WaitFor(t, "somebody else to lead", 5*time.Second, func() bool {
		return slices.ContainsFunc(theOthers(leader), func(b string) bool { return c.leads(t, b) })
	})
}

// takes files a statement at each of the brokers themselves. People whose pim-ssh was talking to another one may have to wait
// longer: nothing tells a broker that is gone apart from one that is slow.
func (c *crowd) takes(t *testing.T, which []string) {
	t.Helper()
	for _, b := range which {
		begun := time.Now()
		asked := c.world.Ask("erin", "web-deploy", "web1", 60, c.world.People["erin"], nil)
		if err := c.fileBy(c.client("erin", b+":7443"), asked); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s took a statement after %v", b, took)
		}
	}
}

// rift is one way in which brokers lose sight of each other.
type rift struct {
	sentence string
	cut      func(s settled, t *testing.T, leader, one, other string)
	silences func(leader, one string) string // who then has no majority, or no leader, within reach; nil: nobody
	deposes  bool                            // somebody else has to lead
}

func silencesLeader(leader, _ string) string { return leader }

func silencesOne(_, one string) string { return one }

var rifts = []rift{
	{"the followers do not hear each other", func(s settled, t *testing.T, _, one, other string) {
		s.CutTo(t, one, other)
		s.CutTo(t, other, one)
	}, nil, false},
	{"the leader and a follower do not hear each other", func(s settled, t *testing.T, leader, one, _ string) {
		s.CutTo(t, leader, one)
		s.CutTo(t, one, leader)
	}, silencesOne, false},
	{"a follower does not hear the leader", func(s settled, t *testing.T, leader, one, _ string) { s.CutTo(t, leader, one) }, silencesOne, false},
	{"the leader does not hear a follower", func(s settled, t *testing.T, leader, one, _ string) { s.CutTo(t, one, leader) }, silencesOne, false},
	{"nobody hears the leader", func(s settled, t *testing.T, leader, one, other string) {
		s.CutTo(t, leader, one)
		s.CutTo(t, leader, other)
	}, silencesLeader, true},
	{"the leader hears nobody", func(s settled, t *testing.T, leader, one, other string) {
		s.CutTo(t, one, leader)
		s.CutTo(t, other, leader)
	}, silencesLeader, true},
	{"the leader has no network", func(s settled, t *testing.T, leader, _, _ string) { s.Cut(t, leader) }, silencesLeader, true},
}

func (c *crowd) parted(t *testing.T, r rift) {
	leader := c.back(t)
	before, rest, most := c.leaderships(t), theOthers(leader), 0
	heal := sync.OnceFunc(func() {
		for _, b := range brokers {
			c.Heal(t, b)
		}
	})
	defer heal()
	r.cut(c.settled, t, leader, rest[0], rest[1])
	cut := time.Now()
	silenced := ""
	if r.silences != nil {
		silenced = r.silences(leader, rest[0])
	}
	if r.deposes {
		most = 1
		c.deposed(t, leader)
	}
	c.takes(t, theOthers(silenced))
	t.Logf("the others took statements %v after the cut", time.Since(cut).Round(time.Millisecond))
	<-time.After(time.Until(cut.Add(4 * time.Second)))
	c.takes(t, theOthers(silenced))
	if silenced != "" && c.answeredAfter(silenced, cut) > 0 {
		t.Errorf("%s has no majority, or no leader, within reach and answered reads", silenced)
	}
	if silenced == leader && c.leads(t, leader) {
		t.Errorf("%s leads on", leader)
	}
	heal()
	c.whole(t, time.Now())
	c.noStorm(t, before, most)
}

// whole waits until every broker answers again.
func (c *crowd) whole(t *testing.T, since time.Time) {
	t.Helper()
	for _, b := range brokers {
		labtest.WaitFor(t, "an answer from "+b, 10*time.Second, func() bool { return c.answeredAfter(b, since) > 0 })
	}
	labtest.WaitFor(t, "an answer to a statement", 10*time.Second, func() bool { return c.after(since) != 0 })
	t.Logf("all answer again after %v", time.Since(since).Round(time.Millisecond))
}

// flaps takes a broker's network away and gives it back, again and again, for moments shorter and longer than the others'
// patience. It may cost so many leaders each time, and no more than that.
func (c *crowd) flaps(t *testing.T, draw *mathrand.Rand, b string, each int) {
	c.back(t)
	before := c.leaderships(t)
	length := 8 * time.Second
	if soaking() {
		length = time.Minute
	}
	flaps := 0
	for end := time.Now().Add(length); time.Now().Before(end); flaps++ {
		c.Cut(t, b)
		<-time.After(time.Duration(100+draw.IntN(900)) * time.Millisecond)
		c.Heal(t, b)
		<-time.After(time.Duration(100+draw.IntN(900)) * time.Millisecond)
	}
	t.Logf("%d times", flaps)
	c.whole(t, time.Now())
	c.noStorm(t, before, flaps*each+1) // one that a busy machine is good for
}
