package main

import (
	"fmt"
	"slices"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// needed says what is still missing in words: "1 of [bob, carol] and 1 of [frank]".
func needed(needs []broker.Need) string {
	said := make([]string, len(needs))
	for i, need := range needs {
		said[i] = fmt.Sprintf("%d of [%s]", need.Count, people([]broker.Need{need}))
	}
	return strings.Join(said, " and ")
}

// later says who may fill what is missing besides, and from when on: those who stand in when nobody else has decided.
func (r reading) later(p pin, now statement.Time) []string {
	if len(r.needs) == 0 {
		return nil
	}
	doc := p.chain.Current()
	var said []string
	for _, f := range doc.Roles[r.request.Role].Fallback {
		from := r.request.Created.Add(f.After)
		stand := slices.DeleteFunc(doc.Members(f.From), func(one statement.Person) bool { return one == r.request.Person })
		if from > now && from < r.request.Expires && len(stand) > 0 {
			said = append(said, fmt.Sprintf("%s: also %s", moment(from, now), strings.Join(lines(stand), ", ")))
		}
	}
	return said
}

// standsIn is when the person begins to stand in for the approvers; zero when never.
func (r reading) standsIn(p pin) statement.Time {
	doc := p.chain.Current()
	for _, f := range doc.Roles[r.request.Role].Fallback {
		if slices.Contains(doc.Members(f.From), p.person) {
			return r.request.Created.Add(f.After)
		}
	}
	return 0
}

// inWords says in words what a role needs before it opens, leaving the one who asks out.
func inWords(doc *policy.Document, name statement.RoleName, asker statement.Person) []string {
	role := doc.Roles[name]
	if role.Approvals.None {
		return []string{"no approval"}
	}
	var said []string
	for _, part := range role.Reviewers() {
		left := slices.DeleteFunc(doc.Members(part.From), func(one statement.Person) bool { return one == asker })
		said = append(said, fmt.Sprintf("%d of %s", part.Count, strings.Join(lines(left), ", ")))
	}
	if len(said) > 1 {
		said = append(said, "these are different people")
	}
	for _, f := range role.Fallback {
		stand := slices.DeleteFunc(doc.Members(f.From), func(one statement.Person) bool { return one == asker })
		said = append(said, fmt.Sprintf("after %s also %s", span(f.After), strings.Join(lines(stand), ", ")))
	}
	if role.Emergency {
		said[0] = "reviewed afterwards by " + said[0]
		return append([]string{"opens at once and rings every alarm"}, said...)
	}
	return said
}
