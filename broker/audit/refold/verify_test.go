package refold

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

func TestAnHonestRecordIsSoundToItsLastByte(t *testing.T) {
	o := &owner{t: t, leaves: recorded(t)}
	seen := uint64(0)
	found, err := Verify(o.record(), func(e Event) {
		if e.Index != seen || e.Head().Index != seen {
			t.Errorf("event %d is shown as %d", e.Head().Index, e.Index)
		}
		seen++
	})
	if err != nil || found.Events != uint64(len(o.leaves)) || seen != found.Events || found.Grants == 0 || found.Statements < 10 || found.Refused == 0 {
		t.Fatalf("%+v %v", found.Folded, err)
	}
	t.Logf("%d events, %d statements, %d grants, %d refusals", found.Events, found.Statements, found.Grants, found.Refused)
}

// TestAnOwnedBrokerThatForgesItsOwnLogIsNamed: the attacker rewrites the log, builds a new tree over it and signs that. No
// checkpoint was seen before; only the rules and the people's own signatures are left.
func TestAnOwnedBrokerThatForgesItsOwnLogIsNamed(t *testing.T) {
	for does, c := range map[string]struct {
		how   func(o *owner) (index int)
		named string
	}{
		"widens a grant's window": {func(o *owner) int {
			i := o.first("GrantOpened")
			o.edit(i, `"until":"2026`, `"until":"2027`)
			return i
		}, "does not say what follows"},
		"opens a grant that nobody approved": {func(o *owner) int {
			i := o.first("DecisionFiled")
			o.leaves = append(o.leaves[:i], o.leaves[o.first("GrantOpened"):]...)
			o.renumber(i)
			return i
		}, "no statement and no time makes this happen"},
		"forges an approver's signature": {func(o *owner) int {
			i := o.first("DecisionFiled")
			o.edit(i, `"signatures":["U1NIU0lHAAAA`, `"signatures":["U1NIU0lHAAAB`)
			return i
		}, "the statement in it is nobody's"},
		"puts another person's name beside a decision": {func(o *owner) int {
			i := o.first("DecisionFiled")
			o.edit(i, `"person":"bob"`, `"person":"gwen"`)
			return i
		}, "does not say what follows"},
		"keeps back what follows from a decision": {func(o *owner) int {
			i := o.first("CertificateIssued")
			o.leaves = slices.Delete(o.leaves, i, i+1)
			o.renumber(i)
			return i
		}, "does not say what follows"},
		"signs for bob with a key of its own": {func(o *owner) int {
			i := o.first("DecisionFiled")
			event, err := broker.DecodeEvent(o.leaves[i])
			if err != nil {
				o.t.Fatal(err)
			}
			filed := event.(*broker.DecisionFiled)
			if filed.Proof, err = statement.SignPayload(statement.KindDecision, filed.Proof.Payload, signtest.Ed25519("b1 identity")); err != nil {
				o.t.Fatal(err)
			}
			if o.leaves[i], err = broker.EncodeEvent(filed); err != nil {
				o.t.Fatal(err)
			}
			return i
		}, "the rules refuse the statement in it"},
		"ends a request before its time": {func(o *owner) int {
			i := o.first("RequestFiled") + 1
			id := o.leaves[i-1][strings.Index(string(o.leaves[i-1]), `"r-`)+1:][:28]
			o.leaves = slices.Insert(o.leaves, i, []byte(strings.Replace(`{"v":1,"index":0,"at":"2026-11-23T09:00:00Z","kind":"RequestExpired","request":"ID"}`, "ID", string(id), 1)))
			copyTime(o, i, i-1)
			o.renumber(i)
			return i
		}, "no statement and no time makes this happen"},
		"records a statement twice": {func(o *owner) int {
			i := o.first("HostReported") + 1
			o.leaves = slices.Insert(o.leaves, i, o.leaves[i-1])
			o.renumber(i)
			return i
		}, "taken before"},
		"swaps two events": {func(o *owner) int {
			i := o.first("HostEnrolled")
			o.leaves[i], o.leaves[i+1] = o.leaves[i+1], o.leaves[i]
			return i
		}, "removed, inserted or moved"},
		"stamps a time before the last": {func(o *owner) int {
			i := len(o.leaves) - 1
			o.edit(i, `"at":"2026-11-23`, `"at":"2026-11-22`)
			return i
		}, "time never goes back"},
		"stamps a time far ahead": {func(o *owner) int {
			i := len(o.leaves) - 1
			o.edit(i, `"at":"2026`, `"at":"2036`)
			return i
		}, "in the future"},
		"cuts the log inside a command": {func(o *owner) int {
			o.leaves = o.leaves[:o.first("GrantOpened")]
			return len(o.leaves)
		}, "it was cut"},
	} {
		t.Run(does, func(t *testing.T) {
			o := &owner{t: t, leaves: recorded(t)}
			index := c.how(o)
			found, err := Verify(o.record(), nil)
			var wrong *audit.Wrong
			if !errors.As(err, &wrong) {
				t.Fatalf("not noticed: %+v %v", found.Folded, err)
			}
			if wrong.Index != uint64(index) || !strings.Contains(wrong.Why, c.named) {
				t.Errorf("named %v, want event %d: … %s", wrong, index, c.named)
			}
			t.Log(wrong)
		})
	}
}

// copyTime gives one event the time of another.
func copyTime(o *owner, to, from int) {
	at := string(o.leaves[from][strings.Index(string(o.leaves[from]), `"at":`):])
	at = at[:strings.Index(at, ",")]
	text := string(o.leaves[to])
	start := strings.Index(text, `"at":`)
	o.leaves[to] = []byte(text[:start] + at + text[start+strings.Index(text[start:], ","):])
}

// TestWhatWasSignedOrShownBeforeIsHeldAgainstARecord: the log is honest by the rules, but it is not the one others saw.
func TestWhatWasSignedOrShownBeforeIsHeldAgainstARecord(t *testing.T) {
	whole := &owner{t: t, leaves: recorded(t)}
	short := &owner{t: t, leaves: recorded(t)[:whole.first("RequestFiled")]}
	forked := &owner{t: t, leaves: slices.Clone(short.leaves)}
	forked.file(forked.report(statement.SessionRefused, statement.LogHead{}), forked.folded().Now())
	wholeRecord, shortRecord, forkedRecord := whole.record(), short.record(), forked.record()

	split := &owner{t: t, leaves: slices.Clone(short.leaves)}
	split.file(split.report(statement.SessionRefused, statement.LogHead{Size: 3, Root: statement.HashOf([]byte("elsewhere"))}), split.folded().Now())
	ahead := &owner{t: t, leaves: slices.Clone(short.leaves)}
	ahead.file(ahead.report(statement.SessionRefused, wholeRecord.Signed.LogHead), ahead.folded().Now())
	unlike := whole.record()
	unlike.Signed = whole.sign(wholeRecord.Signed.LogHead, statement.HashOf([]byte("another state")))
	foreign := shortRecord
	foreign.Pinned = whole.folded().Chain().Until(0)

	for what, c := range map[string]struct {
		record Record
		others []audit.Signed
		named  string
	}{
		"truncated since":                              {shortRecord, []audit.Signed{wholeRecord.Signed}, "it was truncated"},
		"forked since":                                 {wholeRecord, []audit.Signed{forkedRecord.Signed}, "forked or rewritten"},
		"a fork beside the honest one":                 {forkedRecord, []audit.Signed{shortRecord.Signed, whole.at(len(short.leaves) + 1)}, "forked or rewritten"},
		"shown to a host as another":                   {split.record(), nil, "a broker showed it a different log"},
		"shown to a host longer than it is":            {ahead.record(), nil, "a broker showed it a different log"},
		"signed with a state that it does not lead to": {unlike, nil, "did not follow its own log"},
		"under a policy that is not the pinned one":    {foreign, nil, "not the one you pinned"},
	} {
		c.record.Others = c.others
		_, err := Verify(c.record, nil)
		if err == nil || !strings.Contains(err.Error(), c.named) {
			t.Errorf("%s: %v, want %s", what, err, c.named)
		}
	}
	wholeRecord.Others = []audit.Signed{shortRecord.Signed, whole.at(9), wholeRecord.Signed}
	if _, err := Verify(wholeRecord, nil); err != nil {
		t.Errorf("what it grew from: %v", err)
	}
	told := &owner{t: t, leaves: slices.Clone(short.leaves)}
	told.file(told.report(statement.LogRefused, whole.at(3).LogHead), told.folded().Now())
	found, err := Verify(told.record(), nil)
	if err != nil || len(found.Told) != 1 || found.Told[0].Host != "web1" {
		t.Errorf("a host's true head and its complaint: %+v %v", found.Told, err)
	}
}

// at is the checkpoint over the first size events.
func (o *owner) at(size int) audit.Signed {
	o.t.Helper()
	return (&owner{t: o.t, leaves: o.leaves[:size]}).record().Signed
}

// FuzzTake hands the auditor whatever an owned broker may write.
func FuzzTake(f *testing.F) {
	for _, leaf := range recorded(f)[:20] {
		f.Add(leaf)
	}
	leaves := recorded(f)
	f.Fuzz(func(t *testing.T, leaf []byte) {
		r := NewReplay(later)
		for _, honest := range leaves[:8] {
			if _, err := r.Take(honest); err != nil {
				t.Fatal(err)
			}
		}
		index := r.State().Index()
		event, err := r.Take(leaf)
		if err == nil && (event == nil || r.State().Index() != index+1) {
			t.Error("taken without being folded")
		}
		if _, opened := event.(*broker.GrantOpened); opened && err == nil {
			t.Error("a grant out of nothing")
		}
	})
}
