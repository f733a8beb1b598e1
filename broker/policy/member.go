package policy

import (
	"maps"
	"slices"

	"pim-ssh/broker/statement"
)

// Members resolves names (people, and groups one level deep) to the distinct people they mean, sorted. A name that
// means nobody in this document adds nobody.
func (d *Document) Members(names []Name) []statement.Person {
	found := map[statement.Person]bool{}
	for _, name := range names {
		for _, person := range d.meaning(name) {
			if _, known := d.People[person]; known {
				found[person] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// some returns distinct able people whom the names mean, sorted: most of them at the most.
func (d *Document) some(names []Name, most int, able func(statement.Person) bool) []statement.Person {
	found := map[statement.Person]bool{}
	for _, name := range names {
		for _, person := range d.meaning(name) {
			if len(found) >= most {
				break
			}
			if _, known := d.People[person]; known && able(person) {
				found[person] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// touches reports whether the person has a security key.
func (d *Document) touches(person statement.Person) bool {
	return slices.ContainsFunc(d.People[person].Keys, statement.Key.SecurityKey)
}

// meaning is the people one name stands for, unresolved. Check makes sure that no name is both group and person.
func (d *Document) meaning(name Name) []statement.Person {
	if members, isGroup := d.Groups[GroupName(name)]; isGroup {
		return members
	}
	return []statement.Person{statement.Person(name)}
}

// Eligible reports whether the person may ask for the role, now or at another time, on some host.
func (d *Document) Eligible(person statement.Person, role statement.RoleName) bool {
	_, known := d.People[person]
	return known && len(d.Entries(person, role)) > 0
}

// Approvers returns the distinct people whose decisions count for the role, sorted, those who stand in for others after a while
// among them; nobody when the role needs none or does not exist. An asker who is among them never counts for their own request.
func (d *Document) Approvers(role statement.RoleName) []statement.Person {
	return d.Members(d.Roles[role].deciders())
}

// deciders are the names of those whose decisions count, at once or after a while.
func (r Role) deciders() []Name {
	var names []Name
	for _, part := range r.Reviewers() {
		names = append(names, part.From...)
	}
	for _, fallback := range r.Fallback {
		names = append(names, fallback.From...)
	}
	return names
}

// Steward reports whether the person may sign the next revision.
func (d *Document) Steward(person statement.Person) bool {
	return slices.Contains(d.Stewards.People, person)
}

// Operator reports whether the person may enrol and remove hosts, and revoke.
func (d *Document) Operator(person statement.Person) bool {
	return slices.Contains(d.Operators, person)
}

// Auditor reports whether the person may read everything.
func (d *Document) Auditor(person statement.Person) bool { return slices.Contains(d.Auditors, person) }

// HoldsKey reports whether the key is one of the person's keys.
func (d *Document) HoldsKey(person statement.Person, key statement.Key) bool {
	return slices.Contains(d.People[person].Keys, key)
}

// KeyOwner returns the one person who holds the key.
func (d *Document) KeyOwner(key statement.Key) (statement.Person, bool) {
	if d.owners != nil {
		person, held := d.owners[key]
		return person, held
	}
	for person, entry := range d.People {
		if slices.Contains(entry.Keys, key) {
			return person, true
		}
	}
	return "", false
}

// index makes the document's keys and the members of groups quick to find. Nobody changes the document any more.
func (d *Document) index() {
	d.owners = make(map[statement.Key]statement.Person, len(d.People))
	for person, entry := range d.People {
		for _, key := range entry.Keys {
			if other, shared := d.owners[key]; !shared || person < other {
				d.owners[key] = person
			}
		}
	}
}

// CAKeys returns the keys that may sign certificates, sorted.
func (d *Document) CAKeys() []statement.Key {
	keys := make([]statement.Key, 0, len(d.Brokers))
	for _, broker := range d.Brokers {
		keys = append(keys, broker.CA)
	}
	slices.Sort(keys)
	return keys
}

// LogKeys returns the keys that sign checkpoints of the record, by broker.
func (d *Document) LogKeys() map[statement.BrokerName]statement.Key {
	keys := map[statement.BrokerName]statement.Key{}
	for name, broker := range d.Brokers {
		keys[name] = broker.Log
	}
	return keys
}

// Governed returns the accounts that roles reaching this host log in as or run as, sorted.
func (d *Document) Governed(host statement.HostName, labels map[string]string) []statement.Account {
	found := map[statement.Account]bool{}
	for _, role := range d.Roles {
		if role.Hosts.Selects(host, labels) {
			role.govern(found)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// govern adds the role's accounts to found.
func (r Role) govern(found map[statement.Account]bool) {
	for _, account := range r.Accounts {
		found[account] = true
	}
	for _, rule := range r.Sudo {
		found[rule.As] = true
	}
}
