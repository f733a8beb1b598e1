package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// The oracle says what a request amounts to, from policy.yaml(5) and in the plainest way: it tries every set of approvals at every
// moment, every assignment of people to parts, every second of a window. It shares no code with the rules: names are strings,
// times are seconds after dawn.
type oracle struct {
	groups   map[string][]string
	eligible []oracleEntry
	active   []oracleEntry
	none     bool
	parts    []oraclePart
	fallback []oracleFallback
	longest  int
	least    int
	ticket   string // a prefix that digits follow; "": any
	why      bool   // of approvers
}

type oracleEntry struct {
	who         string
	from, until int // until 0: for ever
	hosts       []string
}

type oraclePart struct {
	count int
	from  []string
}

type oracleFallback struct {
	after int
	from  []string
}

type oracleAsk struct {
	person         string
	hosts          []string
	at, duration   int // created at 0
	expires        int
	reason, ticket string
	yes            []oracleYes
}

type oracleYes struct {
	person         string
	created, until int
	reason         string
	hosts          []string
	duration       int
}

func (o oracle) means(names []string, person string) bool {
	for _, name := range names {
		if name == person || slices.Contains(o.groups[name], person) {
			return true
		}
	}
	return false
}

func (o oracle) covers(entries []oracleEntry, person, host string, now int) bool {
	for _, e := range entries {
		if o.means([]string{e.who}, person) && now >= e.from && (e.until == 0 || now < e.until) && (e.hosts == nil || slices.Contains(e.hosts, host)) {
			return true
		}
	}
	return false
}

// fills reports whether the people can be given to the parts, by trying everybody for each place.
func (o oracle) fills(places []oraclePart, people []oracleYes) bool {
	if len(places) == 0 {
		return true
	}
	for i, y := range people {
		others := slices.Delete(slices.Clone(people), i, i+1)
		others = slices.DeleteFunc(others, func(x oracleYes) bool { return x.person == y.person })
		if o.approves(places[0], y) && o.fills(places[1:], others) {
			return true
		}
	}
	return false
}

func (o oracle) approves(p oraclePart, y oracleYes) bool {
	if o.means(p.from, y.person) {
		return true
	}
	for _, f := range o.fallback {
		if y.created >= f.after && o.means(f.from, y.person) {
			return true
		}
	}
	return false
}

// isActive reports whether the stewards have approved all of it beforehand.
func (o oracle) isActive(a oracleAsk) bool {
	for _, host := range a.hosts {
		if !o.covers(o.active, a.person, host, max(0, a.at)) {
			return false
		}
	}
	return true
}

// opens says when the request becomes a grant: -1 never.
func (o oracle) opens(a oracleAsk) int {
	places := []oraclePart{}
	for _, p := range o.parts {
		for range p.count {
			places = append(places, oraclePart{1, p.from})
		}
	}
	begins := max(0, a.at)
	if o.isActive(a) || o.none {
		return begins
	}
	for now := 0; now <= 100; now++ {
		var counting []oracleYes
		for _, y := range a.yes {
			if y.person != a.person && y.created <= now && now <= y.until && (!o.why || y.reason != "") {
				counting = append(counting, y)
			}
		}
		if o.fills(places, counting) {
			return max(begins, now)
		}
	}
	return -1
}

// says returns for how long each host opens: pairs of seconds, "" when it does not.
func (o oracle) says(a oracleAsk) map[string]string {
	from, said := o.opens(a), map[string]string{}
	duration, hosts := min(a.duration, o.longest), slices.Clone(a.hosts)
	for _, y := range a.yes {
		if y.duration != 0 {
			duration = min(duration, y.duration)
		}
		if y.hosts != nil {
			hosts = slices.DeleteFunc(hosts, func(h string) bool { return !slices.Contains(y.hosts, h) })
		}
	}
	fits := o.ticket == "" || len(a.ticket) == len(o.ticket)+1 && a.ticket[:len(o.ticket)] == o.ticket && a.ticket[len(o.ticket)] >= '0' && a.ticket[len(o.ticket)] <= '9'
	entries := append(slices.Clone(o.eligible), o.active...)
	if o.isActive(a) {
		entries = o.active
	}
	for _, host := range hosts {
		if from < 0 || len(a.reason) < o.least || !fits || !o.covers(entries, a.person, host, from) {
			continue
		}
		until := from
		for until < from+duration { // the eligibility that holds at the start must hold on: one that begins later is another
			held := false
			for _, e := range entries {
				held = held || o.covers([]oracleEntry{e}, a.person, host, from) && o.covers([]oracleEntry{e}, a.person, host, until)
			}
			if !held {
				break
			}
			until++
		}
		said[host] = fmt.Sprintf("%d-%d", from, until)
	}
	return said
}

var oraclePeople = []string{"alice", "bob", "carol", "dave", "erin"}

func some[T any](r *rand.Rand, from []T) []T {
	var list []T
	for _, v := range from {
		if r.IntN(2) == 0 {
			list = append(list, v)
		}
	}
	if list == nil {
		list = []T{from[r.IntN(len(from))]}
	}
	return list
}

func maybe[T any](r *rand.Rand, v T) (out T) {
	if r.IntN(3) == 0 {
		return v
	}
	return out
}

func drawOracle(r *rand.Rand) (oracle, oracleAsk) {
	o := oracle{groups: map[string][]string{"one": some(r, oraclePeople), "two": some(r, oraclePeople)}, longest: 5 + r.IntN(30)}
	names := append([]string{"one", "two"}, oraclePeople...)
	entry := func() oracleEntry {
		e := oracleEntry{who: names[r.IntN(len(names))], hosts: maybe(r, some(r, []string{"db1", "db2"}))}
		if e.from = maybe(r, r.IntN(30)); r.IntN(2) == 0 {
			e.until = e.from + 1 + r.IntN(60)
		}
		return e
	}
	o.eligible = append(o.eligible, oracleEntry{who: "alice"})
	if r.IntN(3) > 0 {
		o.eligible = nil
		for range 1 + r.IntN(3) {
			o.eligible = append(o.eligible, entry())
		}
	}
	if r.IntN(6) == 0 {
		o.active = append(o.active, entry())
	}
	if o.none = r.IntN(8) == 0; !o.none {
		for range 1 + r.IntN(3) {
			o.parts = append(o.parts, oraclePart{1 + r.IntN(2), some(r, names[:2+r.IntN(len(names)-1)])})
		}
	}
	if r.IntN(3) > 0 && !o.none {
		o.fallback = append(o.fallback, oracleFallback{1 + r.IntN(30), some(r, names)})
	}
	o.least, o.ticket, o.why = maybe(r, r.IntN(4)), maybe(r, "INC-"), r.IntN(4) == 0
	a := oracleAsk{
		person: "alice", hosts: some(r, []string{"db1", "db2"}), at: maybe(r, r.IntN(60)), duration: 1 + r.IntN(40), expires: 80,
		reason: "why"[:1+r.IntN(3)], ticket: []string{"", "INC-7", "INC-", "xINC-7"}[r.IntN(4)],
	}
	for range r.IntN(6) {
		y := oracleYes{person: oraclePeople[r.IntN(len(oraclePeople))], created: r.IntN(60), reason: maybe(r, "ok"), duration: maybe(r, 1+r.IntN(a.duration))}
		if y.until = y.created + r.IntN(80); o.why && r.IntN(2) == 0 {
			y.reason = "ok"
		}
		y.hosts = maybe(r, some(r, a.hosts))
		a.yes = append(a.yes, y)
	}
	return o, a
}

// put writes the oracle's role as a policy has it, in the signed document's words.
func (o oracle) put(doc *policy.Document, r *policy.Role) {
	for name, people := range o.groups {
		doc.Groups[policy.GroupName(name)] = nil
		for _, person := range people {
			doc.Groups[policy.GroupName(name)] = append(doc.Groups[policy.GroupName(name)], statement.Person(person))
		}
	}
	second := func(s int) statement.Time { return dawn.Add(statement.Seconds(s)) }
	entries := func(from []oracleEntry) (plain []policy.Name, dated []policy.Eligibility) {
		for _, e := range from {
			one := policy.Eligibility{Who: policy.Name(e.who)}
			if e.from != 0 {
				one.From = second(e.from)
			}
			if e.until != 0 {
				one.Until = second(e.until)
			}
			if e.hosts != nil {
				one.Hosts = &policy.Selector{}
				for _, h := range e.hosts {
					one.Hosts.Names = append(one.Hosts.Names, statement.HostName(h))
				}
			}
			switch {
			case one == policy.Eligibility{Who: one.Who} && !slices.Contains(plain, one.Who):
				plain = append(plain, one.Who)
			case one != policy.Eligibility{Who: one.Who}:
				dated = append(dated, one)
			}
		}
		return plain, dated
	}
	r.Eligible, r.Dated = entries(o.eligible)
	plain, active := entries(o.active)
	for _, name := range plain {
		active = append(active, policy.Eligibility{Who: name})
	}
	r.Active, r.Longest, r.Default, r.PlainKey = active, statement.Seconds(o.longest), 1, o.none
	named := func(from []string) (names []policy.Name) {
		for _, name := range from {
			names = append(names, policy.Name(name))
		}
		return names
	}
	r.Approvals = policy.Approvals{None: o.none}
	for i, p := range o.parts {
		if i == 0 {
			r.Approvals.Count, r.Approvals.From = p.count, named(p.from)
			continue
		}
		r.And = append(r.And, policy.Part{Count: p.count, From: named(p.from)})
	}
	for _, f := range o.fallback {
		r.Fallback = append(r.Fallback, policy.Fallback{After: statement.Seconds(f.after), From: named(f.from)})
	}
	r.ReasonLeast, r.ApproverReason = o.least, o.why
	if o.ticket != "" {
		r.Ticket = o.ticket + "[0-9]"
	}
}

// dossier signs what was asked and decided.
func (a oracleAsk) dossier(sc *scene) Dossier {
	hosts := func(names []string) (list []statement.HostName) {
		for _, h := range names {
			list = append(list, statement.HostName(h))
		}
		return list
	}
	r := sc.request(statement.Person(a.person), "db-admin", hosts(a.hosts)...)
	r.Created, r.NotAfter, r.Expires = dawn, dawn.Add(300), dawn.Add(statement.Seconds(a.expires))
	r.Duration, r.Reason, r.Ticket = statement.Seconds(a.duration), a.reason, a.ticket
	if a.at != 0 {
		r.At = dawn.Add(statement.Seconds(a.at))
	}
	d := Dossier{Request: sc.sign(r, key(a.person))}
	for _, y := range a.yes {
		yes := sc.decision(statement.Person(y.person), statement.Approve, d.Request)
		yes.Created, yes.NotAfter = dawn.Add(statement.Seconds(y.created)), dawn.Add(statement.Seconds(y.until))
		yes.Reason, yes.Hosts, yes.Duration = y.reason, hosts(y.hosts), statement.Seconds(y.duration)
		d.Decisions = append(d.Decisions, sc.sign(yes, key(y.person)))
	}
	return d
}

// judged asks the real rules for how long each host opens, second by second.
func judged(sc *scene, d Dossier) map[string]string {
	said := map[string]string{}
	for _, name := range []statement.HostName{"db1", "db2"} {
		from, until := -1, -1
		g, err := Prove(sc.chain, d)
		for now := 0; err == nil && now < 200; now++ {
			if g.On(at(name)).LiveOn(at(name), dawn.Add(statement.Seconds(now))) != nil {
				continue
			}
			if until = now + 1; from < 0 {
				from = now
			}
		}
		if from >= 0 {
			said[string(name)] = fmt.Sprintf("%d-%d", from, until)
		}
	}
	return said
}

func TestRandomPoliciesAndRequestsAgreeWithAnOracle(t *testing.T) {
	runs := 10_000
	if testing.Short() {
		runs = 1_000
	}
	opened, unfit := 0, 0
	for seed := range runs {
		r := rand.New(rand.NewPCG(uint64(seed), 5))
		o, a := drawOracle(r)
		doc := labPolicy(t)
		doc.V = 2
		changeRole("web-deploy", func(r *policy.Role) { r.PlainKey = true })(&doc)
		changeRole("db-admin", func(r *policy.Role) { o.put(&doc, r) })(&doc)
		payload, err := policy.Draft(doc)
		if err != nil {
			unfit++ // Check refuses it: another test's matter
			continue
		}
		proof, err := statement.SignPayload(statement.KindPolicy, payload, key("dave"))
		if err != nil {
			t.Fatal(err)
		}
		chain, err := policy.Genesis(proof)
		if err != nil {
			t.Fatal(err)
		}
		sc := &scene{t: t, chain: chain, now: dawn, light: true}
		want, got := o.says(a), judged(sc, a.dossier(sc))
		if len(want) > 0 {
			opened++
		}
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Fatalf("seed %d: the oracle says %v, the rules %v\n%+v\n%+v", seed, want, got, o, a)
		}
	}
	t.Logf("%d policies and requests: %d policies that Check refuses, %d requests that open something", runs, unfit, opened)
	if opened < runs/20 {
		t.Errorf("only %d of %d open anything: the draw proves little", opened, runs)
	}
}
