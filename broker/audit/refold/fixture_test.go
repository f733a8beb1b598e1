package refold

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"testing/fstest"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// later is when the auditor looks: a year after the recorded log.
const later = statement.Time(1795420800) + 365*24*3600

// recorded returns the log that package broker's tests froze: every kind of event of rules 1 is in it.
func recorded(t testing.TB) [][]byte { return recordedIn(t, "log.ndjson") }

func recordedIn(t testing.TB, name string) [][]byte {
	t.Helper()
	data, err := os.ReadFile("../../testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
}

// owner is whoever holds a broker: its disk, its log key, and nobody else's key.
type owner struct {
	t      testing.TB
	leaves [][]byte
}

// folded is the state that leaves fold to without any question asked, as an owned broker would have it.
func (o *owner) folded() *broker.State {
	o.t.Helper()
	state := broker.NewState()
	for _, leaf := range o.leaves {
		event, err := broker.DecodeEvent(leaf)
		if err != nil {
			o.t.Fatal(err)
		}
		broker.Evolve(state, event)
	}
	return state
}

// record publishes the leaves as an honest broker would: whole, consistent, signed.
func (o *owner) record() Record {
	o.t.Helper()
	files := fstest.MapFS{}
	head, grown, err := audit.Grow(statement.LogHead{}, audit.FromFS(files), o.leaves)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, f := range grown {
		files[f.Path] = &fstest.MapFile{Data: f.Data}
	}
	state := o.folded()
	return Record{Source: audit.FromFS(files), Signed: o.sign(head, state.Digest()), Pinned: state.Chain(), Now: later}
}

// sign signs a head as b1.
func (o *owner) sign(head statement.LogHead, state statement.Hash) audit.Signed {
	o.t.Helper()
	deployment := o.folded().Chain().Deployment()
	key := signtest.Ed25519("b1 log")
	text, err := audit.Sign(audit.Checkpoint{Deployment: deployment, LogHead: head, State: state}, key)
	if err != nil {
		o.t.Fatal(err)
	}
	signed, err := audit.Open(text, deployment, map[statement.BrokerName]statement.Key{"b1": signtest.Public(key)})
	if err != nil {
		o.t.Fatal(err)
	}
	return signed
}

// first returns the index of the first event of a kind.
func (o *owner) first(kind broker.EventKind) int {
	o.t.Helper()
	for i, leaf := range o.leaves {
		if bytes.Contains(leaf, fmt.Appendf(nil, `"kind":%q`, kind)) {
			return i
		}
	}
	o.t.Fatalf("no %s in the log", kind)
	return 0
}

// edit replaces bytes of one leaf.
func (o *owner) edit(index int, old, new string) {
	o.t.Helper()
	changed := bytes.Replace(o.leaves[index], []byte(old), []byte(new), 1)
	if bytes.Equal(changed, o.leaves[index]) {
		o.t.Fatalf("%q is not in event %d: %s", old, index, o.leaves[index])
	}
	o.leaves[index] = changed
}

// renumber gives every leaf from an index on the index it stands at.
func (o *owner) renumber(from int) {
	o.t.Helper()
	for i := from; i < len(o.leaves); i++ {
		start := bytes.Index(o.leaves[i], []byte(`"index":`)) + len(`"index":`)
		end := start + bytes.IndexByte(o.leaves[i][start:], ',')
		o.leaves[i] = append(fmt.Appendf(bytes.Clone(o.leaves[i][:start]), "%d", i), o.leaves[i][end:]...)
	}
}

// files has the rules decide a statement after all that is there.
func (o *owner) file(p statement.Proof, at statement.Time) {
	o.t.Helper()
	command, err := broker.CommandFor(p, at)
	if err != nil {
		o.t.Fatal(err)
	}
	decided, err := broker.Decide(o.folded(), command.Under(o.folded()))
	if err != nil || len(decided.Events) == 0 {
		o.t.Fatalf("%v, %d events", err, len(decided.Events))
	}
	for _, event := range decided.Events {
		leaf, err := broker.EncodeEvent(event)
		if err != nil {
			o.t.Fatal(err)
		}
		o.leaves = append(o.leaves, leaf)
	}
}

// report is web1's next report, of a head it saw.
func (o *owner) report(what statement.ReportWhat, head statement.LogHead) statement.Proof {
	o.t.Helper()
	state := o.folded()
	host, known := state.Host("web1")
	if !known {
		o.t.Fatal("web1 is not enrolled")
	}
	p, err := statement.Sign(statement.Report{
		Head: statement.Head{V: statement.Version, Kind: statement.KindReport, Deployment: state.Chain().Deployment(), Policy: state.Chain().Ref(), Host: "web1",
			Nonce: fmt.Sprintf("%032x", 7), Created: state.Now(), NotAfter: state.Now() + 3600},
		Sequence: host.Sequence + 1, What: what, Service: "pim-hostd", At: state.Now(), Why: "the log was forked", Log: head,
	}, signtest.Ed25519("web1 identity"))
	if err != nil {
		o.t.Fatal(err)
	}
	return p
}
