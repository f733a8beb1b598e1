package policy

import (
	"errors"
	"strings"
	"testing"

	"pim-ssh/broker/statement"
)

func TestLabPolicyPasses(t *testing.T) {
	doc := lab()
	if err := doc.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestThreatPolicyLocksOut tries documents that would leave nobody able to act, and quorums that are not what they seem.
// What a person writes by mistake is in policyfile/testdata/bad; here stand the documents a program could hand in.
func TestThreatPolicyLocksOut(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*Document)
		want   string
	}{
		"quorum 0":                   {onRole("root", func(r *Role) { r.Approvals.Count = 0 }), "roles.root.approvals.count: is 0"},
		"quorum below 0":             {onRole("root", func(r *Role) { r.Approvals.Count = -1 }), "roles.root.approvals.count: is -1"},
		"no approvals written":       {onRole("root", func(r *Role) { r.Approvals = Approvals{} }), "roles.root.approvals.count: is 0"},
		"none and a quorum":          {onRole("root", func(r *Role) { r.Approvals.None = true }), "roles.root.approvals: is either none"},
		"quorum no one can reach":    {onRole("root", func(r *Role) { r.Approvals.Count = 4 }), "from names only 3 people"},
		"quorum an approver lacks":   {onRole("root", func(r *Role) { r.Approvals.Count = 3 }), "when bob asks at most 2 could come"},
		"one person under two names": {onRole("db-admin", func(r *Role) { r.Approvals = Approvals{Count: 4, From: []Name{"approvers", "bob"}} }), "from names only 3 people"},
		"last steward removed":       {func(d *Document) { d.Stewards.People = nil }, "stewards.people: names nobody"},
		"stewards out of reach":      {func(d *Document) { d.Stewards.Threshold = 2 }, "stewards.threshold: is 2 of only 1"},
		"stewards nobody needs":      {func(d *Document) { d.Stewards.Threshold = 0 }, "stewards.threshold: is 0"},
		"a steward who left":         {func(d *Document) { delete(d.People, "dave") }, `stewards.people.dave: nobody named "dave"`},
		"a steward without keys":     {func(d *Document) { d.People["dave"] = PersonEntry{Account: "dave"} }, "people.dave.keys: dave has no key"},
		"last operator removed":      {func(d *Document) { d.Operators = nil }, "operators: names nobody"},
		"last auditor removed":       {func(d *Document) { d.Auditors = nil }, "auditors: names nobody"},
		"last broker removed":        {func(d *Document) { d.Brokers = nil }, "brokers: names no broker"},
		"everybody removed":          {func(d *Document) { d.People = nil }, "people: names nobody"},
		"a second account of one person for self-approval": {
			func(d *Document) { d.People["bob2"] = PersonEntry{Keys: d.People["bob"].Keys, Account: "bob2"} }, "a key speaks for one person"},
		"one account for two people": {func(d *Document) { d.People["bob"] = PersonEntry{d.People["bob"].Keys, "alice"} }, "already the account of alice"},
		"an account called root":     {func(d *Document) { d.People["bob"] = PersonEntry{d.People["bob"].Keys, "root"} }, "root is uid 0"},
		"an account a role gives":    {func(d *Document) { d.People["bob"] = PersonEntry{d.People["bob"].Keys, "deploy"} }, "governed by role web-deploy"},
		"no account":                 {func(d *Document) { d.People["bob"] = PersonEntry{d.People["bob"].Keys, ""} }, "people.bob.account"},
		"a certificate as a key": {func(d *Document) {
			d.People["bob"] = PersonEntry{[]statement.Key{"ssh-ed25519-cert-v01@openssh.com AAAA"}, "bob"}
		}, "people.bob.keys"},
		"an empty selector":         {onRole("root", func(r *Role) { r.Hosts = Selector{} }), "selects no host"},
		"an empty label":            {onRole("root", func(r *Role) { r.Hosts = Selector{Labels: map[string]string{"": ""}} }), "roles.root.hosts.labels"},
		"any host and a name":       {onRole("root", func(r *Role) { r.Hosts.Names = []statement.HostName{"db1"} }), "exactly one of"},
		"nobody eligible":           {onRole("root", func(r *Role) { r.Eligible = nil }), "names nobody who may ask"},
		"a permission":              {onRole("root", func(r *Role) { r.Permit = []string{"port-forwarding"} }), "not enforced yet"},
		"no longest":                {onRole("root", func(r *Role) { r.Longest = 0 }), "roles.root.longest"},
		"a window of eight days":    {onRole("root", func(r *Role) { r.Longest = 8 * statement.Day }), "roles.root.longest"},
		"a default below zero":      {onRole("root", func(r *Role) { r.Default = -1 }), "roles.root.default"},
		"a default over longest":    {onRole("root", func(r *Role) { r.Default = r.Longest + 1 }), "roles.root.default"},
		"no pending":                {onRole("root", func(r *Role) { r.Pending = 0 }), "roles.root.pending"},
		"no offline mode":           {onRole("root", func(r *Role) { r.Offline = Offline{} }), "roles.root.offline"},
		"an unknown offline mode":   {onRole("root", func(r *Role) { r.Offline = Offline{Mode: "forever"} }), "roles.root.offline"},
		"grace without a duration":  {onRole("root", func(r *Role) { r.Offline = Offline{Mode: OfflineGrace} }), "roles.root.offline"},
		"strict with a grace":       {onRole("root", func(r *Role) { r.Offline.Grace = 5 }), "roles.root.offline"},
		"a command with a wildcard": {onRole("root", func(r *Role) { r.Sudo = []SudoRule{{"root", []Command{"/usr/bin/*"}}} }), "roles.root.sudo.root.commands"},
		"a sudo rule for nothing":   {onRole("root", func(r *Role) { r.Sudo = []SudoRule{{"root", nil}} }), "names no command"},
		"sudo as every account":     {onRole("root", func(r *Role) { r.Sudo = []SudoRule{{"ALL", []Command{All}}} }), "roles.root.sudo.ALL"},
		"version 3":                 {func(d *Document) { d.V = 3 }, "v: is 3"},
		"another kind":              {func(d *Document) { d.Kind = statement.KindRequest }, "kind: is"},
		"revision 0":                {func(d *Document) { d.Revision = 0 }, "revision: starts at 1"},
		"a first one with a parent": {func(d *Document) { d.Previous = strings.Repeat("ab", 32) }, "previous: must be empty"},
		"a second one without":      {func(d *Document) { d.Revision = 2 }, "previous: must be the hash of revision 1"},
		"no expiry":                 {func(d *Document) { d.Expires = 0 }, "expires: is not given"},
		"an expiry in year 9999":    {func(d *Document) { d.Expires = 253402300000 }, "expires: is not given"},
	} {
		t.Run(what, func(t *testing.T) {
			doc := lab()
			test.change(&doc)
			err := doc.Check()
			var problems Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if _, err := Draft(doc); err == nil {
				t.Error("was drafted")
			}
		})
	}
}

func onRole(name statement.RoleName, change func(*Role)) func(*Document) {
	return func(d *Document) { changeRole(d, name, change) }
}

func TestBrokerAddress(t *testing.T) {
	for address, want := range map[string]bool{
		"b1:7443": true, "b1.example.org:1": true, "192.0.2.7:65535": true, "[2001:db8::3]:7443": true,
		"": false, "b1": false, ":7443": false, "b1:": false, "b1:0": false, "b1:65536": false, "b1:07443": false, "b1:+1": false, "b1:x": false,
		"2001:db8::3:7443": false, "[192.0.2.7]:7443": false, "[2001:db8:0::3]:7443": false, "[fe80::1%eth0]:7443": false, "[b1]:7443": false,
		"https://b1:7443": false, "b1:7443/": false, "b1 :7443": false, "B1:7443": false, "-b1:7443": false, "192.0.2:7443": false,
	} {
		if dialable(address) != want {
			t.Errorf("%q: want %v", address, want)
		}
	}
}

// TestCheckHoldsListsToSets: Draft sorts for whoever wrote them, but a signed payload is held to the one order.
func TestCheckHoldsListsToSets(t *testing.T) {
	doc := lab()
	doc.Groups["approvers"] = []statement.Person{"gwen", "bob", "carol"}
	if err := doc.Check(); err == nil || !strings.Contains(err.Error(), "lists are sorted") {
		t.Errorf("unsorted: %v", err)
	}
	if _, err := Draft(doc); err != nil {
		t.Errorf("Draft did not sort: %v", err)
	}
	if doc.Groups["approvers"][0] != "gwen" {
		t.Error("Draft sorted the caller's own document")
	}
	doc.Groups["approvers"] = []statement.Person{"bob", "bob", "carol", "gwen"}
	if _, err := Draft(doc); err == nil || !strings.Contains(err.Error(), "stands twice") {
		t.Errorf("twice: %v", err)
	}
}
