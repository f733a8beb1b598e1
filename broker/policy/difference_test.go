package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/statement"
)

func TestDifferenceInWords(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*Document)
		want   []string
	}{
		"nothing":                         {func(*Document) {}, nil},
		"only the number of the revision": {func(d *Document) { d.Revision, d.Previous = 7, strings.Repeat("0a", 32) }, nil},
		"an approver leaves the group": {
			func(d *Document) { d.Groups["approvers"] = []statement.Person{"carol", "gwen"} },
			[]string{"bob leaves group approvers", "bob can no longer approve db-admin", "bob can no longer approve root"}},
		"the same people by another name": {
			func(d *Document) {
				d.Groups["dba"] = []statement.Person{"alice", "erin"}
				changeRole(d, "db-admin", func(r *Role) { r.Eligible = []Name{"dba"} })
			},
			[]string{"group dba is new", "alice joins group dba", "erin joins group dba", "db-admin may be asked for by dba, was engineers"}},
		"a weaker quorum": {
			func(d *Document) { changeRole(d, "root", func(r *Role) { r.Approvals.Count = 1 }) },
			[]string{"root needs 1 approval from approvers, was 2 approvals from approvers"}},
		"no quorum at all": {
			func(d *Document) { changeRole(d, "db-admin", func(r *Role) { r.Approvals = Approvals{None: true} }) },
			[]string{"bob can no longer approve db-admin", "carol can no longer approve db-admin", "gwen can no longer approve db-admin",
				"db-admin needs no approval, was 1 approval from approvers", "db-admin opens without approval for any key"}},
		"wider hosts": {
			func(d *Document) { changeRole(d, "db-admin", func(r *Role) { r.Hosts = Selector{Any: true} }) },
			[]string{"db-admin reaches any host, was hosts with tier=db"}},
		"a wider sudo rule": {
			func(d *Document) {
				changeRole(d, "db-admin", func(r *Role) { r.Sudo = []SudoRule{{"root", []Command{All}}} })
			},
			[]string{"db-admin no longer runs as postgres: ALL", "db-admin now runs as root: ALL",
				"db-admin no longer runs as root: /usr/bin/systemctl restart postgresql"}},
		"another steward": {
			func(d *Document) { d.Stewards = Stewards{2, []statement.Person{"dave", "mallory"}} },
			[]string{"mallory becomes a steward", "2 stewards must sign a revision, was 1"}},
		"a key changed": {
			func(d *Document) { d.People["bob"] = PersonEntry{[]statement.Key{key("new")}, "bob"} },
			[]string{"bob speaks with the key " + inWords(key("new")), "bob no longer speaks with the key " + inWords(key("bob"))}},
		"a person gone": {
			func(d *Document) { delete(d.People, "mallory") },
			[]string{"mallory is gone, with the account mallory", "mallory no longer speaks with the key " + inWords(key("mallory"))}},
		"a role gone": {
			func(d *Document) { delete(d.Roles, "web-deploy") },
			[]string{"role web-deploy is gone", "alice can no longer ask for web-deploy", "erin can no longer ask for web-deploy"}},
		"a role new": {
			func(d *Document) { d.Roles["web-again"] = d.Roles["web-deploy"] },
			[]string{"role web-again is new", "alice can now ask for web-again", "erin can now ask for web-again", "web-again reaches hosts with tier=web",
				"web-again now logs in as deploy", "web-again needs no approval", "web-again lasts at most 8h", "web-again lasts, unless asked otherwise, 1h",
				"web-again waits unanswered at most 1d", "web-again on a host cut off from brokers starts for 15m more",
				"web-again opens without approval for any key"}},
		"eligibility that ends": {
			func(d *Document) {
				changeRole(d, "db-admin", func(r *Role) {
					r.Eligible, r.Dated = []Name{"alice"}, []Eligibility{{Who: "erin", Until: christmas}, {Who: "mallory", Until: christmas, Hosts: onlyDB1}}
				})
			},
			[]string{"erin can now ask for db-admin until 2026-12-24T12:00:00Z, was always and everywhere",
				"mallory can now ask for db-admin until 2026-12-24T12:00:00Z on the hosts db1",
				"db-admin may be asked for by alice, erin until 2026-12-24T12:00:00Z, mallory until 2026-12-24T12:00:00Z on the hosts db1, was engineers"}},
		"eligibility beside a wider one": {
			func(d *Document) {
				changeRole(d, "db-admin", func(r *Role) { r.Dated = []Eligibility{{Who: "erin", Until: christmas}} })
			},
			[]string{"db-admin may be asked for by engineers, erin until 2026-12-24T12:00:00Z, was engineers"}},
		"an active assignment": {
			func(d *Document) {
				changeRole(d, "db-admin", func(r *Role) { r.Active = []Eligibility{{Who: "mallory", Hosts: onlyDB1}} })
			},
			[]string{"mallory now has without approval db-admin on the hosts db1",
				"db-admin may be asked for by engineers, mallory on the hosts db1 without approval, was engineers"}},
		"two groups must agree": {
			func(d *Document) {
				changeRole(d, "db-admin", func(r *Role) { r.And = []Part{{1, []Name{"mallory"}}} })
			},
			[]string{"mallory can now approve db-admin",
				"db-admin needs 1 approval from approvers and 1 approval from mallory, was 1 approval from approvers"}},
		"a weaker key opens it": {
			func(d *Document) {
				changeRole(d, "web-deploy", func(r *Role) { r.Factors = Factors{Ask: TOTP, Fresh: 900} })
			},
			[]string{"web-deploy asks who asks for a totp code", "web-deploy lets one code serve for 15m"}},
	} {
		t.Run(what, func(t *testing.T) {
			old, changed := lab(), lab()
			test.change(&changed)
			if diff := cmp.Diff(test.want, Difference(&old, &changed)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

const christmas statement.Time = 1798113600 // 2026-12-24T12:00:00Z

var onlyDB1 = &Selector{Names: []statement.HostName{"db1"}}

// limited is lab with a role that says everything that version 2 has words for.
func limited() Document {
	d := lab()
	d.V = 2
	changeRole(&d, "root", func(r *Role) {
		r.Dated = []Eligibility{{Who: "approvers", Until: christmas}, {Who: "erin", From: 1_790_000_000, Until: christmas, Hosts: onlyDB1}}
		r.Active = []Eligibility{{Who: "mallory", From: 1_790_000_000, Until: christmas, Hosts: onlyDB1}}
		r.Approvals.Count, r.And = 1, []Part{{1, []Name{"dave", "frank"}}}
		r.Fallback = []Fallback{{3600, []Name{"erin"}}, {7200, []Name{"dave", "frank"}}}
		r.Factors = Factors{Ask: TOTP, Approve: TOTP, Fresh: 900}
		r.ReasonLeast, r.ApproverReason, r.Ticket, r.Budget = 20, true, "INC-[0-9]+", Budget{8 * hour, 7 * 24 * hour}
		r.Hours = &Hours{Zone: "Europe/Berlin", Weekly: []Span{{480, 1080}, {1920, 2520}}}
		r.Networks = []string{"10.0.0.0/8", "2001:db8::/32"}
		r.Hook = &Hook{URL: "https://hook.example.org/", Key: key("hook")}
	})
	changeRole(&d, "db-admin", func(r *Role) { r.Emergency, r.PlainKey = true, true })
	changeRole(&d, "web-deploy", func(r *Role) { r.PlainKey = true })
	return d
}

// TestFixtureSaysEverything: what limits() takes out of a role, the fixture has; a field added there is missed here.
func TestFixtureSaysEverything(t *testing.T) {
	d := limited()
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, role := range d.Roles {
		value := reflect.ValueOf(role)
		for i := range value.NumField() {
			if !value.Field(i).IsZero() {
				said[value.Type().Field(i).Name] = true
			}
		}
	}
	for i := range reflect.TypeFor[Role]().NumField() {
		if name := reflect.TypeFor[Role]().Field(i).Name; !said[name] && name != "Permit" {
			t.Errorf("no role of the fixture says %s", name)
		}
	}
}

func changeRole(d *Document, name statement.RoleName, change func(*Role)) {
	role := d.Roles[name]
	change(&role)
	d.Roles[name] = role
}

func TestDifferenceFromNothingTellsEverything(t *testing.T) {
	doc := lab()
	all := strings.Join(Difference(nil, &doc), "\n")
	for _, word := range []string{"alice is new", "dave becomes a steward", "1 steward must sign", "broker b1 is at b1:7443", "bob can now approve root"} {
		if !strings.Contains(all, word) {
			t.Errorf("%q is missing from\n%s", word, all)
		}
	}
	if len(Difference(&doc, nil)) == 0 || len(Difference(nil, nil)) != 0 {
		t.Error("nothing is not told apart from something")
	}
}

// TestDifferenceCoversEveryField changes each leaf of a document in turn, whatever fields the document will have, and
// removes each member of each list and mapping.
func TestDifferenceCoversEveryField(t *testing.T) {
	doc := limited()
	payload, err := encode(&doc)
	if err != nil {
		t.Fatal(err)
	}
	silent := []string{".v", ".kind", ".revision", ".previous"}
	tried := 0
	mutate(t, payload, func(path string, other []byte) {
		changed := new(Document)
		if slices.Contains(silent, path) || statement.DecodeStrict(other, changed) != nil {
			return
		}
		if again, err := encode(changed); err != nil || bytes.Equal(again, payload) || changed.Expires == 0 {
			return
		}
		tried++
		if len(Difference(&doc, changed)) == 0 {
			t.Errorf("a change of %s is not told", path)
		}
		if len(Difference(changed, &doc)) == 0 {
			t.Errorf("a change of %s, taken back, is not told", path)
		}
	})
	t.Logf("%d changes", tried)
	if tried < 250 {
		t.Errorf("only %d changes were tried", tried)
	}
}

// mutate calls try with every document that differs from payload in one leaf, or lacks or gains one member.
func mutate(t *testing.T, payload []byte, try func(path string, other []byte)) {
	t.Helper()
	var tree any
	if err := json.Unmarshal(payload, &tree); err != nil {
		t.Fatal(err)
	}
	emit := func(path string) {
		other, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		try(path, other)
	}
	walk(tree, "", func(any) {}, emit)
}

// walk visits each leaf; set writes the visited value back into its parent.
func walk(node any, path string, set func(any), emit func(string)) {
	switch node := node.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(node)) {
			kept := node[name]
			walk(kept, path+"."+name, func(v any) { node[name] = v }, emit)
			delete(node, name)
			emit(path + "." + name)
			node[name] = kept
		}
	case []any:
		for i, member := range node {
			walk(member, fmt.Sprintf("%s[%d]", path, i), func(v any) { node[i] = v }, emit)
			set(slices.Delete(slices.Clone(node), i, i+1))
			emit(path)
			set(node)
		}
		set(append(slices.Clone(node), "zoe"))
		emit(path)
		set(node)
	default:
		for _, other := range others(node) {
			set(other)
			emit(path)
			set(node)
		}
	}
}

// others are values a leaf could have instead; decoding drops those that do not fit.
func others(leaf any) []any {
	switch leaf := leaf.(type) {
	case bool:
		return []any{!leaf}
	case float64:
		return []any{leaf + 1}
	case string:
		return []any{leaf + "x", "none", "totp", "2001:db8:1::/48", "2028-01-01T00:00:00Z", string(key("other")), "2031-01-01T00:00:00Z"}
	}
	return nil
}
