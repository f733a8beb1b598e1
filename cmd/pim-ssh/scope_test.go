package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func TestScopesExpandToNamesThatTheRoleReaches(t *testing.T) {
	host := func(labels map[string]string) enrolled {
		return enrolled{token: statement.HostToken{Labels: labels}}
	}
	hosts := map[statement.HostName]enrolled{
		"db1": host(map[string]string{"tier": "db", "zone": "a"}), "db2": host(map[string]string{"tier": "db", "zone": "b"}),
		"web1": host(map[string]string{"tier": "web", "zone": "a"}),
	}
	db := policy.Selector{Labels: map[string]string{"tier": "db"}}
	web := policy.Selector{Names: []statement.HostName{"web1"}}
	for name, c := range map[string]struct {
		asked string
		reach policy.Selector
		want  []statement.HostName // nil: refused
		code  int
	}{
		"one host":                           {"r@db1", db, []statement.HostName{"db1"}, 0},
		"several, sorted, each once":         {"r@db2,db1,db2", db, []statement.HostName{"db1", "db2"}, 0},
		"a label":                            {"r@zone=a", db, []statement.HostName{"db1"}, 0},
		"two labels that must both fit":      {"r@tier=db,zone=b", db, []statement.HostName{"db2"}, 0},
		"a label never widens the role":      {"r@zone=a", web, []statement.HostName{"web1"}, 0},
		"no scope, one host":                 {"r", web, []statement.HostName{"web1"}, 0},
		"no scope never means all":           {"r", db, nil, exitUsage},
		"no scope under any never means all": {"r", policy.Selector{Any: true}, nil, exitUsage},
		"a role that reaches nothing":        {"r", policy.Selector{}, nil, 4},
		"a host nobody enrolled":             {"r@db9", db, nil, 4},
		"a host the role does not reach":     {"r@web1", db, nil, 4},
		"one of two out of reach":            {"r@db1,web1", db, nil, 4},
		"a label no host carries":            {"r@tier=gold", db, nil, 4},
		"one label with two values":          {"r@tier=db,tier=web", db, nil, exitUsage},
		"labels and names mixed":             {"r@db1,tier=db", db, nil, exitUsage},
		"a star":                             {"r@*", db, nil, exitUsage},
		"an empty scope":                     {"r@", db, nil, exitUsage},
		"an empty part":                      {"r@db1,", db, nil, exitUsage},
		"an empty label value":               {"r@tier=", db, nil, exitUsage},
		"two ats":                            {"r@db1@db2", db, nil, exitUsage},
		"capital letters":                    {"r@DB1", db, nil, exitUsage},
		"an address":                         {"r@10.0.0.1", db, nil, exitUsage},
		"no role":                            {"@db1", db, nil, exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			role, where, err := parseAsked(c.asked)
			var got []statement.HostName
			if err == nil {
				got, err = where.expand(role, policy.Role{Hosts: c.reach}, hosts)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || exitCode(err) != c.code {
				t.Errorf("%s: exit %d (%v), want %d\n%s", c.asked, exitCode(err), err, c.code, diff)
			}
		})
	}
}
