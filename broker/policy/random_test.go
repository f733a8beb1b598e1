package policy

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"pim-ssh/broker/statement"
)

// The small world random documents are made of: small, so that two of them often agree in most things.
var (
	worldPeople   = []statement.Person{"alice", "bob", "carol", "dave", "erin"}
	worldGroups   = []GroupName{"engineers", "approvers", "on-call"}
	worldAccounts = []statement.Account{"root", "postgres", "deploy"}
	worldCommands = []Command{"/usr/bin/id", "/usr/bin/id -u", "/usr/bin/systemctl restart postgresql", "/bin/setfacl -m u:a:rx,g:b:r --x=/srv"}
	worldKeys     = keys("a", "b", "c", "d", "e", "f", "g", "h")
)

func keys(names ...string) []statement.Key {
	var made []statement.Key
	for _, name := range names {
		made = append(made, key("world-"+name))
	}
	return made
}

// some draws a subset, sorted.
func some[T ~string](t *rapid.T, from []T, least int, what string) []T {
	list := rapid.SliceOfNDistinct(rapid.SampledFrom(from), least, len(from), rapid.ID[T]).Draw(t, what)
	slices.Sort(list)
	return list
}

// drawDocument draws a document that is mostly well-formed: names resolve and grammars hold, but quorums, thresholds, keys,
// accounts and durations fall as they may, so Check has something to decide.
func drawDocument(t *rapid.T) Document {
	d := Document{V: rapid.IntRange(1, Version).Draw(t, "version"), Kind: statement.KindPolicy, Revision: 1, Expires: 1_800_000_000,
		People: map[statement.Person]PersonEntry{}, Groups: map[GroupName][]statement.Person{}, Roles: map[statement.RoleName]Role{}}
	people := some(t, worldPeople, 1, "people")
	for i, person := range people {
		held := []statement.Key{worldKeys[i]}
		if rarely(t, "odd keys") {
			held = some(t, worldKeys, 0, "keys")
		}
		account := statement.Account(person)
		if rarely(t, "odd account") {
			account = rapid.SampledFrom(append(slices.Clone(worldAccounts), "alice")).Draw(t, "account")
		}
		d.People[person] = PersonEntry{Keys: held, Account: account}
	}
	names := make([]Name, 0, len(people))
	for _, person := range people {
		names = append(names, Name(person))
	}
	for _, group := range some(t, worldGroups, 0, "groups") {
		d.Groups[group] = some(t, people, 1, "group")
		names = append(names, Name(group))
	}
	d.Stewards = Stewards{Threshold: 1, People: some(t, people, 1, "stewards")}
	if rarely(t, "odd stewards") {
		d.Stewards = Stewards{Threshold: rapid.IntRange(0, 3).Draw(t, "threshold"), People: some(t, people, 0, "stewards")}
	}
	d.Operators, d.Auditors = some(t, people, 1, "operators"), some(t, people, 1, "auditors")
	d.Brokers = map[statement.BrokerName]Broker{"b1": {Address: "b1:7443", Identity: key("b1"), CA: key("b1-ca"), Log: key("b1-log")}}
	for i := range rapid.IntRange(0, 2).Draw(t, "roles") {
		role := drawRole(t, names)
		if d.V > 1 {
			role = drawLimits(t, role, names)
		}
		d.Roles[statement.RoleName(fmt.Sprintf("role-%d", i))] = role
	}
	return d.Sorted()
}

func drawRole(t *rapid.T, names []Name) Role {
	r := Role{
		Hosts: rapid.SampledFrom([]Selector{{Any: true}, {Names: []statement.HostName{"db1", "web1"}}, {Labels: map[string]string{"tier": "db"}},
			{Labels: map[string]string{"tier": "web", "site": "a"}}}).Draw(t, "hosts"),
		Accounts: some(t, worldAccounts, 0, "accounts"),
		Eligible: some(t, names, 1, "eligible"),
		Longest:  statement.Seconds(rapid.SampledFrom([]int{20, 3600, 14400}).Draw(t, "longest")),
		Default:  10,
		Pending:  statement.Seconds(rapid.SampledFrom([]int{60, 86400}).Draw(t, "pending")),
		Offline:  rapid.SampledFrom([]Offline{{Mode: OfflineStrict}, {OfflineGrace, 900}, {OfflineGrace, 60}, {Mode: OfflineWindow}}).Draw(t, "offline"),
	}
	if rarely(t, "odd role") {
		r.Hosts, r.Default = Selector{}, 3600
	}
	for _, account := range some(t, worldAccounts, 0, "sudo") {
		commands := []Command{All}
		if rapid.Bool().Draw(t, "limited") {
			commands = some(t, worldCommands, 1, "commands")
		}
		r.Sudo = append(r.Sudo, SudoRule{As: account, Commands: commands})
	}
	r.Approvals = Approvals{None: true}
	if rapid.Bool().Draw(t, "approved") {
		r.Approvals = Approvals{Count: rapid.IntRange(1, 2).Draw(t, "count"), From: some(t, names, 1, "from")}
	}
	return r
}

func rarely(t *rapid.T, what string) bool { return rapid.IntRange(0, 19).Draw(t, what) == 13 }

// TestRandomDocumentsSurviveDrafting: what is drafted is read back equal and drafted again to the same bytes.
func TestRandomDocumentsSurviveDrafting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := drawDocument(t)
		if lines := Difference(&doc, &doc); len(lines) != 0 {
			t.Fatalf("differs from itself: %v", lines)
		}
		payload, err := Draft(doc)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || doc.Check() == nil {
				t.Fatalf("refused for no stated problem: %v", err)
			}
			return
		}
		again, err := Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&doc, again, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Document{})); diff != "" {
			t.Fatal(diff)
		}
		redrafted, err := Draft(*again)
		if err != nil || string(redrafted) != string(payload) {
			t.Fatalf("%v: a second spelling:\n%s\n%s", err, payload, redrafted)
		}
		if lines := Difference(&doc, again); len(lines) != 0 {
			t.Fatalf("differs after reading: %v", lines)
		}
	})
}

// TestRandomDifferenceIsNeverSilent: two documents of which no difference is told are the same bytes.
func TestRandomDifferenceIsNeverSilent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := drawDocument(t).Sorted()
		new := old.Sorted()
		other := drawDocument(t)
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0:
			new.People = other.People
		case 1:
			new.Groups = other.Groups
		case 2:
			new.Stewards = other.Stewards
		case 3:
			new.Operators = other.Operators
		case 4:
			new.Auditors = other.Auditors
		case 5:
			new.Roles = other.Roles
		}
		before, errOld := encode(&old)
		after, errNew := encode(&new)
		if errOld != nil || errNew != nil {
			t.Fatal(errOld, errNew)
		}
		if lines := Difference(&old, &new); (len(lines) == 0) != (string(before) == string(after)) {
			t.Fatalf("told %q between\n%s\n%s", lines, before, after)
		}
	})
}

// TestRandomDocumentsNeverLockOut holds whatever Check lets through to a second, naive reading of the rules.
func TestRandomDocumentsNeverLockOut(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		doc := drawDocument(t)
		if doc.Check() != nil {
			return
		}
		accepted++
		owner := map[statement.Key]statement.Person{}
		home := map[statement.Account]statement.Person{}
		for person, entry := range doc.People {
			if len(entry.Keys) == 0 || home[entry.Account] != "" || entry.Account == "root" {
				t.Fatalf("%s cannot act or shares the account %s", person, entry.Account)
			}
			home[entry.Account] = person
			for _, k := range entry.Keys {
				if owner[k] != "" {
					t.Fatalf("%s and %s share a key", person, owner[k])
				}
				owner[k] = person
			}
		}
		if n := doc.Stewards.Threshold; n < 1 || n > len(doc.Stewards.People) {
			t.Fatalf("%d of %d stewards", n, len(doc.Stewards.People))
		}
		for name, role := range doc.Roles {
			naiveRole(t, doc, string(name), role, home)
		}
	})
	t.Logf("%d documents accepted", accepted)
	if accepted == 0 {
		t.Error("no document was ever accepted, so nothing was tried")
	}
}

func naiveRole(t *rapid.T, doc Document, name string, role Role, home map[statement.Account]statement.Person) {
	mean := func(names []Name) map[statement.Person]bool {
		people := map[statement.Person]bool{}
		for _, n := range names {
			if _, is := doc.People[statement.Person(n)]; is {
				people[statement.Person(n)] = true
			}
			for _, member := range doc.Groups[GroupName(n)] {
				people[member] = true
			}
		}
		return people
	}
	for asker := range mean(role.Eligible) {
		others := mean(role.Approvals.From)
		delete(others, asker)
		if !role.Approvals.None && (role.Approvals.Count < 1 || len(others) < role.Approvals.Count) {
			t.Fatalf("%s can ask for %s, which needs %d of %v", asker, name, role.Approvals.Count, others)
		}
	}
	for _, rule := range role.Sudo {
		if home[rule.As] != "" {
			t.Fatalf("%s runs as %s's own account", name, home[rule.As])
		}
	}
	if role.Default > role.Longest || role.Default < 1 {
		t.Fatalf("%s lasts %d of %d", name, role.Default, role.Longest)
	}
	if !role.Hosts.Any && len(role.Hosts.Names)+len(role.Hosts.Labels) == 0 {
		t.Fatalf("%s selects nothing", name)
	}
}
