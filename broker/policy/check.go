package policy

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"pim-ssh/broker/statement"
)

// MaxWindow is the longest window, and the longest a request may wait, in seconds: seven days.
const MaxWindow statement.Seconds = 7 * 24 * 3600

var nameGrammar = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// reserved accounts belong to the machine itself. Nobody's own account is one of them.
var reserved = map[statement.Account]string{
	"root":           "uid 0",
	"breakglass":     "the break-glass account",
	"pim-principals": "sshd's helper",
}

// Check returns nil or every rule the document breaks, as Problems. What passes it cannot lock its people out: the next
// revision can be signed, and every request that may be asked can be answered.
func (d *Document) Check() error {
	c := check(d)
	c.head()
	c.body()
	return c.verdict()
}

// CheckRules is Check without revision, previous and expires, which are given only when a document is drafted.
func (d *Document) CheckRules() error {
	c := check(d)
	c.body()
	return c.verdict()
}

// checker collects problems; it never changes the document.
type checker struct {
	doc      *Document
	found    Problems
	machines map[statement.Key]string // what each key of a broker is for
}

// check begins to check what the document says, with an index of its own: the document may have changed since one was made, and
// lists that are not sorted are problems anyway.
func check(d *Document) *checker {
	indexed := *d
	indexed.index()
	return &checker{doc: &indexed}
}

func (c *checker) verdict() error {
	if len(c.found) == 0 {
		return nil
	}
	return c.found
}

func (c *checker) say(path []string, format string, args ...any) {
	c.found = append(c.found, Problem{Path: path, Msg: fmt.Sprintf(format, args...)})
}

func (c *checker) head() {
	d := c.doc
	if d.V < 1 || d.V > Version {
		c.say(at("v"), "is %d, only 1 to %d are understood", d.V, Version)
	}
	if d.Kind != statement.KindPolicy {
		c.say(at("kind"), "is %q, not %q", d.Kind, statement.KindPolicy)
	}
	if d.Revision == 0 {
		c.say(at("revision"), "starts at 1")
	}
	if _, err := statement.ParseTime(d.Expires.String()); err != nil {
		c.say(at("expires"), "is not given: %v", err)
	}
	if d.Revision <= 1 && d.Previous != "" {
		c.say(at("previous"), "must be empty in the first revision")
	}
	if _, err := statement.ParseHash(d.Previous); d.Revision > 1 && err != nil {
		c.say(at("previous"), "must be the hash of revision %d: %v", d.Revision-1, err)
	}
}

func (c *checker) body() {
	c.people()
	c.groups()
	c.stewards()
	c.officers(at("operators"), c.doc.Operators)
	c.officers(at("auditors"), c.doc.Auditors)
	c.brokers()
	for _, name := range slices.Sorted(maps.Keys(c.doc.Roles)) {
		c.role(name, c.doc.Roles[name])
	}
}

func (c *checker) people() {
	if len(c.doc.People) == 0 {
		c.say(at("people"), "names nobody")
	}
	accounts := map[statement.Account]statement.Person{}
	owners := map[statement.Key]string{}
	governed := c.doc.everGoverned()
	for _, person := range slices.Sorted(maps.Keys(c.doc.People)) {
		entry, path := c.doc.People[person], at("people", string(person))
		if _, err := statement.ParsePerson(string(person)); err != nil {
			c.say(path, "%v", err)
		}
		c.keys(path, entry.Keys, string(person), owners)
		c.ownAccount(path, entry.Account, governed)
		if other, taken := accounts[entry.Account]; taken {
			c.say(below(path, "account"), "%s is already the account of %s: every person needs their own", entry.Account, other)
		}
		accounts[entry.Account] = person
	}
}

func (c *checker) keys(path []string, keys []statement.Key, person string, owners map[statement.Key]string) {
	path = below(path, "keys")
	if len(keys) == 0 {
		c.say(path, "%s has no key, so nobody could act as %s", person, person)
	}
	set(c, path, keys)
	for _, key := range keys {
		if _, err := statement.ParseKey(string(key)); err != nil {
			c.say(below(path, string(key)), "%v", err)
		}
		if other, taken := owners[key]; taken && other != person {
			c.say(below(path, string(key)), "is already a key of %s: a key speaks for one person", other)
		}
		owners[key] = person
	}
}

func (c *checker) ownAccount(path []string, account statement.Account, governed map[statement.Account]statement.RoleName) {
	path = below(path, "account")
	if _, err := statement.ParseAccount(string(account)); err != nil {
		c.say(path, "%v", err)
	}
	if why, is := reserved[account]; is {
		c.say(path, "%s is %s, and nobody's own account", account, why)
		return
	}
	if role, is := governed[account]; is {
		c.say(path, "%s is governed by role %s, so it cannot be a person's own account", account, role)
	}
}

// everGoverned maps each account some role gives, on any host, to the first such role.
func (d *Document) everGoverned() map[statement.Account]statement.RoleName {
	governed := map[statement.Account]statement.RoleName{}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(d.Roles))) {
		accounts := map[statement.Account]bool{}
		d.Roles[name].govern(accounts)
		for account := range accounts {
			governed[account] = name
		}
	}
	return governed
}

func (c *checker) groups() {
	for _, group := range slices.Sorted(maps.Keys(c.doc.Groups)) {
		path := at("groups", string(group))
		if !nameGrammar.MatchString(string(group)) {
			c.say(path, "group %q must be lower-case letters, digits and -, starting with a letter", group)
		}
		if _, clash := c.doc.People[statement.Person(group)]; clash {
			c.say(path, "%s is also a person: a name must mean one thing", group)
		}
		if len(c.doc.Groups[group]) == 0 {
			c.say(path, "is empty: name its people or remove it")
		}
		c.known(path, c.doc.Groups[group])
	}
}

func (c *checker) stewards() {
	people, threshold := c.doc.Stewards.People, c.doc.Stewards.Threshold
	c.officers(at("stewards", "people"), people)
	if threshold < 1 {
		c.say(at("stewards", "threshold"), "is %d, must be at least 1: nothing is valid unsigned", threshold)
	}
	if threshold > statement.MaxSignatures {
		c.say(at("stewards", "threshold"), "is %d, more signatures than the %d a revision can carry", threshold, statement.MaxSignatures)
	}
	if len(people) > 0 && threshold > len(people) {
		c.say(at("stewards", "threshold"), "is %d of only %d: nobody could change the policy again", threshold, len(people))
	}
}

// officers are lists that must never run empty.
func (c *checker) officers(path []string, people []statement.Person) {
	if len(people) == 0 {
		c.say(path, "names nobody: at least one person is needed")
	}
	c.known(path, people)
}

// known holds a list of people to be a set of people of the document.
func (c *checker) known(path []string, people []statement.Person) {
	set(c, path, people)
	for _, person := range people {
		if _, known := c.doc.People[person]; !known {
			c.say(below(path, string(person)), "nobody named %q stands under people%s", person, hinted(c, string(person), c.doc.People))
		}
	}
}

// maxHints is how many problems come with the word that was meant: finding it among many people takes its time.
const maxHints = 50

// hinted is the hint for a name that means nobody: "" or ": did you mean …".
func hinted[K ~string, V any](c *checker, word string, among map[K]V) string {
	if len(c.found) >= maxHints {
		return ""
	}
	var names []string
	for name := range among {
		names = append(names, string(name))
	}
	if name, found := Nearest(word, names); found {
		return fmt.Sprintf(": did you mean %q?", name)
	}
	return ""
}

func at(path ...string) []string { return path }

func below(path []string, more ...string) []string { return slices.Concat(path, more) }

// set says where a list is not sorted or names a member twice.
func set[T cmp.Ordered](c *checker, path []string, list []T) {
	for i := 1; i < len(list); i++ {
		if member := fmt.Sprint(list[i]); list[i] == list[i-1] {
			c.say(below(path, member), "stands twice in the list")
		} else if list[i] < list[i-1] {
			c.say(below(path, member), "lists are sorted, %s stands too late", member)
		}
	}
}
