package policy

import (
	"bytes"
	"testing"
)

// FuzzParse: what parses is the one spelling of itself, passes Check, and differs from itself in nothing.
func FuzzParse(f *testing.F) {
	for _, doc := range []Document{lab(), council()} {
		payload, err := Draft(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		doc, err := Parse(payload)
		if err != nil {
			return
		}
		again, err := Draft(*doc)
		if err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%v: a second spelling:\n%s\n%s", err, payload, again)
		}
		if lines := Difference(doc, doc); len(lines) != 0 {
			t.Fatalf("differs from itself: %q", lines)
		}
		for name, role := range doc.Roles {
			if !role.Approvals.None && len(doc.Approvers(name)) < role.Approvals.Count {
				t.Fatalf("%s cannot be approved", name)
			}
		}
	})
}
