package refold

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker/audit"
)

func TestARecordThatChangesItsClusterIsSound(t *testing.T) {
	o := &owner{t: t, leaves: recordedIn(t, "log-2.ndjson")}
	found, err := Verify(o.record(), nil)
	if err != nil || found.Events != uint64(len(o.leaves)) {
		t.Fatalf("%+v %v", found.Folded, err)
	}
}

// THREATS raft, an owned broker: who is in the cluster, and under which rules, is as hard to forge as a grant.
func TestAnOwnedBrokerThatForgesTheClusterIsNamed(t *testing.T) {
	later := func(o *owner, kind string, n int) int {
		i := o.first("RulesRaised")
		for n > 0 {
			if i++; strings.Contains(string(o.leaves[i]), `"kind":"`+kind+`"`) {
				n--
			}
		}
		return i
	}
	for does, c := range map[string]struct {
		how   func(o *owner) (index int)
		named string
	}{
		"adds another disk than the operator's": {func(o *owner) int {
			i := o.first("BrokerAdded")
			o.edit(i, `"disk":"e9`, `"disk":"e8`)
			return i
		}, "does not say what follows"},
		"gives a watcher a vote": {func(o *owner) int {
			i := o.first("BrokerAdded")
			o.edit(i, `"watching":true`, `"watching":false`)
			return i
		}, "does not say what follows"},
		"forgets a removal": {func(o *owner) int {
			i := later(o, "BrokerRemoved", 2)
			o.leaves = slices.Delete(o.leaves, i, i+1)
			o.renumber(i)
			return i
		}, "taken before"},
		"raises the rules by itself": {func(o *owner) int {
			o.edit(0, `"revision":1,`, `"revision":1,"rules":2,`)
			return o.first("RulesRaised")
		}, "the rules refuse the statement in it"},
		"forgets that the rules were raised": {func(o *owner) int {
			i := o.first("RulesRaised")
			o.leaves = slices.Delete(o.leaves, i, i+1)
			o.renumber(i)
			return i
		}, "the rules refuse the statement in it"},
	} {
		t.Run(does, func(t *testing.T) {
			o := &owner{t: t, leaves: recordedIn(t, "log-2.ndjson")}
			index := c.how(o)
			found, err := Verify(o.record(), nil)
			var wrong *audit.Wrong
			if !errors.As(err, &wrong) {
				t.Fatalf("not noticed: %+v %v", found.Folded, err)
			}
			if wrong.Index != uint64(index) || !strings.Contains(wrong.Why, c.named) {
				t.Errorf("named %v, want event %d: … %s", wrong, index, c.named)
			}
		})
	}
}
