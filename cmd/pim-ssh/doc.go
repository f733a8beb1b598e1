// Command pim-ssh is what people type: engineers ask for roles and use them, approvers decide, operators enrol hosts,
// stewards change the policy.
//
// It decides nothing about access; brokers and hosts judge. It does decide what its person gets to see and sign:
// everything it shows of a request or a grant comes from signed bytes that it verified itself against the policy chain
// it pinned at join, and no certificate is used that it did not compute beforehand. It never trusts a broker's summary,
// never writes private keys outside the ssh-agent or the runtime directory, and never walks the policy chain back.
//
// One file per story: join.go, request.go, status.go, decide.go, end.go, ssh.go, host.go, policysign.go … Read
// wire.go first (what the program is given), then contact.go (how it speaks with brokers), reading.go (how it verifies).
package main
