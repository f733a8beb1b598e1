// Package policy is the signed document of who may what, and the chain of its revisions.
//
// It decides whether a document makes sense (Check), what of it its stewards may regret (Warnings), what changes from one to the
// next (Difference), who is a member, an approver, a steward (member.go), what
// a selector and a sudo command cover, and whether a revision rightly follows the one before it (Chain). It
// never decides whether a grant is live: that is the judge's question (package broker). It never reads YAML
// (package policyfile does), a clock, a disk or the network. It imports package statement and nothing else of ours.
//
// Deny is the zero value everywhere: a zero Document knows nobody, a zero Selector selects no host, a zero Chain
// places no reference, and a list that is empty means nobody.
//
// Read document.go first, then limits.go (what documents of version 2 brought), then check.go, then chain.go.
package policy
