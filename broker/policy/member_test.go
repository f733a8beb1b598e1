package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/statement"
)

func TestSelectorSelects(t *testing.T) {
	db := map[string]string{"tier": "db", "site": "zrh"}
	for what, test := range map[string]struct {
		selector Selector
		want     bool
	}{
		"zero selects nothing":                   {Selector{}, false},
		"empty names select nothing":             {Selector{Names: []statement.HostName{}}, false},
		"empty labels select nothing":            {Selector{Labels: map[string]string{}}, false},
		"any":                                    {Selector{Any: true}, true},
		"its name":                               {Selector{Names: []statement.HostName{"db1", "web1"}}, true},
		"another name":                           {Selector{Names: []statement.HostName{"db10"}}, false},
		"its label":                              {Selector{Labels: map[string]string{"tier": "db"}}, true},
		"all of its labels":                      {Selector{Labels: map[string]string{"tier": "db", "site": "zrh"}}, true},
		"another value":                          {Selector{Labels: map[string]string{"tier": "web"}}, false},
		"one label of two":                       {Selector{Labels: map[string]string{"tier": "db", "rack": "4"}}, false},
		"a label it lacks, with no value":        {Selector{Labels: map[string]string{"rack": ""}}, false},
		"its name but not its label":             {Selector{Names: []statement.HostName{"db1"}, Labels: map[string]string{"tier": "web"}}, false},
		"a star is a name and no host's name":    {Selector{Names: []statement.HostName{"*"}}, false},
		"a value that is a prefix of the host's": {Selector{Labels: map[string]string{"tier": "d"}}, false},
	} {
		t.Run(what, func(t *testing.T) {
			if got := test.selector.Selects("db1", db); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if (Selector{Labels: map[string]string{"tier": "db"}}).Selects("db1", nil) {
		t.Error("a host without labels was selected by label")
	}
}

func TestDocumentAnswers(t *testing.T) {
	doc := lab()
	got := map[string]any{
		"members":              doc.Members([]Name{"bob", "approvers", "alice", "nobody"}),
		"approvers of root":    doc.Approvers("root"),
		"approvers of web":     doc.Approvers("web-deploy"),
		"approvers of nothing": doc.Approvers("nothing"),
		"eligible":             []bool{doc.Eligible("bob", "root"), doc.Eligible("erin", "db-admin"), doc.Eligible("bob", "db-admin"), doc.Eligible("mallory", "root"), doc.Eligible("alice", "nothing")},
		"offices":              []bool{doc.Steward("dave"), doc.Operator("dave"), doc.Auditor("frank"), doc.Steward("alice"), doc.Operator("frank"), doc.Auditor("dave")},
		"governed on db":       doc.Governed("db1", map[string]string{"tier": "db"}),
		"governed elsewhere":   doc.Governed("desk", nil),
		"CA keys":              doc.CAKeys(),
		"holds":                []bool{doc.HoldsKey("bob", key("bob")), doc.HoldsKey("bob", key("alice")), doc.HoldsKey("nobody", key("bob")), doc.HoldsKey("bob", "")},
	}
	want := map[string]any{
		"members":              []statement.Person{"alice", "bob", "carol", "gwen"},
		"approvers of root":    []statement.Person{"bob", "carol", "gwen"},
		"approvers of web":     []statement.Person(nil),
		"approvers of nothing": []statement.Person(nil),
		"eligible":             []bool{true, true, false, false, false},
		"offices":              []bool{true, true, true, false, false, false},
		"governed on db":       []statement.Account{"postgres", "root"},
		"governed elsewhere":   []statement.Account{"root"},
		"CA keys":              []statement.Key{key("b1-ca")},
		"holds":                []bool{true, false, false, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if owner, held := doc.KeyOwner(key("bob")); owner != "bob" || !held {
		t.Errorf("bob's key belongs to %q", owner)
	}
	if owner, held := doc.KeyOwner(key("b1")); held {
		t.Errorf("a broker's key belongs to %q", owner)
	}
}

func TestNearest(t *testing.T) {
	fields := []string{"hosts", "accounts", "approvals", "longest", "default"}
	for word, want := range map[string]string{
		"approvers": "approvals", "apporvals": "approvals", "acounts": "accounts", "longset": "longest", "host": "hosts",
		"x": "", "": "", "blockchain": "", "hosts": "", "default_window": "",
	} {
		if got, _ := Nearest(word, fields); got != want {
			t.Errorf("%q means %q, want %q", word, got, want)
		}
	}
	if got, _ := Nearest("bab", []string{"bub", "bob"}); got != "bob" {
		t.Errorf("of equals: %q", got)
	}
}
