package agent

import (
	"testing"

	"pim-ssh/packaging/lab/forger"
)

// BenchmarkStart is what the agent adds to one sudo run: the account question with the move into the session's cgroup, the word
// that it begins, and the connection's end.
func BenchmarkStart(b *testing.B) {
	w := forger.New(b, nil)
	m := newMachine(b, w)
	m.enforce()
	m.feed(db("alice", "db1")(w))
	s := m.serve()
	s.settled()
	sudo := newCaller(b, aliceUID, 0)
	for b.Loop() {
		if sudo.say(s.pam, sudoAccount("alice")).Session == "" {
			b.Fatal(m.log)
		}
		sudo.begin("postgres")
		sudo.hangUp()
	}
}
