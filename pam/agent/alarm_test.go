package agent

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/broker/policy"
	"pim-ssh/packaging/lab/forger"
)

// A role that opens without anybody's yes rings on the host itself, once for each window, before anything can start.
func TestAGrantThatNobodyApprovedRings(t *testing.T) {
	for sentence, c := range map[string]struct {
		role  func(*policy.Role)
		rings int
	}{
		"a role without approval":       {func(r *policy.Role) { r.Approvals, r.PlainKey = policy.Approvals{None: true}, true }, 1},
		"an emergency role":             {func(r *policy.Role) { r.Emergency, r.PlainKey = true, true }, 1},
		"a role that somebody approved": {func(*policy.Role) {}, 0},
	} {
		t.Run(sentence, func(t *testing.T) {
			w := forger.New(t, func(doc *policy.Document) {
				doc.V = policy.Version
				role := doc.Roles["db-admin"]
				c.role(&role)
				doc.Roles["db-admin"] = role
			})
			m := newMachine(t, w)
			stem := m.feed(w.Granted("alice", "db-admin", "db1", 600, forger.Key(t), "bob"))
			a := m.start()
			a.settle(t.Context())
			m.wantStands(stem, true)
			a.settle(t.Context())
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			a = m.start()
			a.settle(t.Context())
			lines := strings.Split(m.log.String(), "\n")
			ring := func(line string) bool { return strings.Contains(line, "NOBODY APPROVED") }
			rang := 0
			for _, line := range lines {
				if ring(line) {
					rang++
				}
				if strings.Contains(line, "grant open") && rang < c.rings {
					t.Error("it opened before it rang")
				}
			}
			if rang != c.rings {
				t.Errorf("rang %d times, want %d\n%s", rang, c.rings, m.log)
			}
			m.clock.pass(601 * time.Second)
			a.settle(t.Context())
			m.wantStands(stem, false)
		})
	}
}
