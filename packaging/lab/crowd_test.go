//go:build lab

package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// crowd is people who ask, approve, deny, withdraw, return and revoke without pause, with their own keys, from this process on the
// lab's network, so that a kill can hit a statement at a known step of its way. Every answer is kept for held to check, and
// somebody reads at each broker all the time what was acknowledged already.
type crowd struct {
	settled
	t      *testing.T
	world  *forger.World
	anyone map[statement.Person]*api.Client // asks whichever broker answers
	one    map[string]*api.Client           // frank's, asks one broker

	telling  sync.RWMutex // held for reading while a story is told
	stop     func()       // tells everybody to stop
	people   sync.WaitGroup
	underWay atomic.Int32
	strike   atomic.Pointer[strike]

	mu    sync.Mutex
	kept  []answered
	reads map[string][]time.Time // when reads were sent that the broker answered
	beats []beat
	known fact
}

// beat is a broker's word that a stream has said, at some time, everything up to an index.
type beat struct {
	broker string
	at     statement.Time
	index  uint64
}

// answered is a statement whose outcome its sender was told.
type answered struct {
	proof   statement.Proof
	answer  api.Answer
	refused error
	at      time.Time
}

// fact is something that was acknowledged about a grant.
type fact struct {
	grant broker.GrantID
	ended bool
}

// storyEvery is how often each of the crowd begins a story, if the last one is over. Nobody's key may file more than ten
// statements a second for long, and brokers keep what was over within the hour in their state: tens of thousands of requests in an
// hour, which is no company's, would make each start slow.
func storyEvery() time.Duration {
	if soaking() {
		return 2 * time.Second
	}
	return 500 * time.Millisecond
}

// newCrowd has everybody's keys at hand; nobody begins yet.
func newCrowd(t *testing.T, s settled) *crowd {
	t.Helper()
	c := &crowd{settled: s, t: t, world: s.world(t), anyone: map[statement.Person]*api.Client{}, one: map[string]*api.Client{},
		reads: map[string][]time.Time{}}
	for _, person := range forger.Everybody {
		c.anyone[person] = c.client(person, "")
	}
	for _, b := range brokers {
		c.one[b] = c.client("frank", b+":7443")
	}
	return c
}

// world is the lab's own deployment, with the people's private keys.
func (s settled) world(t testing.TB) *forger.World {
	t.Helper()
	w := &forger.World{T: t, People: map[statement.Person]ssh.Signer{}}
	for _, person := range forger.Everybody {
		signer, err := ssh.ParsePrivateKey(s.Get(t, "desk", "/home/"+string(person)+"/.ssh/id_ed25519"))
		if err != nil {
			t.Fatal(err)
		}
		w.People[person] = signer
	}
	first, err := statement.ParseProof(bytes.TrimSpace(s.Get(t, "desk", "/srv/chain")))
	if err != nil {
		t.Fatal(err)
	}
	if w.Chain, err = policy.Genesis(first); err != nil {
		t.Fatal(err)
	}
	return w
}

func (c *crowd) client(person statement.Person, address string) *api.Client {
	c.t.Helper()
	chain := c.world.Chain
	client, err := api.NewClient(api.Config{Policy: chain.Current(), Address: address, Dial: c.Dial, Reader: &api.Reader{Person: person,
		Deployment: chain.Deployment(), Policy: chain.Ref, Signer: c.world.People[person], Now: forger.Now, Random: rand.Reader}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// begin lets everybody tell their stories, drawn from a seed, until quit or the end of the test.
func (c *crowd) begin(seed uint64) {
	stop := make(chan struct{})
	c.stop = sync.OnceFunc(func() { close(stop) })
	for i, line := range []struct {
		person statement.Person
		story  func(*crowd, *mathrand.Rand, statement.Person)
	}{
		{"alice", (*crowd).needsNobody}, {"erin", (*crowd).needsNobody}, {"alice", (*crowd).needsOne}, {"erin", (*crowd).needsOne}, {"bob", (*crowd).needsTwo},
	} {
		draw := mathrand.New(mathrand.NewPCG(seed, uint64(i)))
		c.people.Go(func() { c.again(stop, func() { line.story(c, draw, line.person) }) })
	}
	for _, b := range brokers {
		c.people.Go(func() { c.again(stop, func() { c.read(b) }) })
		c.people.Go(func() { c.follow(stop, b) })
	}
	c.t.Cleanup(c.quit)
}

// again tells a story over and over. Nothing is left half told, unless the test is over.
func (c *crowd) again(stop <-chan struct{}, tell func()) {
	pace := time.NewTicker(storyEvery())
	defer pace.Stop()
	for {
		select {
		case <-stop:
			return
		case <-c.t.Context().Done():
			return
		case <-pace.C:
			c.telling.RLock()
			tell()
			c.telling.RUnlock()
		}
	}
}

// quit lets everybody finish their story and go.
func (c *crowd) quit() {
	c.stop()
	c.people.Wait()
}

// needsNobody asks for what is granted at once, and gives it back.
func (c *crowd) needsNobody(draw *mathrand.Rand, person statement.Person) {
	asked := c.world.Ask(person, "web-deploy", "web1", 600, c.world.People[person], nil)
	if c.accepted(person, asked) {
		c.ends(draw, person, asked)
	}
}

// needsOne asks for what one approver grants, or denies, or the asker withdraws, or two of these at once.
func (c *crowd) needsOne(draw *mathrand.Rand, person statement.Person) {
	asked := c.world.Ask(person, "db-admin", "db1", 600, c.world.People[person], nil)
	if !c.accepted(person, asked) {
		return
	}
	approver := []statement.Person{"bob", "carol", "gwen"}[draw.IntN(3)]
	approve := filing{approver, c.world.Approve(approver, asked, nil)}
	deny := filing{"carol", c.decide("carol", statement.Deny, asked)}
	withdraw := filing{person, c.end(person, statement.Withdraw, asked)}
	granted := false
	switch draw.IntN(6) {
	case 0:
		c.accepted(deny.by, deny.proof)
	case 1:
		c.accepted(withdraw.by, withdraw.proof)
	case 2:
		approve = filing{"gwen", c.world.Approve("gwen", asked, nil)}
		granted = c.oneOf(approve, deny) == 0
	case 3:
		granted = c.oneOf(approve, withdraw) == 0
	default:
		granted = c.accepted(approve.by, approve.proof)
	}
	if granted {
		c.ends(draw, person, asked)
	}
}

// needsTwo asks for what two approvers grant, who may decide at the same time.
func (c *crowd) needsTwo(draw *mathrand.Rand, person statement.Person) {
	asked := c.world.Ask(person, "root", "db1", 600, c.world.People[person], nil)
	if !c.accepted(person, asked) {
		return
	}
	var both sync.WaitGroup
	var approved atomic.Int32
	for _, approver := range []statement.Person{"carol", "gwen"} {
		both.Go(func() {
			if c.accepted(approver, c.world.Approve(approver, asked, nil)) {
				approved.Add(1)
			}
		})
	}
	both.Wait()
	if approved.Load() == 2 {
		c.ends(draw, person, asked)
	}
}

// ends ends the grant that a request became: its holder does, an operator does, or both at once.
func (c *crowd) ends(draw *mathrand.Rand, person statement.Person, asked statement.Proof) {
	grant := broker.StemOf(asked.Hash()).Grant()
	c.learn(fact{grant, false})
	var ended bool
	back := filing{person, c.end(person, statement.Return, asked)}
	revoke := filing{"dave", c.end("dave", statement.Revoke, asked)}
	switch draw.IntN(4) {
	case 0:
		ended = c.oneOf(back, revoke) >= 0
	case 1:
		ended = c.accepted(revoke.by, revoke.proof)
	default:
		ended = c.accepted(back.by, back.proof)
	}
	if ended {
		c.learn(fact{grant, true})
	}
}

func (c *crowd) decide(by statement.Person, verdict statement.Verdict, asked statement.Proof) statement.Proof {
	return c.world.Sign(statement.Decision{Head: c.world.Head(statement.KindDecision, by), Request: asked.Hash(), Verdict: verdict}, by)
}

func (c *crowd) end(by statement.Person, how statement.How, asked statement.Proof) statement.Proof {
	end := statement.End{Head: c.world.Head(statement.KindEnd, by), How: how}
	stem := broker.StemOf(asked.Hash())
	if how == statement.Withdraw {
		end.Request = string(stem.Request())
	} else {
		end.Grant = string(stem.Grant())
	}
	return c.world.Sign(end, by)
}

// filing is a statement that somebody is about to file.
type filing struct {
	by    statement.Person
	proof statement.Proof
}

// accepted files a statement that nothing speaks against, and reports whether it was taken: what rests on it has no ground else.
func (c *crowd) accepted(by statement.Person, proof statement.Proof) bool {
	err := c.file(filing{by, proof})
	if err != nil && c.t.Context().Err() == nil {
		c.t.Errorf("%s is refused: %v\n%s", by, err, proof.Payload)
	}
	return err == nil
}

// oneOf files two statements at once that exclude each other, and returns which was accepted.
func (c *crowd) oneOf(filings ...filing) int {
	var all sync.WaitGroup
	refusals := make([]error, len(filings))
	for i, f := range filings {
		all.Go(func() { refusals[i] = c.file(f) })
	}
	all.Wait()
	if (refusals[0] == nil) == (refusals[1] == nil) && c.t.Context().Err() == nil {
		c.t.Errorf("of two statements that exclude each other, one must be refused: %v\n%s\n%s", refusals, filings[0].proof.Payload, filings[1].proof.Payload)
	}
	return slices.Index(refusals, nil)
}

// file sends a statement to whichever broker answers.
func (c *crowd) file(f filing) error { return c.fileBy(c.anyone[f.by], f.proof) }

// patience is how long somebody sends the same statement again. Brokers take none that is older than a minute.
const patience = 45 * time.Second

// fileBy sends a statement until its outcome is known, as pim-ssh does, and keeps the answer; the error is the refusal.
func (c *crowd) fileBy(client *api.Client, proof statement.Proof) error {
	c.underWay.Add(1)
	defer c.underWay.Add(-1)
	ctx := httptrace.WithClientTrace(c.t.Context(), &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { c.reached(leaves) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { c.reached(left) },
		GotFirstResponseByte: func() { c.reached(answers) },
	})
	for begun := time.Now(); ; {
		answer, err := client.Submit(ctx, proof)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if broker.KindOf(err) == broker.Unavailable && time.Since(begun) < patience {
			continue
		}
		if broker.KindOf(err) == broker.Unavailable {
			c.t.Errorf("not answered for %v: %v\n%s", patience, err, proof.Payload)
			c.stop()
			return err
		}
		c.mu.Lock()
		c.kept = append(c.kept, answered{proof, answer, err, time.Now()})
		c.mu.Unlock()
		return err
	}
}

// after is how long after a moment the next statement was answered; 0: none yet. An answer that was on its way when a broker
// died may still be heard for a moment.
func (c *crowd) after(moment time.Time) time.Duration {
	const onItsWay = 50 * time.Millisecond
	c.mu.Lock()
	defer c.mu.Unlock()
	first := time.Duration(0)
	for i := len(c.kept) - 1; i >= 0 && c.kept[i].at.Sub(moment) > onItsWay; i-- {
		first = c.kept[i].at.Sub(moment)
	}
	return first
}

func (c *crowd) learn(f fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = f
}

// read asks one broker about what was acknowledged last, before the question was sent: it may refuse to answer, but not
// know less.
func (c *crowd) read(at string) {
	c.mu.Lock()
	known, sent := c.known, time.Now()
	c.mu.Unlock()
	if known.grant == "" {
		return
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	grant, err := c.one[at].Grant(ctx, string(known.grant))
	switch {
	case broker.KindOf(err) == broker.Unavailable || c.t.Context().Err() != nil:
		return
	case err != nil:
		c.t.Errorf("%s does not know %s, which was acknowledged: %v", at, known.grant, err)
	case known.ended && (grant.Phase == broker.PhaseActive || grant.Phase == broker.PhaseWaiting):
		c.t.Errorf("%s says that %s is %s, and its end was acknowledged", at, known.grant, grant.Phase)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads[at] = append(c.reads[at], sent)
}

// follow watches at one broker and keeps its beats, and watches again when the stream ends.
func (c *crowd) follow(stop <-chan struct{}, at string) {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	pause := time.NewTicker(storyEvery())
	defer pause.Stop()
	var after *uint64
	for ctx.Err() == nil {
		stream, err := c.one[at].Watch(ctx, after)
		if err == nil {
			c.hear(stream, at)
			after = stream.Position()
			stream.Close()
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func (c *crowd) hear(stream *api.Stream, at string) {
	for {
		frame, err := stream.Next()
		if err != nil {
			return
		}
		if frame.Beat != 0 && frame.Index != nil {
			c.mu.Lock()
			c.beats = append(c.beats, beat{at, frame.Beat, *frame.Index})
			c.mu.Unlock()
		}
	}
}

// answeredAfter counts the reads that were sent to a broker after a moment and answered.
func (c *crowd) answeredAfter(at string, moment time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, sent := range c.reads[at] {
		if sent.After(moment) {
			n++
		}
	}
	return n
}

// kinds counts what was acknowledged, by kind of statement and verdict.
func (c *crowd) kinds() (accepted, refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.kept {
		if k.refused == nil {
			accepted++
		} else {
			refused++
		}
	}
	return accepted, refused
}
