package policyfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Scenarios is what a scenario file says.
type Scenarios struct {
	Hosts map[statement.HostName]map[string]string // every machine that a scenario names, with its labels
	List  []Scenario                               // at least one
}

// Scenario is one thing that somebody asks, who answers, and what must come of it.
type Scenario struct {
	Name     string
	Line     int
	Person   statement.Person
	Role     statement.RoleName
	Hosts    []statement.HostName // sorted; at least one
	For      statement.Seconds    // zero: the role's default
	At       statement.Time       // of asking
	Starts   statement.Time       // of the window, when it is to begin later
	Reason   string               // "": one that is long enough
	Ticket   string
	Key      KeyWord
	From     netip.Addr // where it comes from; the zero Addr: networks are not tried
	Approved []Approved // in the order of After

	Then    Ending
	Until   statement.Time // of a grant; zero: any
	Because string         // part of what is said; "": anything
}

// Approved is one person's yes.
type Approved struct {
	Person statement.Person
	After  statement.Seconds // since the request
	Why    string
	Key    KeyWord
	From   netip.Addr
	Hosts  []statement.HostName // none: all
	For    statement.Seconds    // zero: as asked
}

// KeyWord is the kind of key that signs.
type KeyWord string

// The closed set of kinds of keys. The zero value is the plainest that the person has.
const (
	AnyKey   KeyWord = ""
	PlainKey KeyWord = "plain"
	TouchKey KeyWord = "security-key" // touched, and its holder verified
)

// Ending is what came of a request.
type Ending string

// The closed set of endings.
const (
	Granted Ending = "granted" // on every one of its hosts
	Pending Ending = "pending" // more approvals are needed
	Refused Ending = "refused"
)

const maxScenarios = 1000

// ParseScenarios reads a scenario file as strictly as Parse does a policy, and holds its names to the policy it is for. Scenarios
// that say no moment are asked at now. The name only stands in errors, which are Errors.
func ParseScenarios(name string, text []byte, doc *policy.Document, now statement.Time) (Scenarios, error) {
	r := &reader{name: name}
	root := r.tree(text)
	var read Scenarios
	if len(r.found) == 0 {
		s := &scenarios{reader: r, doc: doc, at: now}
		read = s.file(root)
	}
	if len(r.found) > 0 {
		r.found.sort()
		return Scenarios{}, r.found
	}
	return read, nil
}

// scenarios reads one file; a scenario may rely on what stands at its top.
type scenarios struct {
	*reader
	doc   *policy.Document
	at    statement.Time
	hosts map[statement.HostName]map[string]string
	names []string
}

func (s *scenarios) file(root ast.Node) Scenarios {
	var list ast.Node
	s.object(root, "a scenario file", nil,
		field{"at", false, func(n ast.Node) { oneOf(s.reader, n, "at", &s.at, statement.ParseTime) }},
		field{"hosts", true, func(n ast.Node) { s.machines(n) }},
		field{"scenarios", true, func(n ast.Node) { list = n }},
	)
	if list == nil {
		return Scenarios{}
	}
	read := Scenarios{Hosts: s.hosts, List: items(s.reader, list, "scenarios", "{name: …, person: …, asks: …, hosts: […], then: …}", s.scenario)}
	if len(read.List) > maxScenarios {
		s.say(where(list), "%d scenarios: at most %d", len(read.List), maxScenarios)
	}
	return read
}

func (s *scenarios) machines(n ast.Node) {
	s.hosts = map[statement.HostName]map[string]string{}
	s.named(n, "hosts", func(e entry) {
		name, err := statement.ParseHostName(e.key)
		if err != nil {
			s.say(e.at, "%v", err)
			return
		}
		s.hosts[name] = s.labels(e.value)
		if err := statement.CheckLabels(s.hosts[name]); err != nil {
			s.say(where(e.value), "%v", err)
		}
	})
}

func (s *scenarios) scenario(n ast.Node) Scenario {
	one := Scenario{At: s.at, Line: where(n).line}
	s.object(n, "a scenario", nil,
		field{"name", true, func(n ast.Node) { one.Name = s.title(n) }},
		field{"person", true, func(n ast.Node) { one.Person = s.person(n, "person") }},
		field{"asks", true, func(n ast.Node) { one.Role = s.asked(n) }},
		field{"hosts", true, func(n ast.Node) { one.Hosts = s.some(n) }},
		field{"for", false, func(n ast.Node) { one.For = s.duration(n, "for") }},
		field{"at", false, func(n ast.Node) { oneOf(s.reader, n, "at", &one.At, statement.ParseTime) }},
		field{"starts", false, func(n ast.Node) { oneOf(s.reader, n, "starts", &one.Starts, statement.ParseTime) }},
		field{"reason", false, func(n ast.Node) { one.Reason, _ = s.text(n, "reason") }},
		field{"ticket", false, func(n ast.Node) { one.Ticket, _ = s.text(n, "ticket") }},
		field{"key", false, func(n ast.Node) { one.Key = s.key(n) }},
		field{"from", false, func(n ast.Node) { oneOf(s.reader, n, "from", &one.From, parseAddress) }},
		field{"approved_by", false, func(n ast.Node) {
			one.Approved = items(s.reader, n, "approved_by", "people and {who: bob, after: 10m}", s.approved)
		}},
		field{"then", true, func(n ast.Node) { one.Then = s.ending(n) }},
		field{"until", false, func(n ast.Node) { oneOf(s.reader, n, "until", &one.Until, statement.ParseTime) }},
		field{"because", false, func(n ast.Node) { one.Because, _ = s.text(n, "because") }},
	)
	slices.SortStableFunc(one.Approved, func(a, b Approved) int { return int(a.After - b.After) })
	if one.Until != 0 && one.Then != Granted {
		s.say(where(n), "until is of a grant, but this is to be %s", one.Then)
	}
	if one.Starts != 0 && one.Starts < one.At {
		s.say(where(n), "starts is before it is asked, at %s", one.At)
	}
	s.holds(n, one.Person, one.Key)
	return one
}

func (s *scenarios) approved(n ast.Node) Approved {
	var one Approved
	if _, is := n.(*ast.MappingNode); !is {
		one.Person = s.person(n, "each of approved_by")
		return one
	}
	s.object(n, "an approval", nil,
		field{"who", true, func(n ast.Node) { one.Person = s.person(n, "who") }},
		field{"after", false, func(n ast.Node) { one.After = s.duration(n, "after") }},
		field{"why", false, func(n ast.Node) { one.Why, _ = s.text(n, "why") }},
		field{"key", false, func(n ast.Node) { one.Key = s.key(n) }},
		field{"from", false, func(n ast.Node) { oneOf(s.reader, n, "from", &one.From, parseAddress) }},
		field{"hosts", false, func(n ast.Node) { one.Hosts = s.some(n) }},
		field{"for", false, func(n ast.Node) { one.For = s.duration(n, "for") }},
	)
	s.holds(n, one.Person, one.Key)
	return one
}

func parseAddress(written string) (netip.Addr, error) {
	address, err := netip.ParseAddr(written)
	if err != nil {
		return address, fmt.Errorf("%.50q is no address such as 192.0.2.7", written)
	}
	return address, nil
}

// title is a scenario's name: what a wrong one is found by.
func (s *scenarios) title(n ast.Node) string {
	name, is := s.text(n, "name")
	switch {
	case !is:
	case strings.TrimSpace(name) == "":
		s.say(where(n), "name is empty")
	case slices.Contains(s.names, name):
		s.say(where(n), "%q is the name of another scenario", shortened(name))
	}
	s.names = append(s.names, name)
	return name
}

func (s *scenarios) person(n ast.Node, what string) statement.Person {
	var person statement.Person
	oneOf(s.reader, n, what, &person, statement.ParsePerson)
	if _, known := s.doc.People[person]; !known && person != "" {
		s.say(where(n), "the policy names nobody %q%s", person, near(string(person), s.doc.People))
	}
	return person
}

func (s *scenarios) asked(n ast.Node) statement.RoleName {
	var role statement.RoleName
	oneOf(s.reader, n, "asks", &role, statement.ParseRoleName)
	if _, known := s.doc.Roles[role]; !known && role != "" {
		s.say(where(n), "the policy has no role %q%s", role, near(string(role), s.doc.Roles))
	}
	return role
}

// some reads hosts, each of which must have its labels at the top.
func (s *scenarios) some(n ast.Node) []statement.HostName {
	hosts := texts(s.reader, n, "hosts", statement.ParseHostName)
	for _, host := range hosts {
		if _, known := s.hosts[host]; !known {
			s.say(where(n), "host %q does not stand under hosts at the top%s", host, near(string(host), s.hosts))
		}
	}
	if _, is := n.(*ast.SequenceNode); is && len(hosts) == 0 {
		s.say(where(n), "hosts names none")
	}
	return hosts
}

func near[K ~string, V any](word string, among map[K]V) string {
	var names []string
	for name := range among {
		names = append(names, string(name))
	}
	return meant(word, names...)
}

func (s *scenarios) key(n ast.Node) KeyWord {
	written, is := s.text(n, "key")
	word := KeyWord(written)
	if is && word != PlainKey && word != TouchKey {
		s.say(where(n), "key must be plain or security-key, not %q%s", shortened(written), meant(written, string(PlainKey), string(TouchKey)))
	}
	return word
}

func (s *scenarios) ending(n ast.Node) Ending {
	written, is := s.text(n, "then")
	ending := Ending(written)
	if words := []Ending{Granted, Pending, Refused}; is && !slices.Contains(words, ending) {
		s.say(where(n), "then must be granted, pending or refused, not %q%s", shortened(written), meant(written, "granted", "pending", "refused"))
	}
	return ending
}

// holds keeps a scenario to keys that the policy lists for the person.
func (s *scenarios) holds(n ast.Node, person statement.Person, word KeyWord) {
	entry, known := s.doc.People[person]
	kind := func(key statement.Key) bool { return key.SecurityKey() == (word == TouchKey) }
	if known && word != AnyKey && !slices.ContainsFunc(entry.Keys, kind) {
		s.say(where(n), "the policy lists no %s key of %s", strings.TrimSuffix(string(word), "-key"), person)
	}
}
