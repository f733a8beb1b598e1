package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// Difference says in words what changes from old to new, one line a change, in a fixed order; nothing when they say the
// same. Lines name the effect on people first ("bob can no longer approve db-admin"), then how it is written. Revision
// and previous are left out: they change every time. Nil and zero documents stand for "nothing yet".
func Difference(old, new *Document) []string {
	if old == nil {
		old = &Document{}
	}
	if new == nil {
		new = &Document{}
	}
	c := &changes{old: old, new: new, crowds: map[crowdOf][]statement.Person{}, moves: map[[2]string][2][]statement.Person{}}
	if old.Expires != new.Expires && new.Expires != 0 {
		c.say("the policy expires %s%s", new.Expires, was(old.Expires.String()))
	}
	c.people()
	for _, group := range either(old.Groups, new.Groups) {
		c.group(group)
	}
	c.officers("a steward", old.Stewards.People, new.Stewards.People)
	if old.Stewards.Threshold != new.Stewards.Threshold {
		c.say("%s must sign a revision%s", count(new.Stewards.Threshold, "steward"), was(number(old.Stewards.Threshold)))
	}
	c.officers("an operator", old.Operators, new.Operators)
	c.officers("an auditor", old.Auditors, new.Auditors)
	for _, broker := range either(old.Brokers, new.Brokers) {
		c.broker(broker)
	}
	for _, role := range either(old.Roles, new.Roles) {
		c.role(role)
	}
	return c.lines
}

// changes collects the lines of one Difference.
type changes struct {
	old, new *Document
	lines    []string
	crowds   map[crowdOf][]statement.Person
	moves    map[[2]string][2][]statement.Person
}

func (c *changes) say(format string, args ...any) {
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

func (c *changes) people() {
	for _, person := range either(c.old.People, c.new.People) {
		before, known := c.old.People[person]
		after, stays := c.new.People[person]
		switch {
		case !known:
			c.say("%s is new, with the account %s", person, after.Account)
		case !stays:
			c.say("%s is gone, with the account %s", person, before.Account)
		case before.Account != after.Account:
			c.say("%s has the account %s%s", person, after.Account, was(string(before.Account)))
		}
		gone, come := apart(before.Keys, after.Keys)
		for _, key := range come {
			c.say("%s speaks with the key %s", person, inWords(key))
		}
		for _, key := range gone {
			c.say("%s no longer speaks with the key %s", person, inWords(key))
		}
	}
}

func (c *changes) group(group GroupName) {
	before, known := c.old.Groups[group]
	after, stays := c.new.Groups[group]
	if !known {
		c.say("group %s is new", group)
	}
	if !stays {
		c.say("group %s is gone", group)
	}
	gone, come := apart(before, after)
	for _, person := range come {
		c.say("%s joins group %s", person, group)
	}
	for _, person := range gone {
		c.say("%s leaves group %s", person, group)
	}
}

func (c *changes) officers(office string, before, after []statement.Person) {
	gone, come := apart(before, after)
	for _, person := range come {
		c.say("%s becomes %s", person, office)
	}
	for _, person := range gone {
		c.say("%s is no longer %s", person, office)
	}
}

func (c *changes) broker(name statement.BrokerName) {
	before, known := c.old.Brokers[name]
	after, stays := c.new.Brokers[name]
	if !known {
		c.say("broker %s is new", name)
	}
	if !stays {
		c.say("broker %s is gone, and its certificates with it", name)
		return
	}
	if before.Address != after.Address {
		c.say("broker %s is at %s%s", name, after.Address, was(before.Address))
	}
	if before.Identity != after.Identity {
		c.say("broker %s identifies with %s%s", name, inWords(after.Identity), was(inWords(before.Identity)))
	}
	if before.CA != after.CA {
		c.say("broker %s signs certificates with %s%s", name, inWords(after.CA), was(inWords(before.CA)))
	}
	if before.Log != after.Log {
		c.say("broker %s signs the record with %s%s", name, inWords(after.Log), was(inWords(before.Log)))
	}
}

// apart returns what only before and only after hold, each sorted.
func apart[T cmp.Ordered](before, after []T) (gone, come []T) {
	before, after = slices.Sorted(slices.Values(before)), slices.Sorted(slices.Values(after))
	return without(before, after), without(after, before)
}

// without returns what the one sorted list holds and the other does not, each once.
func without[T cmp.Ordered](list, other []T) []T {
	left := slices.DeleteFunc(slices.Clone(list), func(t T) bool {
		_, held := slices.BinarySearch(other, t)
		return held
	})
	return slices.Compact(left)
}

// either returns the keys of both maps, sorted.
func either[K cmp.Ordered, V any](old, new map[K]V) []K {
	return slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Collect(maps.Keys(old)), maps.Keys(new)))))
}

// was is the end of a line that says what stood there before, if anything did.
func was(before string) string {
	if before == "" {
		return ""
	}
	return ", was " + before
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// inWords names a key as ssh-keygen -l does; "" for none.
func inWords(key statement.Key) string {
	if key == "" {
		return ""
	}
	return key.Fingerprint() + " (" + key.Type() + ")"
}

func list[T ~string](members []T) string {
	words := make([]string, len(members))
	for i, member := range members {
		words[i] = string(member)
	}
	return strings.Join(words, ", ")
}
