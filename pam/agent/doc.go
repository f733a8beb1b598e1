// Package agent is pim-hostd at run time: it keeps what was signed, judges it, opens and ends grants on this host, and
// answers PAM and sshd.
//
// It decides whether a start is allowed here and now, with the broker's own rule (broker.Prove and Grant.LiveOn) on
// proofs from its own disk, and never on anybody's word. It never writes to /etc (package enforce does), never keeps
// a window open by being alive, and never needs to be alive to close one: every end is armed in systemd, sudoers and
// the certificate before the first start, so killing the agent takes access away and gives none.
//
// It sits between pam/wire (the questions), broker (the rules) and systemd (the clock). One goroutine, the keeper,
// opens and ends grants; answers only read the ledger and put a process into a unit that stands already.
//
// Read agent.go first (the keeper), then ledger.go (what is known), door.go and socket.go (who asks), answer.go (what is
// said), start.go and session.go (what starts), extend.go (what goes on), unit.go and cgroup.go (what holds processes), spool.go (what is on disk).
package agent
