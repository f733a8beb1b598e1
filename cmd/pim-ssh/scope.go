package main

import (
	"maps"
	"slices"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

const scopeHint = "write ROLE@HOST, ROLE@HOST,HOST or ROLE@LABEL=VALUE"

// scope is the part after the @: host names, or labels that a host must all carry; neither when nothing was written.
type scope struct {
	names  []statement.HostName
	labels map[string]string
}

// parseAsked reads ROLE[@SCOPE].
func parseAsked(text string) (statement.RoleName, scope, error) {
	name, rest, scoped := strings.Cut(text, "@")
	role, err := statement.ParseRoleName(name)
	if err != nil {
		return "", scope{}, usage("pim-ssh roles", "%v", err)
	}
	if !scoped {
		return role, scope{}, nil
	}
	parsed, err := parseScope(rest)
	return role, parsed, err
}

func parseScope(text string) (scope, error) {
	var s scope
	for part := range strings.SplitSeq(text, ",") {
		label, value, isLabel := strings.Cut(part, "=")
		if isLabel {
			if s.labels == nil {
				s.labels = map[string]string{}
			}
			if earlier, twice := s.labels[label]; twice && earlier != value {
				return scope{}, usage(scopeHint, "label %s is given twice: no host carries both", label)
			}
			s.labels[label] = value
			continue
		}
		name, err := statement.ParseHostName(part)
		if err != nil {
			return scope{}, usage(scopeHint, "%v", err)
		}
		s.names = append(s.names, name)
	}
	if len(s.names) > 0 && len(s.labels) > 0 {
		return scope{}, usage(scopeHint, "scope %q mixes hosts and labels", text)
	}
	if err := statement.CheckLabels(s.labels); err != nil {
		return scope{}, usage(scopeHint, "%v", err)
	}
	return s, nil
}

// expand turns a scope into host names: sorted, each once, each reached by the role. Without a scope the role must
// reach exactly one host, so that leaving it out never means all.
func (s scope) expand(name statement.RoleName, role policy.Role, hosts map[statement.HostName]enrolled) ([]statement.HostName, error) {
	reached := []statement.HostName{}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		if role.Hosts.Selects(host, hosts[host].token.Labels) {
			reached = append(reached, host)
		}
	}
	switch {
	case len(s.names) > 0:
		return s.byName(name, hosts, reached)
	case len(s.labels) > 0:
		return s.byLabel(name, hosts, reached)
	case len(reached) == 1:
		return reached, nil
	case len(reached) == 0:
		return nil, missing("ask an operator: pim-ssh host token NAME", "role %s reaches no enrolled host", name)
	}
	return nil, usage("pim-ssh request "+string(name)+"@"+joined(reached), "role %s reaches %d hosts: say which", name, len(reached))
}

func (s scope) byName(role statement.RoleName, hosts map[statement.HostName]enrolled, reached []statement.HostName) ([]statement.HostName, error) {
	for _, name := range s.names {
		if _, known := hosts[name]; !known {
			return nil, missing("pim-ssh roles", "no host %s is enrolled", name)
		}
		if !slices.Contains(reached, name) {
			return nil, missing("pim-ssh roles", "role %s does not reach host %s", role, name)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(s.names))), nil
}

func (s scope) byLabel(role statement.RoleName, hosts map[statement.HostName]enrolled, reached []statement.HostName) ([]statement.HostName, error) {
	wanted := policy.Selector{Labels: s.labels}
	var chosen []statement.HostName
	for _, name := range reached {
		if wanted.Selects(name, hosts[name].token.Labels) {
			chosen = append(chosen, name)
		}
	}
	if len(chosen) == 0 {
		return nil, missing("pim-ssh roles", "role %s reaches no host with these labels", role)
	}
	return chosen, nil
}

// joined writes names with commas.
func joined[T ~string](names []T) string {
	words := make([]string, len(names))
	for i, name := range names {
		words[i] = string(name)
	}
	return strings.Join(words, ",")
}
