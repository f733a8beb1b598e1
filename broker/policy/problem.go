package policy

import (
	"strings"

	"pim-ssh/broker/statement"
)

// Problem is one rule the document breaks. Path says where: field names, map keys, and for members of a list the member
// itself (for a sudo rule the account it runs as).
type Problem struct {
	Path []string
	Msg  string
}

// Error returns "roles.db-admin.longest: must be …"; keys are named by fingerprint.
func (p Problem) Error() string {
	steps := make([]string, len(p.Path))
	for i, step := range p.Path {
		steps[i] = step
		if key, err := statement.ParseKey(step); err == nil {
			steps[i] = key.Fingerprint()
		}
	}
	return strings.Join(steps, ".") + ": " + p.Msg
}

// Problems is every rule the document breaks, in document order with map keys sorted.
type Problems []Problem

// Error returns one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}
