package policyfile

import (
	"strings"

	"github.com/goccy/go-yaml/ast"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// What later releases will enforce. Until then a policy that relies on it would promise more than it keeps.
var (
	laterInFile   = []string{"custodians", "breakglass", "witnesses", "notify", "hooks", "reviews", "approval_hours"}
	laterInPerson = []string{"until", "totp", "email", "notify"}
	laterInRole   = []string{"groups", "reauthenticate", "review", "extend", "ceiling", "until"}
)

// Defaults for what a role need not write; none of them opens anything.
const (
	defaultPending = statement.Day
	defaultWindow  = statement.Seconds(3600)
	defaultGrace   = statement.Seconds(900)
)

func (r *reader) file(root ast.Node) File {
	file := File{Lifetime: Lifetime}
	d := &file.Document
	d.V, d.Kind = policy.Version, statement.KindPolicy
	r.object(root, "the policy", laterInFile,
		field{"version", true, r.version},
		field{"expires", false, func(n ast.Node) { file.Lifetime = r.lifetime(n) }},
		field{"people", true, func(n ast.Node) { d.People = r.people(n) }},
		field{"groups", false, func(n ast.Node) { d.Groups = r.groups(n) }},
		field{"stewards", true, func(n ast.Node) { d.Stewards = r.stewards(n) }},
		field{"operators", true, func(n ast.Node) { d.Operators = texts(r, n, "operators", statement.ParsePerson) }},
		field{"auditors", true, func(n ast.Node) { d.Auditors = texts(r, n, "auditors", statement.ParsePerson) }},
		field{"brokers", true, func(n ast.Node) { d.Brokers = r.brokers(n) }},
		field{"roles", false, func(n ast.Node) { d.Roles = r.roles(n) }},
	)
	file.Document = d.Sorted()
	return file
}

func (r *reader) version(n ast.Node) {
	if version := r.number(n, "version"); version != statement.Version {
		r.say(where(n), "version must be %d", statement.Version)
	}
}

func (r *reader) lifetime(n ast.Node) statement.Seconds {
	lifetime := r.duration(n, "expires")
	if lifetime > 366*statement.Day {
		r.say(where(n), "expires must be at most 366d from signing")
	}
	return lifetime
}

func (r *reader) people(n ast.Node) map[statement.Person]policy.PersonEntry {
	people := map[statement.Person]policy.PersonEntry{}
	r.named(n, "people", func(e entry) {
		person, err := statement.ParsePerson(e.key)
		if err != nil {
			r.say(e.at, "%v", err)
			return
		}
		one := policy.PersonEntry{Account: statement.Account(person)}
		r.object(e.value, "a person", laterInPerson,
			field{"keys", true, func(n ast.Node) { one.Keys = texts(r, n, "keys", parseKey) }},
			field{"account", false, func(n ast.Node) { oneOf(r, n, "account", &one.Account, statement.ParseAccount) }},
		)
		people[person] = one
	})
	return people
}

// parseKey reads a key as it stands in a .pub file: the comment at its end is dropped.
func parseKey(written string) (statement.Key, error) {
	if words := strings.SplitN(written, " ", 3); len(words) == 3 {
		written = words[0] + " " + words[1]
	}
	return statement.ParseKey(written)
}

func (r *reader) groups(n ast.Node) map[policy.GroupName][]statement.Person {
	groups := map[policy.GroupName][]statement.Person{}
	r.named(n, "groups", func(e entry) {
		groups[policy.GroupName(e.key)] = texts(r, e.value, "group "+e.key, statement.ParsePerson)
	})
	return groups
}

func (r *reader) stewards(n ast.Node) policy.Stewards {
	var stewards policy.Stewards
	r.object(n, "stewards", nil,
		field{"threshold", true, func(n ast.Node) { stewards.Threshold = r.number(n, "threshold") }},
		field{"people", true, func(n ast.Node) { stewards.People = texts(r, n, "people", statement.ParsePerson) }},
	)
	return stewards
}

func (r *reader) brokers(n ast.Node) map[statement.BrokerName]policy.Broker {
	brokers := map[statement.BrokerName]policy.Broker{}
	r.named(n, "brokers", func(e entry) {
		name, err := statement.ParseBrokerName(e.key)
		if err != nil {
			r.say(e.at, "%v", err)
			return
		}
		var one policy.Broker
		r.object(e.value, "a broker", nil,
			field{"address", true, func(n ast.Node) { one.Address, _ = r.text(n, "address") }},
			field{"identity", true, func(n ast.Node) { oneOf(r, n, "identity", &one.Identity, parseKey) }},
			field{"ca", true, func(n ast.Node) { oneOf(r, n, "ca", &one.CA, parseKey) }},
			field{"log", true, func(n ast.Node) { oneOf(r, n, "log", &one.Log, parseKey) }},
		)
		brokers[name] = one
	})
	return brokers
}

func (r *reader) roles(n ast.Node) map[statement.RoleName]policy.Role {
	roles := map[statement.RoleName]policy.Role{}
	r.named(n, "roles", func(e entry) {
		name, err := statement.ParseRoleName(e.key)
		if err != nil {
			r.say(e.at, "%v", err)
			return
		}
		roles[name] = r.role(e.value)
	})
	return roles
}

func (r *reader) role(n ast.Node) policy.Role {
	role := policy.Role{Pending: defaultPending, Offline: policy.Offline{Mode: policy.OfflineGrace, Grace: defaultGrace}}
	var factors secondFactor
	r.object(n, "a role", laterInRole, append([]field{
		{"hosts", true, func(n ast.Node) { role.Hosts = r.selector(n) }},
		{"accounts", false, func(n ast.Node) { role.Accounts = texts(r, n, "accounts", statement.ParseAccount) }},
		{"sudo", false, func(n ast.Node) { role.Sudo = r.sudo(n) }},
		{"eligible", false, func(n ast.Node) { role.Eligible, role.Dated = r.eligible(n) }},
		{"approvals", true, func(n ast.Node) { role.Approvals, role.And = r.approvals(n) }},
		{"longest", true, func(n ast.Node) { role.Longest = r.duration(n, "longest") }},
		{"default", false, func(n ast.Node) { role.Default = r.duration(n, "default") }},
		{"pending", false, func(n ast.Node) { role.Pending = r.duration(n, "pending") }},
		{"offline", false, func(n ast.Node) { role.Offline = r.offline(n) }},
		{"permit", false, r.permit},
		{"second_factor", false, func(n ast.Node) { factors = r.secondFactor(n) }},
	}, r.limits(&role)...)...)
	role.Factors = factors.of(role)
	if role.Default == 0 {
		role.Default = min(defaultWindow, role.Longest)
	}
	return role
}

// parseName takes any word: whether it means a group or a person is the policy's own rule.
func parseName(written string) (policy.Name, error) { return policy.Name(written), nil }

func (r *reader) permit(n ast.Node) {
	if list, is := n.(*ast.SequenceNode); !is || len(list.Values) > 0 {
		r.say(where(n), "permit is not enforced yet: it must be [] or left out")
	}
}

func (r *reader) selector(n ast.Node) policy.Selector {
	var selector policy.Selector
	if word, is := n.(*ast.StringNode); is {
		if word.Value != "any" {
			r.say(where(n), "hosts must be any, {names: […]} or {labels: {…}}, not %q", shortened(word.Value))
		}
		selector.Any = word.Value == "any"
		return selector
	}
	r.object(n, "hosts", nil,
		field{"names", false, func(n ast.Node) { selector.Names = texts(r, n, "names", statement.ParseHostName) }},
		field{"labels", false, func(n ast.Node) { selector.Labels = r.labels(n) }},
	)
	return selector
}

func (r *reader) labels(n ast.Node) map[string]string {
	labels := map[string]string{}
	r.named(n, "labels", func(e entry) { labels[e.key], _ = r.text(e.value, "label "+e.key) })
	return labels
}

func (r *reader) sudo(n ast.Node) []policy.SudoRule {
	sequence, is := n.(*ast.SequenceNode)
	if !is {
		r.say(where(n), "sudo must be a list of {as: ACCOUNT, commands: […]}, not %s", kindOf(n))
		return nil
	}
	rules := []policy.SudoRule{}
	for _, item := range sequence.Values {
		var rule policy.SudoRule
		r.object(item, "a sudo rule", nil,
			field{"as", true, func(n ast.Node) { oneOf(r, n, "as", &rule.As, statement.ParseAccount) }},
			field{"commands", true, func(n ast.Node) { rule.Commands = texts(r, n, "commands", policy.ParseCommand) }},
		)
		rules = append(rules, rule)
	}
	return rules
}

func (r *reader) offline(n ast.Node) policy.Offline {
	if word, is := n.(*ast.StringNode); is {
		mode := policy.OfflineMode(word.Value)
		if mode != policy.OfflineStrict && mode != policy.OfflineWindow {
			r.say(where(n), "offline must be strict, {grace: DURATION} or window, not %q", shortened(word.Value))
		}
		return policy.Offline{Mode: mode}
	}
	offline := policy.Offline{Mode: policy.OfflineGrace}
	r.object(n, "offline", nil, field{"grace", true, func(n ast.Node) { offline.Grace = r.duration(n, "grace") }})
	return offline
}
