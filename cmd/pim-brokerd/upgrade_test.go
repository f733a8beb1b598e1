package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

const top = "../.."

// TestRollingUpgrade takes three brokers from the previous commit's build to this one and back, one by one, while people ask,
// read, and are refused. Nobody sees an error, and all three hold one record.
func TestRollingUpgrade(t *testing.T) {
	from, older := previousBuild(t)
	begun := time.Now()
	r := newTrioOf(t, older)
	people := r.crowd()
	for _, build := range []string{os.Args[0], older} {
		for _, name := range r.names {
			r.replace(name, build)
			people.goOn(10)
		}
		r.audited()
	}
	people.leave()
	r.oneRecord()
	r.checkKept(people.kept)
	if t.Failed() {
		return
	}
	t.Logf("from %s to this build and back in %s: %d statements and %d reads, no error, the longest took %s", from,
		time.Since(begun).Round(time.Millisecond), len(people.kept)+people.refused, people.reads, people.longest.Round(time.Millisecond))
}

// TestRaisingTheRules begins under the rules of an older build, raises them once every broker knows the next, and starts the
// older build again: it says why it does not go on, and stays stopped. The older build is this one, with the newest rules taken
// from it: that needs no history.
func TestRaisingTheRules(t *testing.T) {
	older := buildUnder(t, broker.Rules-1)
	r := newTrioOf(t, older)
	r.replace("b1", os.Args[0])
	r.replace("b2", os.Args[0])
	r.replace("b3", older) // it hands over, if it led
	r.refusesRaise("b3", "upgrade pim-brokerd on b3 first", "does not know rules "+strconv.Itoa(broker.Rules))
	r.replace("b3", os.Args[0])
	r.kill("b3")
	r.refusesRaise("b3", "start it, or: pim-ssh cluster remove b3", "b3 does not answer")
	r.start("b3")
	r.must(r.caughtUp("b3"))
	people := r.crowd()
	r.within(10*time.Second, "the raise", func() bool {
		_, err := r.as("dave").Submit(t.Context(), r.raise(broker.Rules))
		return err == nil
	})
	status, err := r.as("frank").Cluster(t.Context())
	r.must(err)
	if status.Rules != broker.Rules || len(status.Brokers) != 3 {
		t.Errorf("the cluster says %+v", status)
	}
	r.stop("b2")
	r.all["b2"].build = older
	r.refusesToGoOn("b2")
	r.refusesToGoOn("b2") // nor does a second start help
	r.all["b2"].build = os.Args[0]
	r.start("b2")
	r.must(r.caughtUp("b2"))
	people.goOn(10)
	people.leave()
	r.audited()
	r.oneRecord()
	r.checkKept(people.kept)
}

// replace stops a broker in order and starts another build on its disk.
func (r *trio) replace(name statement.BrokerName, build string) {
	r.t.Helper()
	r.stop(name)
	r.all[name].build = build
	r.start(name)
	r.must(r.caughtUp(name))
}

// stop tells a broker to stop and waits for it.
func (r *trio) stop(name statement.BrokerName) {
	r.t.Helper()
	b := r.all[name]
	r.signal(name, syscall.SIGTERM)
	if err := b.cmd.Wait(); err != nil {
		r.t.Fatalf("%s ended with %v:\n%s", name, err, b.said)
	}
	b.cmd = nil
}

func (r *trio) raise(rules int) statement.Proof {
	return r.world.Sign(statement.Cluster{Head: r.world.Head(statement.KindCluster, "dave"), Action: statement.Raise, Rules: rules}, "dave")
}

// refusesRaise has dave raise the rules although one broker is not ready for it.
func (r *trio) refusesRaise(because statement.BrokerName, hint, why string) {
	r.t.Helper()
	var refused *broker.Error
	r.within(10*time.Second, "an answer", func() bool {
		_, err := r.at(r.leader(), "dave").Submit(r.t.Context(), r.raise(broker.Rules))
		refused, _ = err.(*broker.Error)
		return refused == nil || refused.Kind != broker.Unavailable
	})
	if refused == nil || refused.Kind != broker.Conflict || !strings.Contains(refused.Hint, hint) || !strings.Contains(refused.Msg, why) {
		r.t.Errorf("with %s not ready: %+v", because, refused)
	}
}

// refusesToGoOn starts a broker that has to end by itself, with a sentence.
func (r *trio) refusesToGoOn(name statement.BrokerName) {
	r.t.Helper()
	b := r.all[name]
	said := &bytes.Buffer{}
	cmd := r.program(name, "run", "--config", b.config)
	cmd.Stderr = said
	r.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(said.String(), "written by a newer pim-brokerd") {
			r.t.Errorf("%s ended with %v and says\n%s", name, err, said)
		}
	case <-time.After(15 * time.Second):
		cmd.Process.Kill()
		<-ended
		r.t.Errorf("%s goes on under rules it does not know:\n%s", name, said)
	}
}

// oneRecord holds all three brokers to one log, of which one may have read less than another by now.
func (r *trio) oneRecord() {
	r.t.Helper()
	var first [][]byte
	for _, name := range r.names {
		if said := r.all[name].said.String(); strings.Contains(said, "differs") || strings.Contains(said, "panic") {
			r.t.Errorf("%s says\n%s", name, said)
		}
		var log [][]byte
		for _, event := range r.log(name) {
			leaf, err := broker.EncodeEvent(event)
			r.must(err)
			log = append(log, leaf)
		}
		if first == nil {
			first = log
		}
		for i := range min(len(log), len(first)) {
			if !bytes.Equal(log[i], first[i]) {
				r.t.Fatalf("event %d of %s is\n%s\nof %s\n%s", i, name, log[i], r.names[0], first[i])
			}
		}
	}
}

// audited has this build decide every broker's record again, and compare the state's digest with the one that the broker's own
// build signed.
func (r *trio) audited() {
	r.t.Helper()
	chain := r.world.Chain
	for _, name := range r.names {
		source := r.at(name, "frank").Record(r.t.Context())
		var signed audit.Signed
		r.within(10*time.Second, string(name)+"'s checkpoint", func() bool {
			text, err := source(audit.PathCheckpoint)
			if err == nil {
				signed, err = audit.Open(text, chain.Deployment(), chain.Current().LogKeys())
			}
			return err == nil
		})
		if _, err := refold.Verify(refold.Record{Source: source, Signed: signed, Pinned: chain, Now: forger.Now()}, nil); err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
	}
}

// crowd are people who go on using a cluster, and who are told of every error.
type crowd struct {
	r       *trio
	stop    context.CancelFunc
	working sync.WaitGroup

	mu             sync.Mutex
	kept           []acknowledged
	refused, reads int
	longest        time.Duration
}

// lapsing is how long the crowd's grants last: longer than a write may wait for the next leader, and short enough to end
// during a test.
const lapsing = 8

// crowd begins: alice and erin ask for grants, which lapse; mallory is refused; frank reads.
func (r *trio) crowd() *crowd {
	ctx, stop := context.WithCancel(r.t.Context())
	c := &crowd{r: r, stop: stop}
	r.t.Cleanup(stop)
	for _, person := range []statement.Person{"alice", "erin"} {
		client := r.as(person)
		c.every(ctx, 80*time.Millisecond, func() error { return c.asks(ctx, client, person) })
	}
	mallory, frank := r.as("mallory"), r.as("frank")
	c.every(ctx, 200*time.Millisecond, func() error {
		_, err := mallory.Submit(ctx, r.world.Ask("mallory", "db-admin", "web1", 60, r.world.People["mallory"], nil))
		c.count(&c.refused)
		if broker.KindOf(err) == broker.Missing {
			return nil
		}
		return fmt.Errorf("mallory's request: %w", err)
	})
	c.every(ctx, 50*time.Millisecond, func() error {
		_, err := frank.AllRequests(ctx)
		c.count(&c.reads)
		return err
	})
	return c
}

func (c *crowd) count(what *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*what++
}

// every does something again and again until the crowd leaves; an error before that is everybody's.
func (c *crowd) every(ctx context.Context, pause time.Duration, do func() error) {
	c.working.Go(func() {
		again := time.NewTicker(pause)
		defer again.Stop()
		for ctx.Err() == nil {
			begun := time.Now()
			err := do()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				c.r.t.Errorf("somebody saw an error: %v", err)
				return
			}
			if time.Since(begun) > time.Second {
				c.r.t.Logf("%s: %d took %s", begun.Format(time.TimeOnly+".000"), pause, time.Since(begun))
			}
			c.mu.Lock()
			c.longest = max(c.longest, time.Since(begun))
			c.mu.Unlock()
			<-again.C
		}
	})
}

func (c *crowd) asks(ctx context.Context, client *api.Client, person statement.Person) error {
	proof := c.r.world.Ask(person, "web-deploy", "web1", lapsing, c.r.world.People[person], nil)
	answer, err := client.Submit(ctx, proof)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kept = append(c.kept, acknowledged{proof, answer})
	}
	return err
}

// goOn waits until so many more statements were acknowledged.
func (c *crowd) goOn(more int) {
	c.r.t.Helper()
	done := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.kept)
	}
	most := done() + more
	c.r.within(20*time.Second, "statements acknowledged", func() bool { return done() >= most || c.r.t.Failed() })
}

func (c *crowd) leave() {
	c.stop()
	c.working.Wait()
}

// previousBuild builds pim-brokerd of the commit before this one (before the one being written, when something is not yet
// committed); PIM_UPGRADE_FROM names another.
func previousBuild(t *testing.T) (commit, path string) {
	t.Helper()
	commit = os.Getenv("PIM_UPGRADE_FROM")
	if commit == "" {
		commit = "HEAD~1"
		if changed, err := git("status", "--porcelain"); err == nil && len(changed) > 0 {
			commit = "HEAD"
		}
	}
	name, err := git("rev-parse", "--short", "--verify", commit+"^{commit}")
	if err != nil {
		t.Fatalf("there is no previous commit to upgrade from, so this test cannot say anything: it needs a git checkout with history"+
			" (git fetch --unshallow), or PIM_UPGRADE_FROM=COMMIT: %v", err)
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "tar")
	if _, err := git("archive", "--output", archive, commit); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-x", "-f", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(name), build(t, dir)
}

// git asks about this checkout, whoever owns it.
func git(words ...string) (string, error) {
	whole, err := filepath.Abs(top)
	if err != nil {
		return "", err
	}
	cmd := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", whole}, words...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", words[0], err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}

// buildUnder builds this very checkout as if it knew no rules beyond these.
func buildUnder(t *testing.T, rules int) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(top, "broker", "command.go"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^const Rules = \d+$`)
	if !line.Match(source) {
		t.Fatalf("%s says nothing of the newest rules", path)
	}
	dir := t.TempDir()
	older := write(t, dir, "command.go", string(line.ReplaceAll(source, fmt.Appendf(nil, "const Rules = %d", rules))))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: older}})
	if err != nil {
		t.Fatal(err)
	}
	return build(t, top, "-overlay", write(t, dir, "overlay.json", string(overlay)))
}

func build(t *testing.T, top string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pim-brokerd")
	cmd := exec.Command("go", slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, flags, []string{"./cmd/pim-brokerd"})...)
	cmd.Dir, cmd.Env = top, append(os.Environ(), "CGO_ENABLED=0") // as make builds it: the go command remembers
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return path
}
