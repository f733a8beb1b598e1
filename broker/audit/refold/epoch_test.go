package refold

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// restored returns the log in which an operator restored the brokers after the leader's clock had run ahead.
func restored(t testing.TB) [][]byte {
	t.Helper()
	data, err := os.ReadFile("../../testdata/log-3.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
}

// restore has dave restore the leaves as they are.
func (o *owner) restore(epoch uint64, despite string) {
	o.t.Helper()
	state := o.folded()
	tree := &audit.Tree{}
	for _, leaf := range o.leaves {
		tree.Add(leaf)
	}
	head, _ := tree.Head(tree.Size())
	now := state.Now() + 1
	p, err := statement.Sign(statement.Restore{
		Head: statement.Head{V: statement.Version, Kind: statement.KindRestore, Deployment: state.Chain().Deployment(), Policy: state.Chain().Ref(), Person: "dave",
			Nonce: fmt.Sprintf("%032x", epoch), Created: now, NotAfter: now + 3600},
		Epoch: epoch, Size: head.Size, Root: head.Root, Why: "all disks burnt", Despite: despite,
	}, signtest.Ed25519("dave"))
	if err != nil {
		o.t.Fatal(err)
	}
	o.file(p, now)
}

// epoch is the index of the newest EpochBegun.
func (o *owner) epoch() int {
	o.t.Helper()
	for i := len(o.leaves) - 1; i >= 0; i-- {
		if bytes.Contains(o.leaves[i], []byte(`"kind":"EpochBegun"`)) {
			return i
		}
	}
	o.t.Fatal("no epoch")
	return 0
}

func TestARestoredRecordIsSound(t *testing.T) {
	o := &owner{t, restored(t)}
	found, err := Verify(o.record(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Epochs) != 1 || found.Epoch != 1 || found.Epochs[0].Person != "dave" || found.Epochs[0].Index != uint64(o.epoch()) {
		t.Errorf("%+v", found.Epochs)
	}
}

// TestAClockThatRanAheadIsSettledByARestore, and only by one.
func TestAClockThatRanAheadIsSettledByARestore(t *testing.T) {
	whole := &owner{t, restored(t)}
	begun := whole.folded().Epoch().Begun
	r := whole.record()
	r.Now = begun.Add(10) // the auditor lives in the time that the operator began again
	if _, err := Verify(r, nil); err != nil {
		t.Errorf("restored: %v", err)
	}
	cut := &owner{t, whole.leaves[:whole.epoch()]}
	r = cut.record()
	r.Now = begun.Add(10)
	if _, err := Verify(r, nil); err == nil || !strings.Contains(err.Error(), "in the future") {
		t.Errorf("before: %v", err)
	}
}

func TestAForgedRestoreIsNamed(t *testing.T) {
	for does, bend := range map[string]func(o *owner){
		"leaves a live grant alone": func(o *owner) {
			at := o.epoch() + 1
			o.leaves = append(o.leaves[:at:at], o.leaves[at+1:]...)
			o.renumber(at)
		},
		"sets the clock back by itself": func(o *owner) { o.edit(o.epoch(), `"at":"2026`, `"at":"2025`) },
		"stays under old rules":         func(o *owner) { o.edit(o.epoch(), `"rules":2`, `"rules":1`) },
		"names another operator":        func(o *owner) { o.edit(o.epoch(), `"person":"dave"`, `"person":"carol"`) },
		"moves it": func(o *owner) {
			at := o.epoch()
			o.leaves[at], o.leaves[at-1] = o.leaves[at-1], o.leaves[at]
			o.renumber(at - 1)
		},
	} {
		o := &owner{t, restored(t)}
		bend(o)
		if o.decodes() {
			if _, err := Verify(o.record(), nil); err == nil {
				t.Errorf("a broker that %s is not named", does)
			}
		}
	}
}

// decodes reports whether every leaf is an event at all: if not, Verify has nothing left to find.
func (o *owner) decodes() bool {
	for _, leaf := range o.leaves {
		if _, err := broker.DecodeEvent(leaf); err != nil {
			return false
		}
	}
	return true
}

// TestWhatARestoreLeavesOutIsExcusedByItsWords: the auditor saw more, and a host was shown more, than the backup holds.
func TestWhatARestoreLeavesOutIsExcusedByItsWords(t *testing.T) {
	for what, c := range map[string]struct {
		despite string
		epoch   uint64 // of what was seen
		says    string
	}{
		"left out, and the operator says why":         {"the newest backup is of 8 o'clock", 0, ""},
		"left out, and nobody says why":               {"", 0, "forked or rewritten"},
		"left out by a broker after the restore":      {"the newest backup is of 8 o'clock", 1, "forked or rewritten"},
		"left out after the restore, nobody said why": {"", 1, "forked or rewritten"},
	} {
		o := &owner{t, recorded(t)}
		lost := &owner{t, slices.Clone(o.leaves)}
		lost.file(lost.report(statement.SessionRefused, statement.LogHead{}), lost.folded().Now())
		seen := lost.record().Signed
		o.restore(1, c.despite)
		r := o.record()
		r.Before = []Seen{{Signed: seen, Epoch: c.epoch}}
		_, err := Verify(r, nil)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: what frank saw: %v, want %q", what, err, c.says)
		}
		o.file(o.reportIn(c.epoch, seen.LogHead), o.folded().Now())
		_, err = Verify(o.record(), nil)
		if c.says == "" && err != nil || c.says != "" && err == nil {
			t.Errorf("%s: what web1 saw: %v", what, err)
		}
	}
}

// reportIn is web1's next report, of a head it saw in an epoch.
func (o *owner) reportIn(epoch uint64, head statement.LogHead) statement.Proof {
	o.t.Helper()
	state := o.folded()
	host, _ := state.Host("web1")
	p, err := statement.Sign(statement.Report{
		Head: statement.Head{V: statement.Version, Kind: statement.KindReport, Deployment: state.Chain().Deployment(), Policy: state.Chain().Ref(), Host: "web1",
			Nonce: fmt.Sprintf("%032x", 8), Created: state.Now(), NotAfter: state.Now() + 3600},
		Sequence: host.Sequence + 1, What: statement.SessionRefused, Service: "sudo", At: state.Now(), Log: head, Epoch: epoch,
	}, signtest.Ed25519("web1 identity"))
	if err != nil {
		o.t.Fatal(err)
	}
	return p
}
