package broker

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// crowd is a deployment with n hosts, n requests of which half are live grants, and many people and roles: 3 500 and 1 000 are as
// many as one signed policy takes. Decide verifies signatures and looks things up; it must not walk any of these.
func crowd(b *testing.B, hosts, people, roles int) *scene {
	b.Helper()
	sc := &scene{t: b, s: NewState(), now: dawn, light: true}
	doc := labPolicy(b)
	for i := range people {
		name := statement.Person(fmt.Sprintf("p%d", i))
		doc.People[name] = policy.PersonEntry{Account: statement.Account(name), Keys: []statement.Key{publicKeyOf(string(name))}}
		doc.Groups["engineers"] = append(doc.Groups["engineers"], name)
	}
	for i := range roles {
		doc.Roles[statement.RoleName(fmt.Sprintf("role-%d", i))] = doc.Roles["db-admin"]
	}
	sc.must(signPolicy(b, doc, "dave"))
	for i := range hosts {
		name := statement.HostName(fmt.Sprintf("db%d", i))
		sc.must(sc.enrolment(name, "db"))
	}
	for i := range hosts {
		asker := statement.Person(fmt.Sprintf("p%d", i%people))
		p := sc.asks(asker, "db-admin", statement.HostName(fmt.Sprintf("db%d", i)))
		sc.must(p)
		if i%2 == 0 {
			sc.must(sc.approves("bob", p))
		}
	}
	return sc
}

func BenchmarkDecide(b *testing.B) {
	sc := crowd(b, 10_000, 3_500, 1_000)
	pending := sc.s.Inbox("bob", sc.now)[0].Dossier.Request
	half := sc.asks("alice", "root", "db3", "db5")
	sc.must(half)
	sc.must(sc.approves("bob", half))
	many := sc.request("erin", "db-admin")
	for i := range 1000 {
		many.Hosts = append(many.Hosts, statement.HostName(fmt.Sprintf("db%d", i)))
	}
	slices.Sort(many.Hosts)
	first := sc.s.Grants()[0]
	grant, holder := first.Dossier.Request, first.Body.Person
	commands := map[string]Command{
		"FileRequest":                     sc.command(sc.asks("erin", "db-admin", "db7")),
		"FileRequest beside 5000 pending": sc.command(sc.asks("alice", "db-admin", "db1", "db3")),
		"FileRequest for 1000 hosts":      sc.command(sc.sign(many, key("erin"))),
		"FileDecision opening a grant":    sc.command(sc.approves("carol", pending)),
		"FileDecision second of two":      sc.command(sc.approves("carol", half)),
		"EndAccess":                       sc.command(sc.ends(holder, statement.Return, grant)),
		"IssueCertificate":                sc.command(sc.certifies(holder, grant, "a desk")),
		"EnrolHost":                       sc.command(sc.enrolment("new", "db")),
		"ReportHost":                      sc.command(sc.reports("db1", 1)),
		"Tick":                            sc.clock(sc.now, nil),
	}
	for name, c := range commands {
		b.Run(name, func(b *testing.B) {
			before := processor(b)
			for b.Loop() {
				if _, err := Decide(sc.s, c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processor(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processor returns the nanoseconds of processor time this process has used: wall time says little on a busy machine.
func processor(b *testing.B) int64 {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

func BenchmarkProve(b *testing.B) {
	sc := resume(b)
	p := sc.asks("alice", "root", "db1")
	d := sc.dossier(p, sc.approves("bob", p), sc.approves("carol", p))
	for b.Loop() {
		if _, err := Judge(sc.chain, d, db1, sc.now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvolve(b *testing.B) {
	log := morning()
	for b.Loop() {
		s := NewState()
		for _, e := range log {
			Evolve(s, e)
		}
	}
}

func BenchmarkDigestOf10000Hosts(b *testing.B) {
	sc := crowd(b, 10_000, 300, 0)
	for b.Loop() {
		sc.s.Digest()
	}
}
