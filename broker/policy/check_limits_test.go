package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pim-ssh/broker/statement"
)

// TestThreatLimitsThatPromiseTooMuch tries documents of version 2 that a program could hand in; what a person writes by mistake is in
// policyfile/testdata/bad.
func TestThreatLimitsThatPromiseTooMuch(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*Document)
		want   string
	}{
		"version 1 says what it has no words for": {func(d *Document) { d.V = 1 }, "documents of version 1 have no words for"},
		"a part of nobody":                        {onRole("root", func(r *Role) { r.And = []Part{{1, nil}} }), "from names only 0 people"},
		"a part of none":                          {onRole("root", func(r *Role) { r.And = []Part{{0, []Name{"dave"}}} }), "is 0, must be at least 1"},
		"a part below none":                       {onRole("root", func(r *Role) { r.And = []Part{{-5, []Name{"dave"}}} }), "is -5, must be at least 1"},
		"the first part of none":                  {onRole("root", func(r *Role) { r.Approvals.Count = 0 }), "is 0, must be at least 1"},
		"none and parts":                          {onRole("web-deploy", func(r *Role) { r.And = []Part{{1, []Name{"dave"}}} }), "is either none"},
		"two parts that one person must fill":     {onRole("root", func(r *Role) { r.Approvals.From, r.And = []Name{"dave"}, []Part{{1, []Name{"dave"}}} }), "at most 1 could come"},
		"a part that only the asker fills":        {onRole("root", func(r *Role) { r.And = []Part{{1, []Name{"bob"}}} }), "when bob asks at most 1 could come"},
		"the stand-in makes no quorum":            {onRole("root", func(r *Role) { r.Approvals, r.And = Approvals{Count: 1, From: []Name{"bob"}}, nil }), "when bob asks at most 0 could come"},
		"parts out of order": {onRole("root", func(r *Role) {
			r.Approvals.From, r.And = []Name{"dave", "frank"}, []Part{{1, []Name{"approvers"}}}
		}), "parts are out of order"},
		"more approvals than judges count":      {onRole("root", func(r *Role) { r.And = slices.Repeat([]Part{{1, []Name{"approvers"}}}, 25) }), "is 26 in all: at most 20"},
		"a second factor of another kind":       {onRole("root", func(r *Role) { r.Factors.Ask = "sms" }), `"sms" is no second factor`},
		"fresh below zero":                      {onRole("root", func(r *Role) { r.Factors.Fresh = -1 }), "second_factor.fresh"},
		"a budget of all the time":              {onRole("root", func(r *Role) { r.Budget = Budget{7 * statement.Day, 7 * statement.Day} }), "must be such as 8h per 7d"},
		"a budget below zero":                   {onRole("root", func(r *Role) { r.Budget.Time = -1 }), "must be such as 8h per 7d"},
		"a budget that no default fits":         {onRole("root", func(r *Role) { r.Budget.Time = 60 }), "is less than the default"},
		"a reason below zero":                   {onRole("root", func(r *Role) { r.ReasonLeast = -1 }), "must be 1 to 250"},
		"a reason that no request could hold":   {onRole("root", func(r *Role) { r.ReasonLeast = 251 }), "must be 1 to 250"},
		"a ticket that is no pattern":           {onRole("root", func(r *Role) { r.Ticket = "(" }), "is no regular expression"},
		"hours that are none":                   {onRole("root", func(r *Role) { r.Hours.Weekly = nil }), "names 0 spans"},
		"hours before Monday":                   {onRole("root", func(r *Role) { r.Hours.Weekly = []Span{{-5000, -1}} }), "must end after it begins"},
		"hours after Sunday":                    {onRole("root", func(r *Role) { r.Hours.Weekly = []Span{{0, 7*24*60 + 1}} }), "must end after it begins"},
		"hours backwards":                       {onRole("root", func(r *Role) { r.Hours.Weekly = []Span{{60, 60}} }), "must end after it begins"},
		"hours out of order":                    {onRole("root", func(r *Role) { r.Hours.Weekly = []Span{{60, 120}, {0, 30}} }), "overlaps"},
		"hours of a path":                       {onRole("root", func(r *Role) { r.Hours.Zone = "../../etc/shadow" }), "is no name of a time zone"},
		"hours of each broker's own":            {onRole("root", func(r *Role) { r.Hours.Zone = "Local" }), "is no name of a time zone"},
		"a network that is an address":          {onRole("root", func(r *Role) { r.Networks = []string{"10.0.0.1"} }), "is no network"},
		"networks out of order":                 {onRole("root", func(r *Role) { r.Networks = []string{"2001:db8::/32", "10.0.0.0/8"} }), "lists are sorted"},
		"a hook on the machine's own files":     {onRole("root", func(r *Role) { r.Hook.URL = "file:///etc/passwd" }), "must be an http or https URL"},
		"a hook that answers with a person's":   {onRole("root", func(r *Role) { r.Hook.Key = key("alice") }), "is a key of alice"},
		"a hook that answers with a broker's":   {onRole("root", func(r *Role) { r.Hook.Key = key("b1-ca") }), "is already the ca of broker b1"},
		"entries out of order":                  {onRole("root", func(r *Role) { slices.Reverse(r.Dated) }), "out of order"},
		"an entry for a stranger":               {onRole("root", func(r *Role) { r.Active[0].Who = "nobody" }), `"nobody" is neither a group nor a person`},
		"an active one where labels say so":     {onRole("root", func(r *Role) { r.Active[0].Hosts = &Selector{Labels: map[string]string{"tier": "db"}} }), "must be names"},
		"an emergency that nobody reviews":      {onRole("web-deploy", func(r *Role) { r.Emergency = true }), "who they name reviews afterwards"},
		"a stand-in for nobody":                 {onRole("web-deploy", func(r *Role) { r.Fallback = []Fallback{{60, []Name{"dave"}}} }), "stands in for nobody"},
		"a stand-in who comes too late":         {onRole("root", func(r *Role) { r.Fallback[0].After = r.Pending }), "less than pending"},
		"a security key that no approver has":   {onRole("root", func(r *Role) { r.Factors.Approve, r.Factors.Fresh = SecurityKey, 0 }), "with security keys, but at most 0 could come"},
		"a security key that no asker has":      {onRole("root", func(r *Role) { r.Factors.Ask = SecurityKey }), "nobody who may ask has one"},
		"no touch and nobody who could touch":   {onRole("web-deploy", func(r *Role) { r.PlainKey = false }), "nobody who may open it without approval has one"},
		"a plain key beside approvals":          {onRole("root", func(r *Role) { r.PlainKey = true }), "only for roles that open without approval"},
		"a reason of approvers who are not":     {onRole("web-deploy", func(r *Role) { r.ApproverReason = true }), "nobody approves"},
		"a factor of approvers who are not any": {onRole("db-admin", func(r *Role) { r.Factors.Approve = TOTP }), "nobody approves"},
	} {
		t.Run(what, func(t *testing.T) {
			doc := limited()
			test.change(&doc)
			err := doc.Check()
			var problems Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// TestQuorumsAgreeWithBruteForce holds Check's word on random quorums to trying every way to fill them, for every asker.
func TestQuorumsAgreeWithBruteForce(t *testing.T) {
	people := []Name{"alice", "bob", "carol", "dave", "erin", "frank"}
	reachable := 0
	rapid.Check(t, func(t *rapid.T) {
		d := lab()
		d.V = 2
		changeRole(&d, "web-deploy", func(r *Role) { r.PlainKey = true })
		parts := make([]Part, rapid.IntRange(1, 3).Draw(t, "parts"))
		for i := range parts {
			parts[i] = Part{rapid.IntRange(1, 2).Draw(t, "count"), some(t, append(slices.Clone(people), "approvers"), 1, "from")}
		}
		slices.SortStableFunc(parts, compareParts)
		askers := some(t, people, 1, "eligible")
		changeRole(&d, "root", func(r *Role) {
			r.Eligible, r.Approvals.Count, r.Approvals.From, r.And = askers, parts[0].Count, parts[0].From, parts[1:]
		})
		want := true
		for _, asker := range d.Members(askers) {
			want = want && fillable(&d, parts, map[statement.Person]bool{asker: true})
		}
		if err := d.Check(); (err == nil) != want {
			t.Fatalf("brute force says %v: %v", want, err)
		}
		if want {
			reachable++
		}
	})
	if reachable == 0 {
		t.Error("no quorum was within reach")
	}
}

// fillable tries every person for every place.
func fillable(d *Document, parts []Part, busy map[statement.Person]bool) bool {
	for i, part := range parts {
		if part.Count == 0 {
			continue
		}
		rest := slices.Clone(parts)
		rest[i].Count--
		for _, person := range d.Members(part.From) {
			if busy[person] {
				continue
			}
			busy[person] = true
			filled := fillable(d, rest, busy)
			delete(busy, person)
			if filled {
				return true
			}
		}
		return false
	}
	return true
}
