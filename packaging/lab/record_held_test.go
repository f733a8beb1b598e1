//go:build lab

package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/labtest"
)

// signed is what a broker's disk says it signed last.
func (c *crowd) signed(t testing.TB, b string) (audit.Source, audit.Signed) {
	t.Helper()
	source := audit.FromFS(os.DirFS(filepath.Join(c.Tree(t, b), recordDir)))
	text, err := source(audit.PathCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := audit.Open(text, c.world.Chain.Deployment(), c.world.Chain.Current().LogKeys())
	if err != nil {
		t.Fatal(err)
	}
	if string(signed.Broker) != b {
		t.Fatalf("%s shows a checkpoint of %s", b, signed.Broker)
	}
	return source, signed
}

// agree waits, while nobody files, until all brokers have signed equally many events, everything acknowledged among them, and
// holds the trees and the states' digests to each other.
func (c *crowd) agree(t testing.TB) audit.Signed {
	t.Helper()
	c.mu.Lock()
	newest := uint64(0)
	for _, k := range c.kept {
		newest = max(newest, k.answer.Index)
	}
	c.mu.Unlock()
	all := make([]audit.Signed, len(brokers))
	labtest.WaitFor(t, "checkpoints of one size", 20*time.Second, func() bool {
		for i, b := range brokers {
			_, all[i] = c.signed(t, b)
		}
		return all[0].Size > newest && all[1].Size == all[0].Size && all[2].Size == all[0].Size
	})
	for i, b := range brokers {
		if all[i].Checkpoint != all[0].Checkpoint {
			t.Errorf("%d events give %s the tree %s and the state %s, and %s the tree %s and the state %s", all[0].Size,
				brokers[0], all[0].Root, all[0].State, b, all[i].Root, all[i].State)
		}
	}
	return all[0]
}

// held ends the crowd and holds every broker's record, and the auditor's own command, to everything that was answered.
func (c *crowd) held(t *testing.T) {
	t.Helper()
	c.quit()
	c.agree(t)
	for _, b := range brokers {
		c.heldBy(t, b)
	}
	verified := c.pim(t, "frank", "audit", "verify").Want(t, 0)
	for _, heard := range c.beats {
		for _, k := range c.kept {
			if statement.TimeOf(k.at) < heard.at && k.answer.Index > heard.index {
				t.Errorf("%s said at %s that there is nothing after event %d; %d was acknowledged at %s", heard.broker, heard.at, heard.index, k.answer.Index, k.at)
			}
		}
	}
	accepted, refused := c.kinds()
	t.Logf("%d statements accepted and %d refused, each as answered on every disk; no beat of %d was early\n%s", accepted, refused, len(c.beats), verified.Out)
}

// heldBy finds each accepted statement in a broker's record once, where its answer said, with the grant that it said, and none
// that was refused.
func (c *crowd) heldBy(t *testing.T, b string) {
	t.Helper()
	source, signed := c.signed(t, b)
	took := map[statement.Hash][]uint64{}
	opened := map[string]uint64{}
	_, err := audit.Read(source, signed.LogHead, func(index uint64, entry []byte) {
		var e struct {
			Kind  string
			Proof *statement.Proof
			Grant json.RawMessage
		}
		if err := json.Unmarshal(entry, &e); err != nil {
			t.Fatalf("event %d: %v\n%s", index, err, entry)
		}
		switch e.Kind {
		case "RequestFiled", "DecisionFiled", "RequestWithdrawn", "GrantReturned", "GrantRevoked":
			took[e.Proof.Hash()] = append(took[e.Proof.Hash()], index)
		case "GrantOpened":
			var grant struct{ ID string }
			if err := json.Unmarshal(e.Grant, &grant); err != nil {
				t.Fatalf("event %d: %v\n%s", index, err, entry)
			}
			opened[grant.ID] = index
		}
	})
	if err != nil {
		t.Fatalf("the record of %s: %v", b, err)
	}
	for _, k := range c.kept {
		at := took[k.proof.Hash()]
		switch {
		case k.refused != nil && len(at) != 0:
			t.Errorf("%s: refused (%v), and the record has it at %v: %s", b, k.refused, at, k.proof.Payload)
		case k.refused == nil && (len(at) != 1 || at[0] != k.answer.Index):
			t.Errorf("%s: acknowledged at %d, and the record has it at %v: %s", b, k.answer.Index, at, k.proof.Payload)
		case k.refused == nil && k.answer.Grant != nil && opened[string(*k.answer.Grant)] == 0:
			t.Errorf("%s: the grant %s was acknowledged, and the record has it not: %s", b, *k.answer.Grant, k.proof.Payload)
		}
	}
}
