package broker

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// walk is a random history: people ask, decide, end, certify, lie and repeat themselves, stewards change the policy, clocks
// run and jump. The core and the naive model see the same.
type walk struct {
	*scene
	rt      *rapid.T
	m       *model
	n       int
	asked   []int // numbers of the requests filed, taken or not
	proofs  map[int]statement.Proof
	sent    []sent
	last    Decided // of the latest step
	then    statement.Time
	granted map[GrantID]Grant // as first opened
	replay  bool              // the latest step was one
	refold  *State            // from the log's first folded events, each encoded and read back
	folded  int
	busy    bool // operators and stewards do nothing but change the cluster
}

type sent struct {
	number int
	proof  statement.Proof
}

var morning = sync.OnceValue(func() []Event {
	return newScene(panicker{}).log
})

type panicker struct{}

func (panicker) Helper()                           {}
func (panicker) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// resume is newScene from its own log.
func resume(t tester) *scene {
	return resumeFrom(t, morning())
}

func resumeFrom(t tester, log []Event) *scene {
	sc := &scene{t: t, s: NewState(), now: dawn, nonces: 1000, light: true}
	for _, e := range log {
		Evolve(sc.s, e)
	}
	sc.log, sc.chain = slices.Clone(log), sc.s.Chain()
	return sc
}

// newWalk begins under rules 1, with one broker, or under rules 2, with four listed.
func newWalk(rt *rapid.T) *walk {
	w := &walk{
		scene: resume(rt), rt: rt, proofs: map[int]statement.Proof{}, granted: map[GrantID]Grant{}, then: dawn, refold: NewState(),
		m: &model{now: int64(dawn), asks: map[int]*modelAsk{}, recorded: map[int]bool{}, policies: []map[string]modelRole{labRoles()}},
	}
	w.m.cluster = &modelCluster{rules: 1, listed: []string{"b1"}, stands: map[string]bool{"b1": true}, gone: map[string]bool{}, holders: map[string]string{}}
	if rapid.Bool().Draw(rt, "rules 2") {
		w.scene = resumeFrom(rt, noon())
		w.m.policies = append(w.m.policies, labRoles())
		w.m.cluster.rules, w.m.cluster.listed = 2, []string{"b1", "b2", "b3", "b4"}
	}
	return w
}

func labRoles() map[string]modelRole {
	approvers := []string{"bob", "carol", "gwen"}
	return map[string]modelRole{
		"db-admin":   {[]string{"alice", "erin"}, approvers, 1, 4 * 3600, 86400, []string{"db1", "db2"}},
		"root":       {[]string{"alice", "bob"}, approvers, 2, 3600, 3600, []string{"db1", "db2", "web1"}},
		"web-deploy": {[]string{"alice", "erin"}, nil, 0, 8 * 3600, 3600, []string{"web1"}},
	}
}

func pick[T any](w *walk, what string, from ...T) T { return rapid.SampledFrom(from).Draw(w.rt, what) }

// odd is true for the few things that are drawn to be strange; most of a walk is what honest people do.
func (w *walk) odd(what string) bool { return rapid.IntRange(0, 7).Draw(w.rt, "odd "+what) == 7 }

// common draws when a statement was made and in how far it is honest: mostly now, mostly by the person it names.
func (w *walk) common(h *statement.Head) (signer string, authentic bool) {
	w.n++
	h.Created = w.now.Add(pick[statement.Seconds](w, "created", 0, -1, -5, -20, 10))
	if w.odd("clock") {
		h.Created = w.now.Add(pick[statement.Seconds](w, "created", -60, -61, -30, 30, 60, 61))
	}
	h.NotAfter = h.Created.Add(300)
	signer = string(h.Person)
	if !w.odd("signer") {
		return signer, true
	}
	signer = pick(w, "forger", "mallory", "alice", "bob", "stranger")
	return signer, signer == string(h.Person)
}

// hand files a statement as the leader, whose clock is not quite right, and lets the model take it too.
func (w *walk) hand(kind CommandKind, p statement.Proof, created statement.Time, authentic bool, take func(now int64) bool) {
	at := w.now.Add(pick[statement.Seconds](w, "leader's clock", 0, 0, 0, -30, 5))
	c := Command{V: CommandVersion, At: at, Kind: kind, Rules: w.s.Rules(), Proof: p}
	w.sent = append(w.sent, sent{w.n, p})
	now, heard := w.m.hear(w.n, int64(created), int64(at), authentic)
	want := heard && take(now)
	d, err := w.apply(c)
	if (err == nil) != want {
		w.rt.Fatalf("the model says %v, the core %v", want, err)
	}
	w.step(d)
}

func (w *walk) step(d Decided) {
	w.last = d
	for _, e := range d.Events {
		if opened, ok := e.(*GrantOpened); ok {
			if _, before := w.granted[opened.Grant.ID]; before {
				w.rt.Fatalf("%s opened twice", opened.Grant.ID)
			}
			w.granted[opened.Grant.ID] = opened.Grant
		}
	}
}

func (w *walk) ask(*rapid.T) {
	role := pick[statement.RoleName](w, "role", "db-admin", "root", "root", "web-deploy")
	person := pick[statement.Person](w, "asker", "alice", "alice", "erin")
	hosts := pick(w, "hosts", []statement.HostName{"db1"}, []statement.HostName{"db2"}, []statement.HostName{"db1", "db2"})
	if role == "web-deploy" {
		hosts = []statement.HostName{"web1"}
	}
	if role == "root" {
		person = pick[statement.Person](w, "asker", "alice", "bob")
	}
	if w.odd("asker") {
		person = pick[statement.Person](w, "asker", "erin", "bob", "mallory")
	}
	if w.odd("hosts") {
		hosts = pick(w, "hosts", []statement.HostName{"web1"}, []statement.HostName{"db2", "web1"})
	}
	r := w.request(person, role, hosts...)
	signer, authentic := w.common(&r.Head)
	r.Duration = pick[statement.Seconds](w, "duration", 20, 600, 1800)
	r.Expires = r.Created.Add(pick[statement.Seconds](w, "expires", 600, 3600))
	if w.odd("limits") {
		r.Duration = pick[statement.Seconds](w, "duration", 3600, 3601, 4*3600, 4*3600+1)
		r.Expires = r.Created.Add(pick[statement.Seconds](w, "expires", 30, 3600, 3601))
	}
	if in := pick[statement.Seconds](w, "scheduled", 0, 0, 0, 60, 1200); in != 0 {
		r.At = r.Created.Add(in)
	}
	p := w.sign(r, key(signer))
	number := w.n
	w.asked, w.proofs[number] = append(w.asked, number), p
	w.hand(FileRequest, p, r.Created, authentic, func(now int64) bool {
		return w.m.file(number, modelAsk{
			person: string(person), role: string(role), hosts: words(hosts), created: int64(r.Created), at: int64(r.At),
			expires: int64(r.Expires), wish: int64(r.Duration), revision: int(r.Policy.Revision),
		}, now)
	})
}

func words[T ~string](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// some draws one of the requests ever made, mostly one that something can still happen to.
func (w *walk) some() (number int, ok bool) {
	from := slices.DeleteFunc(slices.Clone(w.asked), func(number int) bool {
		a := w.m.asks[number]
		return a == nil || a.closedAt != 0
	})
	if len(from) == 0 || w.odd("request") {
		from = w.asked
	}
	if len(from) == 0 {
		return 0, false
	}
	back := rapid.IntRange(0, min(len(from)-1, 3)).Draw(w.rt, "which request, from the last")
	return from[len(from)-1-back], true
}

func (w *walk) decide(*rapid.T) {
	number, ok := w.some()
	if !ok {
		return
	}
	person := pick[statement.Person](w, "approver", "bob", "carol", "carol", "gwen", "gwen")
	if w.odd("approver") {
		person = pick[statement.Person](w, "approver", "alice", "bob", "mallory", "dave")
	}
	verdict := statement.Approve
	if w.odd("verdict") {
		verdict = statement.Deny
	}
	d := w.decision(person, verdict, w.proofs[number])
	signer, authentic := w.common(&d.Head)
	if d.Verdict == statement.Approve {
		d.Duration = pick[statement.Seconds](w, "narrowed to", 0, 0, 0, 300, 900, 3601)
		d.Hosts = pick(w, "narrowed to hosts", nil, nil, nil, []statement.HostName{"db1"}, []statement.HostName{"db2"})
	}
	w.hand(FileDecision, w.sign(d, w.keyOf(signer, authentic)), d.Created, authentic, func(now int64) bool {
		a := w.m.asks[number]
		if d.Verdict == statement.Deny {
			return w.m.deny(a, string(person), now)
		}
		return a != nil && w.m.approve(a, modelYes{string(person), int64(d.Created), words(d.Hosts), int64(d.Duration)}, now)
	})
}

// keyOf is the signer's key; bob has two, and either is bob's.
func (w *walk) keyOf(signer string, authentic bool) ssh.Signer {
	if authentic && signer == "bob" && pick(w, "bob's second key", true, false) {
		return key("bob 2")
	}
	return key(signer)
}

func (w *walk) end(*rapid.T) {
	number, ok := w.some()
	if !ok {
		return
	}
	how, person := statement.Withdraw, statement.Person("alice")
	if a := w.m.asks[number]; a != nil {
		person = statement.Person(a.person)
		if a.state == "approved" || w.odd("end") {
			how = pick(w, "how", statement.Return, statement.Revoke)
		}
	}
	if how == statement.Revoke || w.odd("ender") {
		person = pick[statement.Person](w, "ender", "bob", "carol", "dave", "alice", "erin", "mallory")
	}
	e := statement.End{Head: w.head(statement.KindEnd, person), How: how, Grant: string(StemOf(w.proofs[number].Hash()).Grant())}
	if how == statement.Withdraw {
		e.Grant, e.Request = "", string(StemOf(w.proofs[number].Hash()).Request())
	}
	signer, authentic := w.common(&e.Head)
	w.hand(EndAccess, w.sign(e, key(signer)), e.Created, authentic, func(now int64) bool {
		return w.m.end(w.m.asks[number], string(person), string(how), now)
	})
}

func (w *walk) certify(*rapid.T) {
	number, ok := w.some()
	if !ok {
		return
	}
	person := statement.Person("alice")
	if a := w.m.asks[number]; a != nil && !w.odd("holder") {
		person = statement.Person(a.person)
	}
	c := statement.Certificate{
		Head: w.head(statement.KindCertificate, person), Grant: string(StemOf(w.proofs[number].Hash()).Grant()), Key: publicKeyOf("some laptop"),
	}
	signer, authentic := w.common(&c.Head)
	w.hand(IssueCertificate, w.sign(c, key(signer)), c.Created, authentic, func(now int64) bool {
		return w.m.certify(w.m.asks[number], string(person), int64(c.Created), now)
	})
}

// repeat files again, byte for byte, what was filed before.
func (w *walk) repeat(*rapid.T) {
	if len(w.sent) == 0 {
		return
	}
	old := w.sent[rapid.IntRange(0, len(w.sent)-1).Draw(w.rt, "which statement")]
	if !w.m.recorded[old.number] {
		return
	}
	d, _ := w.file(old.proof)
	w.replay = true
	w.step(d)
}

// sometimes is true for what happens less often than the rest.
func (w *walk) sometimes(what string) bool {
	return w.busy || rapid.IntRange(0, 3).Draw(w.rt, what) == 3
}

// change lets the steward sign another policy.
func (w *walk) change(*rapid.T) {
	if !w.sometimes("policy changes") {
		return
	}
	name := pick(w, "role changed", "db-admin", "root")
	role := w.m.role(name)
	role.approvers = pick(w, "approvers", []string{"bob", "carol", "gwen"}, []string{"carol", "erin", "gwen"}, []string{"bob", "carol", "dave"})
	role.eligible = labRoles()[name].eligible
	if w.odd("eligible") {
		role.eligible = pick(w, "eligible", []string{"bob"}, []string{"erin"})
	}
	role.count = pick(w, "count", 1, 2)
	role.longest = pick[int64](w, "longest", 1800, 3600, 4*3600)
	roles := maps.Clone(w.m.policies[len(w.m.policies)-1])
	roles[name] = role
	p := w.revises(changeRole(statement.RoleName(name), func(r *policy.Role) {
		r.Approvals = policy.Approvals{Count: role.count, From: names(role.approvers)}
		r.Eligible = names(role.eligible)
		r.Longest, r.Default = statement.Seconds(role.longest), min(r.Default, statement.Seconds(role.longest))
	}))
	d, err := w.file(p)
	if err != nil {
		w.rt.Fatalf("policy: %v", err)
	}
	w.m.adopt(roles, int64(w.now))
	w.step(d)
}

func names(of []string) []policy.Name {
	var out []policy.Name
	for _, name := range of {
		out = append(out, policy.Name(name))
	}
	return out
}

func (w *walk) wait(*rapid.T) {
	w.now += pick[statement.Time](w, "seconds", 1, 10, 30, 61, 120, 600, 1800, 3600, 7200)
	w.last = Decided{}
}

func (w *walk) sweep(*rapid.T) {
	w.m.tick(int64(w.now))
	w.step(w.tick())
}

// walks runs random histories and holds a promise after every step.
func walks(t *testing.T, promise func(w *walk) error) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(rt)
		step := func(f func(*rapid.T)) func(*rapid.T) {
			return func(rt *rapid.T) {
				w.then, w.replay = w.s.Now(), false
				f(rt)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"ask": step(w.ask), "ask too": step(w.ask), "decide": step(w.decide), "decide too": step(w.decide), "decide again": step(w.decide),
			"end": step(w.end), "certify": step(w.certify), "repeat": step(w.repeat), "change": step(w.change), "wait": step(w.wait),
			"tick": step(w.sweep), "cluster": step(w.cluster), "list": step(w.list),
			"": func(rt *rapid.T) {
				if err := promise(w); err != nil {
					rt.Fatal(err)
				}
			},
		})
		w.refold, w.folded = NewState(), 0 // the whole log once more: no later step changed an event
		if err := promise(w); err != nil {
			rt.Fatal(err)
		}
	})
}
