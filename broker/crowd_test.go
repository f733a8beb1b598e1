package broker

import (
	"fmt"
	"testing"

	"pim-ssh/broker/statement"
)

// TestThreatOnePersonFillsTheState has alice ask for ever other hosts: pending requests, and grants that need no approval,
// stay in every broker's memory, and grants on every host, for as long as they last.
func TestThreatOnePersonFillsTheState(t *testing.T) {
	for role, tier := range map[statement.RoleName]string{"db-admin": "db", "web-deploy": "web"} {
		t.Run(string(role), func(t *testing.T) {
			sc := newScene(t)
			sc.light = true
			ask := func(person statement.Person, i int) (Decided, error) {
				host := statement.HostName(fmt.Sprintf("%s-%d", tier, i))
				if _, enrolled := sc.s.Host(host); !enrolled {
					sc.must(sc.enrolment(host, tier))
				}
				return sc.file(sc.asks(person, role, host))
			}
			for i := range MaxOpen {
				if _, err := ask("alice", i); err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
			}
			d, err := ask("alice", MaxOpen)
			if KindOf(err) != Conflict {
				t.Fatalf("one more: %v", err)
			}
			wantKinds(t, d.Events, "StatementRefused")
			if _, err := ask("erin", MaxOpen); err != nil {
				t.Fatalf("somebody else: %v", err)
			}
			sc.now += 3601 // what was asked first is over
			sc.tick()
			if _, err := ask("alice", MaxOpen); err != nil {
				t.Fatalf("once they are over: %v", err)
			}
		})
	}
}
