package rehearse

import (
	"os"
	"strings"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/statement"
)

const examples = "../../../packaging/examples/"

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(examples + name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func example(t *testing.T) policy.Document {
	t.Helper()
	doc, err := policyfile.Read("policy.yaml", read(t, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func play(t *testing.T, doc policy.Document, text string) []Played {
	t.Helper()
	scenarios, err := policyfile.ParseScenarios("scenarios.yaml", []byte(text), &doc, noon)
	if err != nil {
		t.Fatal(err)
	}
	played, err := Play(doc, scenarios)
	if err != nil {
		t.Fatal(err)
	}
	return played
}

const noon statement.Time = 1796122800 // 2026-12-01T11:00:00Z

// TestExampleTiers: the policy people start from does what the scenarios beside it say.
func TestExampleTiers(t *testing.T) {
	played := play(t, example(t), string(read(t, "scenarios.yaml")))
	endings := map[policyfile.Ending]int{}
	for _, p := range played {
		endings[p.Got]++
		if wrong := p.Wrong(); len(wrong) > 0 {
			t.Errorf("%s (line %d): %v", p.Name, p.Line, wrong)
		}
	}
	if len(endings) != 3 || len(played) < 25 {
		t.Errorf("%d scenarios end in %v", len(played), endings)
	}
}

// TestEveryTierHasAScenario: a role that is added to the example is tried there, too.
func TestEveryTierHasAScenario(t *testing.T) {
	tried := map[statement.RoleName]bool{}
	for _, p := range play(t, example(t), string(read(t, "scenarios.yaml"))) {
		tried[p.Role] = true
	}
	for name := range example(t).Roles {
		if !tried[name] {
			t.Errorf("no scenario asks for %s", name)
		}
	}
}

// TestWeakerPolicyIsFound weakens the example in ways that a reviewer may miss: some scenario ends in another way.
func TestWeakerPolicyIsFound(t *testing.T) {
	for what, change := range map[string]struct {
		role statement.RoleName
		weak func(*policy.Role)
	}{
		"one group is enough":           {"root", func(r *policy.Role) { r.And = nil }},
		"any key asks":                  {"root", func(r *policy.Role) { r.Factors.Ask = policy.NoFactor }},
		"any key approves":              {"root", func(r *policy.Role) { r.Factors.Approve = policy.NoFactor }},
		"no ticket":                     {"root", func(r *policy.Role) { r.Ticket = "" }},
		"no reason":                     {"root", func(r *policy.Role) { r.ReasonLeast = 0 }},
		"twice as long":                 {"root", func(r *policy.Role) { r.Longest, r.Default = 7200, 7200 }},
		"engineers too":                 {"root", func(r *policy.Role) { r.Eligible = append(r.Eligible, "engineers") }},
		"any host":                      {"db-admin", func(r *policy.Role) { r.Hosts = policy.Selector{Any: true} }},
		"no approval":                   {"db-admin", func(r *policy.Role) { r.Approvals, r.Fallback, r.PlainKey = policy.Approvals{None: true}, nil, true }},
		"at any hour":                   {"db-admin", func(r *policy.Role) { r.Hours = nil }},
		"from anywhere":                 {"db-admin", func(r *policy.Role) { r.Networks = nil }},
		"security approves at once":     {"db-admin", func(r *policy.Role) { r.Fallback[0].After = 60 }},
		"gwen for ever":                 {"db-admin", func(r *policy.Role) { r.Eligible, r.Dated = append(r.Eligible, "gwen"), r.Dated[1:] }},
		"a plain key deploys":           {"web-deploy", func(r *policy.Role) { r.PlainKey = true }},
		"rescue asks somebody":          {"rescue", func(r *policy.Role) { r.Emergency = false }},
		"the backup of every host":      {"db-backup", func(r *policy.Role) { r.Active[0].Hosts = nil }},
		"engineers are no longer asked": {"db-admin", func(r *policy.Role) { r.Eligible = nil }},
	} {
		t.Run(what, func(t *testing.T) {
			doc := example(t)
			role := doc.Roles[change.role]
			change.weak(&role)
			doc.Roles[change.role] = role
			doc = doc.Sorted()
			if err := doc.CheckRules(); err != nil {
				t.Fatal(err)
			}
			for _, p := range play(t, doc, string(read(t, "scenarios.yaml"))) {
				if !p.Right() {
					return
				}
			}
			t.Error("every scenario still ends as it says")
		})
	}
}

// TestWrongScenarioSaysWhatCameOfIt: what differs, and only that.
func TestWrongScenarioSaysWhatCameOfIt(t *testing.T) {
	played := play(t, example(t), `
hosts: {db1: {tier: db}}
scenarios:
  - {name: a, person: alice, asks: db-admin, hosts: [db1], approved_by: [bob], then: granted, until: 2026-12-01T13:00:00Z}
  - {name: b, person: alice, asks: db-admin, hosts: [db1], then: granted}
  - {name: c, person: bob, asks: db-admin, hosts: [db1], then: refused, because: not a member}
  - {name: late, person: alice, asks: db-admin, hosts: [db1], approved_by: [{who: bob, after: 5m}, {who: carol, after: 20h}], then: granted, because: carol's approval}
  - {name: never, person: alice, asks: db-admin, hosts: [db1], approved_by: [{who: bob, after: 60h}], then: pending, because: it is expired by then}
  - {name: d, person: alice, asks: db-admin, hosts: [db1], approved_by: [dave], then: pending}
`)
	for i, want := range [][]Difference{
		{{"until", "2026-12-01T13:00:00Z", "2026-12-01T12:00:00Z"}},
		{{"then", "granted", "pending"}},
		{{"because", "not a member", "bob is not eligible for role db-admin"}},
		nil,
		nil,
		nil,
	} {
		wrong := played[i].Wrong()
		if len(wrong) != len(want) || len(want) == 1 && wrong[0] != want[0] {
			t.Errorf("%s: got %v, want %v", played[i].Name, wrong, want)
		}
	}
	if said := played[5].Said; !strings.Contains(said, "waits for 1 of bob, carol, gwen") || !strings.Contains(said, "dave's approval") {
		t.Errorf("pending says %q", said)
	}
}

// TestThreatThrowAwayKeysStayOnStage: the document that was read is not the one that is signed.
func TestThreatThrowAwayKeysStayOnStage(t *testing.T) {
	doc, again := example(t), example(t)
	play(t, doc, string(read(t, "scenarios.yaml")))
	if lines := policy.Difference(&again, &doc); len(lines) > 0 {
		t.Errorf("the policy was changed: %v", lines)
	}
}

// TestPolicyOfVersion1 is played as brokers judge it: no approval, and any key.
func TestPolicyOfVersion1(t *testing.T) {
	doc := example(t)
	deploy := doc.Roles["web-deploy"]
	doc.V, doc.Roles = 1, map[statement.RoleName]policy.Role{"web-deploy": deploy}
	played := play(t, doc, "hosts: {web1: {}}\nscenarios:\n  - {name: a, person: erin, asks: web-deploy, hosts: [web1], key: plain, then: granted}\n")
	if !played[0].Right() {
		t.Errorf("%v: %s", played[0].Wrong(), played[0].Said)
	}
}
