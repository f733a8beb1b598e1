// Package policyfile reads policy.yaml, the file stewards write, into the document they sign.
//
// It decides whether the file says one thing plainly: every key known, none twice, every value of its kind, and no
// YAML that a reader could take for something else (anchors, aliases, tags, merges, directives, several documents,
// text over several lines). It reports every problem as file:line:column with the nearest word that would have been
// right, the policy's own rules (package policy, Check) included. It reads scenario files the same way. It never signs, numbers or dates a revision, and judges
// never read YAML: they see the signed JSON only. It is the only package of the core that imports a YAML parser.
//
// Read read.go first, then fields.go and fields_limits.go (what may stand where), then scan.go (which YAML is refused).
package policyfile
