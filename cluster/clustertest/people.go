package clustertest

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

const (
	opPatience = 25 * time.Second // how long somebody repeats a statement before they leave it for later
	remembered = 24               // how many of the latest requests people still act on
)

// wish is what a request asks for. Requests for the same have to do with each other; others do not.
type wish struct {
	person statement.Person
	role   statement.RoleName
	hosts  string
}

// asked is a request that somebody signed, whatever came of it.
type asked struct {
	proof statement.Proof
	body  statement.Request
	wish  wish
}

func (a asked) stem() broker.Stem { return broker.StemOf(a.proof.Hash()) }

// board is where people see what has been asked for, whether or not a broker has heard of it.
type board struct {
	mu    sync.Mutex
	all   []asked
	filed []filed // statements that were sent, for whoever repeats them
}

// filed is a statement and what it was about.
type filed struct {
	proof statement.Proof
	op    Op
}

func (b *board) find(hash statement.Hash) (statement.Request, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.all {
		if a.proof.Hash() == hash {
			return a.body, true
		}
	}
	return statement.Request{}, false
}

func (b *board) pin(a asked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, a)
}

func (b *board) sent(f filed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.filed = append(b.filed, f)
}

// pick draws one of the latest.
func (b *board) pick(d *dice) (asked, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all) == 0 {
		return asked{}, false
	}
	latest := b.all[max(0, len(b.all)-remembered):]
	return latest[d.IntN(len(latest))], true
}

func (b *board) again(d *dice) (filed, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.filed) == 0 {
		return filed{}, false
	}
	latest := b.filed[max(0, len(b.filed)-remembered):]
	return latest[d.IntN(len(latest))], true
}

// client is one person at one desk.
type client struct {
	run    *Run
	who    string
	person statement.Person
	dice   *dice // of the step at hand
	number uint64
	spare  ssh.Signer // for certificates
	think  time.Duration
}

// work does one thing after the other until ctx ends.
func (c *client) work(ctx context.Context) {
	for step := c.run.number << 20; ; step++ {
		c.dice = roll(c.run.Seed, streamPeople+c.number, step)
		if pause(ctx, c.think/4+c.dice.upTo(c.think)) != nil {
			return
		}
		c.act(ctx)
	}
}

// act draws what somebody does next. Nobody is kept from trying what is not theirs to do.
func (c *client) act(ctx context.Context) {
	draw := c.dice.IntN(100)
	if draw < 30 {
		c.request(ctx)
		return
	}
	if draw >= 92 {
		if again, any := c.run.board.again(c.dice); any {
			op := again.op
			op.Who = c.who + " again"
			c.file(ctx, &op, again.proof)
		}
		return
	}
	about, any := c.run.board.pick(c.dice)
	switch {
	case !any:
	case draw < 58:
		c.decide(ctx, about)
	case draw < 64:
		c.end(ctx, about, statement.Withdraw)
	case draw < 70:
		c.end(ctx, about, statement.Return)
	case draw < 76:
		c.end(ctx, about, statement.Revoke)
	case draw < 80:
		c.certificate(ctx, about)
	default:
		c.read(ctx, about)
	}
}

// head is a fresh head by the right clock.
func (c *client) head(kind statement.Kind) statement.Head {
	head := c.run.world().Head(kind, c.person)
	head.Created = c.run.cluster.Now()
	head.NotAfter = head.Created + 3600
	return head
}

// about draws what to ask for. Some of it is nobody's to have.
func (c *client) about() (statement.RoleName, []statement.HostName) {
	switch c.dice.IntN(8) {
	case 0, 1, 2:
		return "db-admin", []statement.HostName{"db1"}
	case 3:
		return "db-admin", []statement.HostName{"db1", "db2"}
	case 4:
		return "root", []statement.HostName{"db1"}
	case 5:
		return "root", []statement.HostName{"web1"}
	case 6:
		return "web-deploy", []statement.HostName{"web1"}
	default:
		return "web-deploy", []statement.HostName{[]statement.HostName{"web1", "db1", "ghost"}[c.dice.IntN(3)]}
	}
}

func (c *client) request(ctx context.Context) {
	role, hosts := c.about()
	r := statement.Request{Head: c.head(statement.KindRequest), Role: role, Hosts: hosts, Reason: "chaos",
		Duration: statement.Seconds(5 + c.dice.IntN(40)), Keys: []statement.Key{c.key(c.run.world().People[c.person])}}
	if c.dice.IntN(20) == 0 {
		r.Duration = 10 * 3600 // longer than any role allows
	}
	r.Expires = r.Created + statement.Time(3+c.dice.IntN(25))
	if c.dice.IntN(8) == 0 {
		r.At = r.Created + statement.Time(c.dice.IntN(8))
	}
	proof := c.run.world().Sign(r, c.person)
	a := asked{proof, r, wishOf(r)}
	c.run.board.pin(a)
	c.file(ctx, &Op{Who: c.who, Did: DidRequest, Wish: a.wish, About: proof.Hash(), Person: c.person, Body: r}, proof)
}

func wishOf(r statement.Request) wish {
	w := wish{person: r.Person, role: r.Role}
	for _, h := range r.Hosts {
		w.hosts += string(h) + " "
	}
	return w
}

func (c *client) decide(ctx context.Context, about asked) {
	d := statement.Decision{Head: c.head(statement.KindDecision), Request: about.proof.Hash(), Verdict: statement.Approve}
	switch draw := c.dice.IntN(10); {
	case draw < 2:
		d.Verdict = statement.Deny
	case draw == 2:
		d.Duration = max(1, about.body.Duration-3)
	case draw == 3 && len(about.body.Hosts) > 1:
		d.Hosts = about.body.Hosts[c.dice.IntN(2):][:1]
	}
	c.file(ctx, &Op{Who: c.who, Did: DidDecide, Wish: about.wish, About: about.proof.Hash(), Person: c.person, Body: d}, c.run.world().Sign(d, c.person))
}

func (c *client) end(ctx context.Context, about asked, how statement.How) {
	e := statement.End{Head: c.head(statement.KindEnd), How: how}
	did := DidWithdraw
	switch how {
	case statement.Withdraw:
		e.Request = string(about.stem().Request())
	case statement.Return:
		e.Grant, did = string(about.stem().Grant()), DidReturn
	default:
		e.Grant, did = string(about.stem().Grant()), DidRevoke
	}
	c.file(ctx, &Op{Who: c.who, Did: did, Wish: about.wish, About: about.proof.Hash(), Person: c.person, Body: e}, c.run.world().Sign(e, c.person))
}

func (c *client) certificate(ctx context.Context, about asked) {
	body := statement.Certificate{Head: c.head(statement.KindCertificate), Grant: string(about.stem().Grant()), Key: c.key(c.spare)}
	c.file(ctx, &Op{Who: c.who, Did: DidCertificate, Wish: about.wish, About: about.proof.Hash(), Person: c.person, Body: body}, c.run.world().Sign(body, c.person))
}

func (c *client) key(s ssh.Signer) statement.Key {
	key, err := statement.KeyOf(s.PublicKey())
	if err != nil {
		panic(err)
	}
	return key
}

// file sends a statement until a broker says what came of it: the same bytes, to one broker after the other. Who gives
// up leaves it to be asked for once the cluster is whole again.
func (c *client) file(ctx context.Context, op *Op, proof statement.Proof) {
	op.Proof = proof.Hash()
	op.Call, op.Return, op.Told = 0, 0, told{}
	c.run.history.begin(op)
	c.run.board.sent(filed{proof, *op})
	patience, cancel := context.WithTimeout(ctx, opPatience)
	defer cancel()
	if !c.submit(patience, op, proof) {
		c.run.leave(op, proof)
	}
}

// submit sends a statement until it is answered or ctx ends.
func (c *client) submit(ctx context.Context, op *Op, proof statement.Proof) bool {
	names := c.run.cluster.Names
	at := c.dice.IntN(len(names))
	for {
		heard, err := c.once(ctx, names[at%len(names)], proof)
		if err == nil {
			c.run.history.end(op, heard)
			return true
		}
		at++
		if pause(ctx, 50*time.Millisecond+c.dice.upTo(400*time.Millisecond)) != nil {
			return false
		}
	}
}

// once sends a statement to one broker. An error says that nothing is known.
func (c *client) once(ctx context.Context, at statement.BrokerName, proof statement.Proof) (told, error) {
	got, err := c.run.cluster.call(ctx, at, c.dice.Float64(), post(proof))
	if err != nil {
		return told{}, err
	}
	if got.status != 200 {
		refused := got.problem()
		if refused.Kind == broker.Unavailable {
			return told{}, refused
		}
		return told{kind: refused.Kind, message: refused.Msg}, nil
	}
	var taken api.Answer
	if err := json.Unmarshal(got.body, &taken); err != nil {
		return told{}, err
	}
	heard := told{index: taken.Index, request: taken.Request}
	if taken.Grant != nil {
		heard.grant = *taken.Grant
	}
	return heard, nil
}

// read looks a request up. Reading again is another read: one that nobody answered is as good as never asked.
func (c *client) read(ctx context.Context, about asked) {
	path := "/v1/requests/" + string(about.stem().Request())
	reader := api.Reader{Person: c.person, Deployment: c.run.world().Chain.Deployment(), Policy: c.run.world().Chain.Ref,
		Signer: c.run.world().People[c.person], Now: c.run.cluster.Now, Random: rand.Reader}
	headers, err := reader.Sign("GET", path)
	if err != nil {
		panic(err)
	}
	request := httptest.NewRequest("GET", path, nil)
	request.Header = headers
	op := &Op{Who: c.who, Did: DidRead, Wish: about.wish, About: about.proof.Hash(), Person: c.person}
	c.run.history.begin(op)
	names := c.run.cluster.Names
	got, err := c.run.cluster.call(ctx, names[c.dice.IntN(len(names))], c.dice.Float64(), request)
	heard, err := readAnswer(got, err)
	if err == nil {
		c.run.history.end(op, heard)
	}
}

var errUnread = errors.New("nothing was read")

func readAnswer(got answer, err error) (told, error) {
	if err != nil {
		return told{}, err
	}
	if got.status != 200 {
		refused := got.problem()
		if refused.Kind != broker.Missing {
			return told{}, errUnread // its clock was wrong, or it was busy
		}
		return told{kind: refused.Kind, message: refused.Msg}, nil
	}
	var view api.RequestView
	if err := json.Unmarshal(got.body, &view); err != nil {
		return told{}, err
	}
	heard := told{state: view.State, request: view.ID}
	if view.Grant != nil {
		heard.grant = *view.Grant
	}
	if view.Dossier.Ended != nil {
		heard.ended = view.Dossier.Ended.How
	}
	for _, d := range view.Decisions {
		heard.decisions = append(heard.decisions, d.Person)
	}
	return heard, nil
}

// staff are the people at work: who asks, who approves, who looks after things, and who has no business here.
func (r *Run) staff() []*client {
	var all []*client
	for i, person := range []statement.Person{"alice", "alice", "erin", "bob", "bob", "carol", "gwen", "dave", "mallory"} {
		who := string(person)
		if slices.ContainsFunc(all, func(c *client) bool { return c.who == who }) {
			who += "'"
		}
		all = append(all, &client{run: r, who: who, person: person, number: uint64(i),
			spare: forger.Key(r.world().T), think: r.options.Think})
	}
	return all
}
