package broker

import (
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// TestOnlyWhatEndsAccessNeedsLittleRoom names every kind of command: one that is new and not named here could lead to access.
func TestOnlyWhatEndsAccessNeedsLittleRoom(t *testing.T) {
	sc := resume(t)
	p := sc.asks("alice", "root", "db1")
	for name, try := range map[string]struct {
		command Command
		room    Room
	}{
		"a request":            {sc.command(p), RoomPlenty},
		"an approval":          {sc.command(sc.approves("bob", p)), RoomPlenty},
		"a denial":             {sc.command(sc.denies("bob", p)), RoomLeast},
		"a withdrawal":         {sc.command(sc.ends("alice", statement.Withdraw, p)), RoomLeast},
		"a revocation":         {sc.command(sc.ends("dave", statement.Revoke, p)), RoomLeast},
		"a report":             {sc.command(sc.reports("db1", 1)), RoomSome},
		"an enrolment":         {sc.command(sc.enrolment("new", "db")), RoomPlenty},
		"a certificate":        {sc.command(sc.certifies("alice", p, "a desk")), RoomPlenty},
		"a policy":             {Command{Kind: AdoptPolicy}, RoomPlenty},
		"a raise of the rules": {Command{Kind: RaiseRules}, RoomPlenty},
		"a removed broker":     {Command{Kind: ChangeCluster}, RoomLeast},
		"a restore":            {Command{Kind: BeginEpoch}, RoomLeast},
		"a look at the clock":  {TickAt(sc.now, nil), RoomLeast},
		"what is not known":    {Command{Kind: "Grant"}, RoomPlenty},
		"a decision of nobody": {Command{Kind: FileDecision}, RoomPlenty},
	} {
		if room := try.command.Room(); room != try.room {
			t.Errorf("%s needs room %d, want %d", name, room, try.room)
		}
	}
}

// TestForeseeingAPolicyProvesNoGrant is about what it costs: Decide walks every live grant, Foresee none.
func TestForeseeingAPolicyProvesNoGrant(t *testing.T) {
	sc := resume(t)
	sc.granted()
	command := sc.command(sc.revises(func(doc *policy.Document) { delete(doc.Roles, "db-admin") }))
	decided, err := Decide(sc.s, command)
	if err != nil || len(decided.Events) != 2 {
		t.Fatalf("%d events, %v", len(decided.Events), err)
	}
	foreseen, err := Foresee(sc.s, command)
	if err != nil || len(foreseen.Events) != 1 {
		t.Errorf("%d events foreseen, %v", len(foreseen.Events), err)
	}
}
