package broker

import (
	"testing"

	"pim-ssh/broker/statement"
)

// TestThreatAStrangerLearnsNoState has mallory, who somehow has a whole id, try everything on it in every state: she is told
// what she would be told of an id that nobody ever filed.
func TestThreatAStrangerLearnsNoState(t *testing.T) {
	pending := func(sc *scene) statement.Proof {
		p := sc.asks("alice", "db-admin", "db1")
		sc.must(p)
		return p
	}
	states := map[string]func(sc *scene) statement.Proof{
		"never filed": func(sc *scene) statement.Proof { return sc.asks("alice", "db-admin", "db1") },
		"pending":     pending,
		"expired":     func(sc *scene) statement.Proof { p := pending(sc); sc.now += 3601; return p },
		"denied":      func(sc *scene) statement.Proof { p := pending(sc); sc.must(sc.denies("bob", p)); return p },
		"withdrawn": func(sc *scene) statement.Proof {
			p := pending(sc)
			sc.must(sc.ends("alice", statement.Withdraw, p))
			return p
		},
		"active": (*scene).granted,
		"returned": func(sc *scene) statement.Proof {
			p := sc.granted()
			sc.must(sc.ends("alice", statement.Return, p))
			return p
		},
		"revoked": func(sc *scene) statement.Proof {
			p := sc.granted()
			sc.must(sc.ends("bob", statement.Revoke, p))
			return p
		},
		"lapsed": func(sc *scene) statement.Proof { p := sc.granted(); sc.now += 1800; return p },
	}
	tries := map[string]struct {
		file func(sc *scene, p statement.Proof) statement.Proof
		what string
	}{
		"approve":  {func(sc *scene, p statement.Proof) statement.Proof { return sc.approves("mallory", p) }, "no request r-"},
		"deny":     {func(sc *scene, p statement.Proof) statement.Proof { return sc.denies("mallory", p) }, "no request r-"},
		"withdraw": {func(sc *scene, p statement.Proof) statement.Proof { return sc.ends("mallory", statement.Withdraw, p) }, "no request r-"},
		"return":   {func(sc *scene, p statement.Proof) statement.Proof { return sc.ends("mallory", statement.Return, p) }, "no grant g-"},
		"revoke":   {func(sc *scene, p statement.Proof) statement.Proof { return sc.ends("mallory", statement.Revoke, p) }, "no grant g-"},
		"certify": {func(sc *scene, p statement.Proof) statement.Proof {
			return sc.certifies("mallory", p, "mallory laptop")
		}, "no grant g-"},
		"erin's no": {func(sc *scene, p statement.Proof) statement.Proof { return sc.denies("erin", p) }, "no request r-"},
	}
	for state, reach := range states {
		for name, try := range tries {
			t.Run(name+" "+state, func(t *testing.T) {
				sc := newScene(t)
				p := reach(sc)
				refusal := sc.refused(Missing, try.file(sc, p))
				if want := try.what + string(StemOf(p.Hash())); refusal.Msg != want {
					t.Errorf("she is told %q, want %q", refusal.Msg, want)
				}
				if refusal.Hint != "pim-ssh status" {
					t.Errorf("hint %q", refusal.Hint)
				}
			})
		}
	}
}
