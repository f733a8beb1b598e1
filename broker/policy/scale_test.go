package policy

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"

	"pim-ssh/broker/statement"
)

// big is a document of so many people and roles: a group for each thousand people, and one that holds everybody; every hundredth
// role names 10 000 hosts. Keys are spelled
// like real ones; nobody signs with them.
func big(people, roles int) Document {
	d := lab()
	d.V = 2
	d.Groups["everybody"] = nil
	changeRole(&d, "web-deploy", func(r *Role) { r.PlainKey = true })
	for i := range people {
		name := statement.Person(fmt.Sprintf("p%06d", i))
		d.People[name] = PersonEntry{Keys: []statement.Key{spelled(i)}, Account: statement.Account(name)}
		group := GroupName(fmt.Sprintf("team-%03d", i/1000))
		d.Groups[group] = append(d.Groups[group], name)
		d.Groups["everybody"] = append(d.Groups["everybody"], name)
	}
	teams := max(1, people/1000)
	for i := range roles {
		role := lab().Roles["db-admin"]
		role.Hosts = Selector{Labels: map[string]string{"team": fmt.Sprint(i % teams)}}
		role.Accounts = []statement.Account{statement.Account(fmt.Sprintf("a%04d", i))}
		role.Sudo = []SudoRule{{"root", []Command{Command(fmt.Sprintf("/usr/bin/systemctl restart app-%04d", i))}}}
		team, other := Name(fmt.Sprintf("team-%03d", i%teams)), Name(fmt.Sprintf("team-%03d", (i+1)%teams))
		role.Eligible, role.Approvals = []Name{team}, Approvals{Count: 1, From: []Name{other}}
		if i%10 == 0 {
			role.Eligible, role.And = []Name{"everybody"}, []Part{{1, []Name{"everybody"}}}
			role.Approvals.From = []Name{"approvers"}
		}
		for j := range 10 {
			role.Dated = append(role.Dated, Eligibility{Who: Name(fmt.Sprintf("p%06d", (i*10+j)%people)), Until: 1_890_000_000})
		}
		if i%100 == 0 {
			role.Hosts, role.Accounts = fleet(10_000), []statement.Account{"fleet"}
			role.Approvals.Count = 1 + i%200/100
		}
		d.Roles[statement.RoleName(fmt.Sprintf("role-%04d", i))] = role
	}
	return d.Sorted()
}

// fleet is so many hosts by name.
func fleet(hosts int) Selector {
	var s Selector
	for i := range hosts {
		s.Names = append(s.Names, statement.HostName(fmt.Sprintf("host-%05d", i)))
	}
	return s
}

// spelled is a key of its own for each number.
func spelled(i int) statement.Key {
	blob := fmt.Sprintf("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20%032d", i)
	return statement.Key("ssh-ed25519 " + base64.StdEncoding.EncodeToString([]byte(blob)))
}

func BenchmarkCheck(b *testing.B) {
	for _, size := range []struct{ people, roles int }{{1_000, 100}, {10_000, 1_000}, {100_000, 1_000}} {
		doc := big(size.people, size.roles)
		b.Run(fmt.Sprintf("%d-people-%d-roles", size.people, size.roles), func(b *testing.B) {
			for b.Loop() {
				if err := doc.Check(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWarnings(b *testing.B) {
	doc := big(100_000, 1_000)
	for b.Loop() {
		doc.Warnings(1_800_000_000)
	}
}

func BenchmarkDifference(b *testing.B) {
	old, changed := big(100_000, 1_000), big(100_000, 1_000)
	changed.Groups["everybody"] = changed.Groups["everybody"][1:]
	for b.Loop() {
		if len(Difference(&old, &changed)) == 0 {
			b.Fatal("nothing differs")
		}
	}
}

// BenchmarkLookUp is what one decision asks a document of 100 000 people and 1 000 roles.
func BenchmarkLookUp(b *testing.B) {
	doc := big(100_000, 1_000)
	doc.index()
	person, role := statement.Person("p050000"), statement.RoleName("role-0050")
	b.Run("eligible", func(b *testing.B) {
		for b.Loop() {
			if !doc.Eligible(person, role) {
				b.Fatal("is not")
			}
		}
	})
	b.Run("approves", func(b *testing.B) {
		part := doc.Roles[role].And[0]
		for b.Loop() {
			if !doc.Approves(person, role, part, 0) {
				b.Fatal("does not")
			}
		}
	})
	b.Run("key-owner", func(b *testing.B) {
		key := doc.People[person].Keys[0]
		for b.Loop() {
			if owner, held := doc.KeyOwner(key); !held || owner != person {
				b.Fatal(owner)
			}
		}
	})
	b.Run("approvers", func(b *testing.B) {
		for b.Loop() {
			if len(doc.Approvers("role-0051")) != 1_000 {
				b.Fatal("are others")
			}
		}
	})
	b.Run("governed", func(b *testing.B) {
		for b.Loop() {
			if !slices.Contains(doc.Governed("db1", map[string]string{"tier": "db"}), "postgres") {
				b.Fatal("is not governed")
			}
		}
	})
}
