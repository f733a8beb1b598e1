// Package rehearse plays scenarios against a policy before anybody signs it: who asks for what, when, with whose yes, and what
// comes of it.
//
// It decides nothing by rules of its own. It puts throw-away keys in place of the people's, signs the policy, the hosts'
// enrolments, the request and each approval with them, and has package broker decide and judge those as brokers and hosts do.
// What the policy does not say is left out and said to be: codes, hooks, and budgets already spent. It never reads YAML (package
// policyfile does), a clock, a disk or the network, and nothing that it signs is good for anything else.
//
// Package main of pim-ssh prints what it finds. Read play.go first, then stage.go.
package rehearse
