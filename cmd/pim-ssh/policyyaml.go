package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"pim-ssh/broker/policy"
)

// policyYAML writes a document as the policy.yaml that compiles to it again. Every name in it keeps a grammar without
// special characters; what may hold others is quoted.
func policyYAML(doc *policy.Document) string {
	y := &yamlText{}
	y.line(0, "version: 1")
	y.line(0, "people:")
	for _, name := range slices.Sorted(maps.Keys(doc.People)) {
		entry := doc.People[name]
		y.line(1, "%s: {keys: %s, account: %s}", quoted(name), list(entry.Keys), quoted(entry.Account))
	}
	if len(doc.Groups) > 0 {
		y.line(0, "groups:")
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Groups)) {
		y.line(1, "%s: %s", quoted(name), list(doc.Groups[name]))
	}
	y.line(0, "stewards: {threshold: %d, people: %s}", doc.Stewards.Threshold, list(doc.Stewards.People))
	y.line(0, "operators: %s", list(doc.Operators))
	y.line(0, "auditors: %s", list(doc.Auditors))
	y.line(0, "brokers:")
	for _, name := range slices.Sorted(maps.Keys(doc.Brokers)) {
		b := doc.Brokers[name]
		y.line(1, "%s: {address: %s, identity: %s, ca: %s, log: %s}", quoted(name), quoted(b.Address), quoted(b.Identity), quoted(b.CA), quoted(b.Log))
	}
	if len(doc.Roles) > 0 {
		y.line(0, "roles:")
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Roles)) {
		y.line(1, "%s:", quoted(name))
		role := doc.Roles[name]
		role.PlainKey = role.PlainKey || doc.V == 1 && role.Unapproved() // version 1 knew no other
		y.role(role)
	}
	return y.String()
}

// yamlText collects lines at a depth.
type yamlText struct{ strings.Builder }

func (y *yamlText) line(depth int, format string, args ...any) {
	y.WriteString(strings.Repeat("  ", depth) + fmt.Sprintf(format, args...) + "\n")
}

func (y *yamlText) role(r policy.Role) {
	y.line(2, "hosts: %s", selector(r.Hosts))
	if len(r.Accounts) > 0 {
		y.line(2, "accounts: %s", list(r.Accounts))
	}
	if len(r.Sudo) > 0 {
		y.line(2, "sudo:")
	}
	for _, rule := range r.Sudo {
		y.line(3, "- {as: %s, commands: %s}", quoted(rule.As), list(rule.Commands))
	}
	y.line(2, "eligible: %s", eligible(r))
	y.line(2, "approvals: %s", quorumWritten(r))
	y.line(2, "longest: %s", oneUnit(r.Longest))
	y.line(2, "default: %s", oneUnit(r.Default))
	y.line(2, "pending: %s", oneUnit(r.Pending))
	if r.Offline.Mode == policy.OfflineGrace {
		y.line(2, "offline: {grace: %s}", oneUnit(r.Offline.Grace))
	} else {
		y.line(2, "offline: %s", r.Offline.Mode)
	}
	y.limits(r)
}

func selector(s policy.Selector) string {
	switch {
	case s.Any:
		return "any"
	case len(s.Names) > 0:
		return "{names: " + list(s.Names) + "}"
	}
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		labels = append(labels, quoted(key)+": "+quoted(s.Labels[key]))
	}
	return "{labels: {" + strings.Join(labels, ", ") + "}}"
}

// quoted writes text as a double-quoted scalar, so that on, no and 1 stay words.
func quoted[T ~string](text T) string { return strconv.Quote(string(text)) }

func list[T ~string](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = quoted(item)
	}
	return "[" + strings.Join(words, ", ") + "]"
}
