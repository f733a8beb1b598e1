package broker

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// dawn is when every scene's policy is signed: 2026-11-23T08:00:00Z.
const dawn statement.Time = 1795420800

// tester is what *testing.T, *testing.B and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// scene is one deployment: the lab's people, roles and hosts, a state, and all that happened to it.
type scene struct {
	t      tester
	s      *State
	chain  policy.Chain
	now    statement.Time
	nonces uint64
	log    []Event
	taken  []Command
	light  bool // Decide is not held to changing nothing: digests cost time
}

// key returns the one key that belongs to a name.
func key(name string) signtest.Key {
	if k, made := keys.Load(name); made {
		return k.(signtest.Key)
	}
	k := signtest.Ed25519(name)
	keys.Store(name, k)
	return k
}

var keys sync.Map // of names to signtest.Key

func publicKeyOf(name string) statement.Key { return signtest.Public(key(name)) }

func labPolicy(t tester) policy.Document {
	entry := func(person statement.Person, extra ...string) policy.PersonEntry {
		e := policy.PersonEntry{Account: statement.Account(person), Keys: []statement.Key{publicKeyOf(string(person))}}
		for _, name := range extra {
			e.Keys = append(e.Keys, publicKeyOf(name))
		}
		return e
	}
	broker := func(name string) policy.Broker {
		return policy.Broker{Address: name + ":7443", Identity: publicKeyOf(name + " identity"), CA: publicKeyOf(name + " ca"),
			Log: publicKeyOf(name + " log")}
	}
	return policy.Document{
		V: statement.Version, Kind: statement.KindPolicy, Revision: 1, Expires: dawn.Add(90 * statement.Day),
		People: map[statement.Person]policy.PersonEntry{
			"alice": entry("alice", "alice 2"), "erin": entry("erin"), "bob": entry("bob", "bob 2"), "carol": entry("carol"),
			"gwen": entry("gwen"), "dave": entry("dave"), "frank": entry("frank"), "mallory": entry("mallory"),
		},
		Groups: map[policy.GroupName][]statement.Person{
			"engineers": {"alice", "erin"}, "approvers": {"bob", "carol", "gwen"},
		},
		Stewards:  policy.Stewards{Threshold: 1, People: []statement.Person{"dave"}},
		Operators: []statement.Person{"dave"}, Auditors: []statement.Person{"frank"},
		Brokers: map[statement.BrokerName]policy.Broker{"b1": broker("b1")},
		Roles: map[statement.RoleName]policy.Role{
			"db-admin": {
				Hosts: policy.Selector{Labels: map[string]string{"tier": "db"}}, Accounts: []statement.Account{"postgres"},
				Sudo:     []policy.SudoRule{{As: "postgres", Commands: []policy.Command{"ALL"}}, {As: "root", Commands: []policy.Command{"/usr/bin/systemctl restart postgresql"}}},
				Eligible: []policy.Name{"engineers"}, Approvals: policy.Approvals{Count: 1, From: []policy.Name{"approvers"}},
				Longest: 4 * 3600, Default: 3600, Pending: statement.Day, Offline: policy.Offline{Mode: policy.OfflineGrace, Grace: 900},
			},
			"root": {
				Hosts: policy.Selector{Any: true}, Accounts: []statement.Account{"root"},
				Sudo:     []policy.SudoRule{{As: "root", Commands: []policy.Command{"ALL"}}},
				Eligible: []policy.Name{"alice", "bob"}, Approvals: policy.Approvals{Count: 2, From: []policy.Name{"approvers"}},
				Longest: 3600, Default: 1800, Pending: 3600, Offline: policy.Offline{Mode: policy.OfflineStrict},
			},
			"web-deploy": {
				Hosts: policy.Selector{Labels: map[string]string{"tier": "web"}}, Accounts: []statement.Account{"deploy"},
				Eligible: []policy.Name{"engineers"}, Approvals: policy.Approvals{None: true},
				Longest: 8 * 3600, Default: 3600, Pending: 3600, Offline: policy.Offline{Mode: policy.OfflineWindow},
			},
		},
	}
}

// sign drafts a policy and has people sign it.
func signPolicy(t tester, doc policy.Document, people ...string) statement.Proof {
	t.Helper()
	payload, err := policy.Draft(doc)
	if err != nil {
		t.Fatalf("draft policy: %v", err)
	}
	var signers []ssh.Signer
	for _, person := range people {
		signers = append(signers, key(person))
	}
	p, err := statement.SignPayload(statement.KindPolicy, payload, signers...)
	if err != nil {
		t.Fatalf("sign policy: %v", err)
	}
	return p
}

// newScene has the first policy adopted and db1, db2 and web1 enrolled.
func newScene(t tester) *scene {
	t.Helper()
	sc := &scene{t: t, s: NewState(), now: dawn}
	sc.must(signPolicy(t, labPolicy(t), "dave"))
	sc.must(sc.enrolment("db1", "db"))
	sc.must(sc.enrolment("db2", "db"))
	sc.must(sc.enrolment("web1", "web"))
	return sc
}

// head is what every statement of the scene starts with.
func (sc *scene) head(kind statement.Kind, person statement.Person) statement.Head {
	sc.nonces++
	return statement.Head{
		V: statement.Version, Kind: kind, Deployment: sc.chain.Deployment(), Policy: sc.chain.Ref(), Person: person,
		Nonce: fmt.Sprintf("%032x", sc.nonces), Created: sc.now, NotAfter: sc.now.Add(300),
	}
}

func (sc *scene) sign(b statement.Body, signers ...ssh.Signer) statement.Proof {
	sc.t.Helper()
	p, err := statement.Sign(b, signers...)
	if err != nil {
		sc.t.Fatalf("sign: %v", err)
	}
	return p
}

// request is what a person asks for; the hosts are given in order.
func (sc *scene) request(person statement.Person, role statement.RoleName, hosts ...statement.HostName) statement.Request {
	return statement.Request{
		Head: sc.head(statement.KindRequest, person), Role: role, Hosts: hosts, Duration: 1800, Reason: "INC-42 replica lag",
		Expires: sc.now.Add(3600), Keys: []statement.Key{publicKeyOf(string(person) + " laptop")},
	}
}

func (sc *scene) asks(person statement.Person, role statement.RoleName, hosts ...statement.HostName) statement.Proof {
	sc.t.Helper()
	return sc.sign(sc.request(person, role, hosts...), key(string(person)))
}

func (sc *scene) decision(person statement.Person, verdict statement.Verdict, request statement.Proof) statement.Decision {
	return statement.Decision{Head: sc.head(statement.KindDecision, person), Request: request.Hash(), Verdict: verdict}
}

func (sc *scene) approves(person statement.Person, request statement.Proof) statement.Proof {
	sc.t.Helper()
	return sc.sign(sc.decision(person, statement.Approve, request), key(string(person)))
}

func (sc *scene) denies(person statement.Person, request statement.Proof) statement.Proof {
	sc.t.Helper()
	return sc.sign(sc.decision(person, statement.Deny, request), key(string(person)))
}

func (sc *scene) ends(person statement.Person, how statement.How, request statement.Proof) statement.Proof {
	sc.t.Helper()
	e := statement.End{Head: sc.head(statement.KindEnd, person), How: how}
	stem := StemOf(request.Hash())
	if how == statement.Withdraw {
		e.Request = string(stem.Request())
	} else {
		e.Grant = string(stem.Grant())
	}
	return sc.sign(e, key(string(person)))
}

func (sc *scene) certifies(person statement.Person, request statement.Proof, laptop string) statement.Proof {
	sc.t.Helper()
	c := statement.Certificate{
		Head: sc.head(statement.KindCertificate, person), Grant: string(StemOf(request.Hash()).Grant()), Key: publicKeyOf(laptop),
	}
	return sc.sign(c, key(string(person)))
}

func (sc *scene) token(name statement.HostName, tier, operator string) statement.Proof {
	sc.t.Helper()
	return sc.sign(statement.HostToken{
		Head: sc.head(statement.KindHostToken, statement.Person(operator)), Name: name, Labels: map[string]string{"tier": tier},
		Addresses: []string{string(name)}, Key: publicKeyOf(string(name) + " token"), Expires: sc.now.Add(300),
	}, key(operator))
}

func (sc *scene) joins(name statement.HostName, machine string, token statement.Proof) statement.Proof {
	sc.t.Helper()
	h := sc.head(statement.KindEnrolment, "")
	h.Host = name
	return sc.sign(statement.Enrolment{
		Head: h, Token: token, MachineID: statement.HashOf([]byte(machine)), Identity: publicKeyOf(machine + " identity"),
		HostKeys: []statement.Key{publicKeyOf(machine + " host key")},
	}, key(string(name)+" token"), key(machine+" identity"))
}

func (sc *scene) enrolment(name statement.HostName, tier string) statement.Proof {
	sc.t.Helper()
	if sc.chain.Ref().Revision == 0 {
		sc.chain = sc.s.Chain()
	}
	return sc.joins(name, string(name), sc.token(name, tier, "dave"))
}

func (sc *scene) reports(name statement.HostName, sequence uint64) statement.Proof {
	sc.t.Helper()
	h := sc.head(statement.KindReport, "")
	h.Host = name
	return sc.sign(statement.Report{
		Head: h, Sequence: sequence, What: statement.SessionRefused, Service: "sudo", Account: "alice", At: sc.now, Why: "no grant",
	}, key(string(name)+" identity"))
}

// revises signs the next revision of the current policy, changed.
func (sc *scene) revises(change func(*policy.Document)) statement.Proof {
	sc.t.Helper()
	return signPolicy(sc.t, sc.draft(change), "dave")
}

func (sc *scene) draft(change func(*policy.Document)) policy.Document {
	doc := *sc.s.Chain().Current()
	doc.Roles, doc.Groups, doc.People = maps.Clone(doc.Roles), maps.Clone(doc.Groups), maps.Clone(doc.People)
	change(&doc)
	return sc.s.Chain().Next(doc, dawn.Add(90*statement.Day))
}

// changeRole returns a change of one role.
func changeRole(name statement.RoleName, change func(*policy.Role)) func(*policy.Document) {
	return func(doc *policy.Document) {
		role := doc.Roles[name]
		change(&role)
		doc.Roles[name] = role
	}
}

// command is the proof as the leader proposes it now. A scene begins under rules 1, as an older build's deployment did.
func (sc *scene) command(p statement.Proof) Command {
	sc.t.Helper()
	c, err := CommandFor(p, sc.now)
	if err != nil {
		sc.t.Fatalf("command: %v", err)
	}
	if sc.s.Index() == 0 {
		c.Rules = 1
		return c
	}
	return c.Under(sc.s)
}

// clock is the tick that the leader proposes.
func (sc *scene) clock(at statement.Time, state *StateAt) Command {
	return TickAt(at, state).Under(sc.s)
}

// apply decides and evolves a command, and holds Decide to changing nothing.
func (sc *scene) apply(c Command) (Decided, error) {
	sc.t.Helper()
	d, err := sc.decideOnly(c)
	for _, e := range d.Events {
		Evolve(sc.s, e)
	}
	sc.log = append(sc.log, d.Events...)
	sc.taken = append(sc.taken, c)
	sc.chain = sc.s.Chain()
	return d, err
}

func (sc *scene) decideOnly(c Command) (Decided, error) {
	sc.t.Helper()
	if sc.light {
		return Decide(sc.s, c)
	}
	before := sc.s.Digest()
	d, err := Decide(sc.s, c)
	if sc.s.Digest() != before {
		sc.t.Fatalf("Decide(%s) changed the state", c.Kind)
	}
	return d, err
}

func (sc *scene) file(p statement.Proof, with ...func(*Command)) (Decided, error) {
	sc.t.Helper()
	c := sc.command(p)
	for _, change := range with {
		change(&c)
	}
	return sc.apply(c)
}

// judging says what the proposer judges.
func judging(j Judged) func(*Command) { return func(c *Command) { c.Judged = j } }

// must files a statement that the rules accept.
func (sc *scene) must(p statement.Proof, with ...func(*Command)) Outcome {
	sc.t.Helper()
	d, err := sc.file(p, with...)
	if err != nil {
		sc.t.Fatalf("refused: %v", err)
	}
	return d.Outcome
}

// refused files a statement that the rules refuse, and says how.
func (sc *scene) refused(kind Kind, p statement.Proof, with ...func(*Command)) *Error {
	sc.t.Helper()
	_, err := sc.file(p, with...)
	refusal, ok := err.(*Error)
	if !ok || refusal.Kind != kind {
		sc.t.Fatalf("got %v (%s), want a refusal: %s", err, KindOf(err), kind)
	}
	return refusal
}

func (sc *scene) tick() Decided {
	sc.t.Helper()
	d, err := sc.apply(sc.clock(sc.now, &StateAt{Index: sc.s.Index(), Digest: sc.s.Digest()}))
	if err != nil {
		sc.t.Fatalf("tick: %v", err)
	}
	return d
}

// granted asks for db-admin on db1 as alice and has bob approve.
func (sc *scene) granted() statement.Proof {
	sc.t.Helper()
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	sc.must(sc.approves("bob", p))
	return p
}

func (sc *scene) find(p statement.Proof) Request {
	sc.t.Helper()
	r, ok := sc.s.Request(StemOf(p.Hash()).Request())
	if !ok {
		sc.t.Fatalf("no request %s", StemOf(p.Hash()).Request())
	}
	return r
}

func kinds(events []Event) []EventKind {
	var names []EventKind
	for _, e := range events {
		names = append(names, e.Head().Kind)
	}
	return names
}

func wantKinds(t tester, events []Event, want ...EventKind) {
	t.Helper()
	if got := kinds(events); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
}

func TestTheStoryFromRequestToLapse(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	if needs := sc.s.Needs(sc.find(p).ID, sc.now); len(needs) != 1 || needs[0].String() != "1 of bob, carol, gwen" {
		t.Fatalf("needs %v", needs)
	}
	if inbox := sc.s.Inbox("bob", sc.now); len(inbox) != 1 {
		t.Fatalf("bob's inbox holds %d", len(inbox))
	}
	sc.now += 30
	d, err := sc.file(sc.approves("bob", p))
	if err != nil {
		t.Fatal(err)
	}
	wantKinds(t, d.Events, "DecisionFiled", "RequestApproved", "GrantOpened", "CertificateIssued")
	r := sc.find(p)
	if r.Grant.From != sc.now || r.Grant.Until != sc.now.Add(1800) || r.Issued[0].Serial != d.Events[3].Head().Index {
		t.Fatalf("grant %+v, issued %v", r.Grant, r.Issued)
	}
	if d.Outcome != (Outcome{Index: d.Events[0].Head().Index, Request: r.ID, Grant: r.Grant.ID}) {
		t.Fatalf("outcome %+v", d.Outcome)
	}
	db1 := Host{Name: "db1", Labels: map[string]string{"tier": "db"}}
	if _, err := Judge(sc.chain, r.Dossier, db1, sc.now.Add(1799)); err != nil {
		t.Fatal(err)
	}
	if _, err := Judge(sc.chain, r.Dossier, db1, sc.now.Add(1800)); KindOf(err) != Expired {
		t.Fatalf("after the window: %v", err)
	}
	sc.now += 1800
	wantKinds(t, sc.tick().Events, "GrantLapsed")
	wantKinds(t, sc.tick().Events)
}
