package clustertest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
)

// checkPatience bounds the search for an order that explains a history. Not found in time is not found.
const checkPatience = 5 * time.Minute

// Verdict is what is wrong with a run: nothing, when the promises held.
func (r *Run) Verdict() []string {
	wrong := slices.Clone(r.cluster.found)
	if r.short != "" {
		wrong = append(wrong, r.short)
	}
	known := map[broker.Stem]broker.Grant{} // in any chapter: who has not heard of a restore goes by what was before
	for _, c := range r.chapters {
		r.chapter = c
		wrong = append(wrong, r.checkOrder()...)
		wrong = append(wrong, r.checkLooks()...)
		if len(r.final) == 0 {
			continue
		}
		wrong = append(wrong, r.checkBrokers()...)
		wrong = append(wrong, r.checkKept()...)
		opened, ends, more := r.fold()
		maps.Copy(known, opened)
		wrong = append(wrong, more...)
		wrong = append(wrong, r.checkStarts(known)...)
		wrong = append(wrong, r.checkHosts(opened, ends)...)
		wrong = append(wrong, r.checkAudit()...)
	}
	return wrong
}

// checkOrder looks for an order of the operations that the model explains: one wish at a time.
func (r *Run) checkOrder() []string {
	by := map[wish][]*Op{}
	for _, op := range r.history.ops {
		by[op.Wish] = append(by[op.Wish], op)
	}
	var wrong []string
	m := model()
	for _, w := range slices.SortedFunc(maps.Keys(by), func(a, b wish) int {
		return cmp.Or(cmp.Compare(a.person, b.person), cmp.Compare(a.role, b.role), cmp.Compare(a.hosts, b.hosts))
	}) {
		ops := operations(by[w])
		result := porcupine.CheckOperationsTimeout(m, ops, checkPatience)
		if result != porcupine.Ok {
			wrong = append(wrong, fmt.Sprintf("no order of what happened to %s's requests for %s@%sexplains what people and hosts were told (%s):\n%s",
				w.person, w.role, w.hosts, result, stuck(m, ops)))
		}
	}
	return wrong
}

// stuck says how far an order could be found, and what did not fit then.
func stuck(m porcupine.Model, ops []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(m, ops, checkPatience)
	var best []int
	for _, partition := range info.PartialLinearizations() {
		for _, found := range partition {
			if len(found) > len(best) {
				best = found
			}
		}
	}
	var b strings.Builder
	for _, at := range best {
		fmt.Fprintf(&b, "  %s\n", ops[at].Input.(*Op))
	}
	fmt.Fprintln(&b, "  does not fit:")
	for at, op := range ops {
		if !slices.Contains(best, at) {
			fmt.Fprintf(&b, "  %s\n", op.Input.(*Op))
		}
	}
	return b.String()
}

// checkLooks holds every look to those that were over before it began, and to what had been acknowledged.
func (r *Run) checkLooks() []string {
	var wrong []string
	digests := map[uint64]statement.Hash{}
	looks := slices.Clone(r.history.looks)
	slices.SortFunc(looks, func(a, b look) int { return cmp.Compare(a.call, b.call) })
	over := slices.Clone(r.history.looks) // by when they were over
	var most look
	for _, l := range looks {
		for len(over) > 0 && over[0].back < l.call {
			if over[0].index > most.index {
				most = over[0]
			}
			over = over[1:]
		}
		switch {
		case l.index < most.index:
			wrong = append(wrong, fmt.Sprintf("stale: %s showed %d events at %d, but %s had shown %d at %d", l.at, l.index, l.call, most.at, most.index, most.back))
		case l.now < most.now:
			wrong = append(wrong, fmt.Sprintf("time went back: %s says it is %s at %d, %s said %s", l.at, l.now, l.call, most.at, most.now))
		case l.index < l.acknowledged:
			wrong = append(wrong, fmt.Sprintf("stale or lost: %s showed %d events at %d, but event %d was acknowledged", l.at, l.index, l.call, l.acknowledged-1))
		}
		if had, known := digests[l.index]; known && had != l.digest {
			wrong = append(wrong, fmt.Sprintf("two states of %d events: %s showed %s, another had %s", l.index, l.at, l.digest, had))
		}
		digests[l.index] = l.digest
	}
	return wrong
}

// checkBrokers holds the brokers to each other, and each to what was acknowledged.
func (r *Run) checkBrokers() []string {
	var wrong []string
	one := r.final[0]
	for _, other := range r.final[1:] {
		if other.index != one.index || other.digest != one.digest {
			wrong = append(wrong, fmt.Sprintf("%s has %d events and state %s, %s has %d and %s", other.name, other.index, other.digest, one.name, one.index, one.digest))
		}
		if !slices.EqualFunc(other.leaves, one.leaves, bytes.Equal) {
			wrong = append(wrong, fmt.Sprintf("%s and %s have different events", other.name, one.name))
		}
	}
	for _, op := range r.history.ops {
		if op.Return == 0 || op.Body == nil || op.Told.kind != "" {
			continue
		}
		if op.Told.index >= one.index {
			wrong = append(wrong, fmt.Sprintf("lost: the log ends at %d: %s", one.index, op))
			continue
		}
		event, err := broker.DecodeEvent(one.leaves[op.Told.index])
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		if proof, carries := broker.Carried(event); !carries || proof.Hash() != op.Proof {
			wrong = append(wrong, fmt.Sprintf("lost: event %d is a %s: %s", op.Told.index, event.Head().Kind, op))
		}
	}
	return wrong
}

// checkKept holds the log to the record that it was restored from, and its next event to the restore.
func (r *Run) checkKept() []string {
	if r.kept == nil {
		return nil
	}
	leaves := r.final[0].leaves
	if len(leaves) <= len(r.kept) || !slices.EqualFunc(leaves[:len(r.kept)], r.kept, bytes.Equal) {
		return []string{"the log does not go on from the record it was restored from"}
	}
	event, err := broker.DecodeEvent(leaves[len(r.kept)])
	if _, begins := event.(*broker.EpochBegun); err != nil || !begins {
		return []string{fmt.Sprintf("event %d does not begin the epoch (%v)", len(r.kept), err)}
	}
	return nil
}

// fold reads the log as a list of grants and ends, and nothing more.
func (r *Run) fold() (map[broker.Stem]broker.Grant, map[broker.Stem]bool, []string) {
	opened, ended := map[broker.Stem]broker.Grant{}, map[broker.Stem]bool{}
	var wrong []string
	var now statement.Time
	for index, leaf := range r.final[0].leaves {
		event, err := broker.DecodeEvent(leaf)
		if err != nil {
			return nil, nil, append(wrong, fmt.Sprintf("event %d: %v", index, err))
		}
		if _, begins := event.(*broker.EpochBegun); begins {
			now = 0 // by the operator's clock
		}
		if event.Head().Index != uint64(index) || event.Head().At < now {
			wrong = append(wrong, fmt.Sprintf("event %d says that it is %d, at %s after %s", index, event.Head().Index, event.Head().At, now))
		}
		now = event.Head().At
		switch e := event.(type) {
		case *broker.GrantOpened:
			if _, twice := opened[e.Grant.Stem]; twice {
				wrong = append(wrong, fmt.Sprintf("event %d opens %s a second time", index, e.Grant.ID))
			}
			opened[e.Grant.Stem] = e.Grant
		case *broker.GrantReturned:
			ended[e.Grant.Stem()] = true
		case *broker.GrantRevoked:
			ended[e.Grant.Stem()] = true
		}
	}
	return opened, ended, wrong
}

// checkStarts pairs every start with a grant in the log, its host and its window.
func (r *Run) checkStarts(opened map[broker.Stem]broker.Grant) []string {
	var wrong []string
	for _, s := range r.starts {
		g, committed := opened[s.stem]
		switch {
		case !committed:
			wrong = append(wrong, fmt.Sprintf("%s let something start under %s, which the log does not know", s.host, s.stem.Grant()))
		case !slices.Contains(g.Hosts, s.host):
			wrong = append(wrong, fmt.Sprintf("%s let something start under %s, which is for %v", s.host, s.stem.Grant(), g.Hosts))
		case s.at < g.From || s.at >= g.Until:
			wrong = append(wrong, fmt.Sprintf("%s let something start under %s at %s, outside %s to %s", s.host, s.stem.Grant(), s.at, g.From, g.Until))
		}
	}
	return wrong
}

// checkHosts holds what fresh hosts would let start, told by each broker, to what the log says is live.
func (r *Run) checkHosts(opened map[broker.Stem]broker.Grant, ended map[broker.Stem]bool) []string {
	var wrong []string
	for _, n := range r.newborn {
		for stem, g := range opened {
			open := slices.Contains(n.stems, stem)
			lives := slices.Contains(g.Hosts, n.host) && !ended[stem] && n.at >= g.From && n.at < g.Until
			switch {
			case open && !lives:
				wrong = append(wrong, fmt.Sprintf("%s, told by %s, would let %s start something at %s: it is over, or not for that host", n.host, n.by, stem.Grant(), n.at))
			case !open && lives:
				wrong = append(wrong, fmt.Sprintf("%s, told by %s, lets %s start nothing at %s, though it lives", n.host, n.by, stem.Grant(), n.at))
			}
		}
	}
	return wrong
}

// checkAudit has the auditor's judge read every broker's record.
func (r *Run) checkAudit() []string {
	var wrong []string
	for i, e := range r.final {
		if i > 0 && e.digest == r.final[0].digest && slices.EqualFunc(e.leaves, r.final[0].leaves, bytes.Equal) {
			continue // the same record
		}
		files := fstest.MapFS{}
		head, grown, err := audit.Grow(statement.LogHead{}, audit.FromFS(files), e.leaves)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", e.name, err))
			continue
		}
		for _, f := range grown {
			files[f.Path] = &fstest.MapFile{Data: f.Data}
		}
		signed, err := r.checkpoint(head, e.digest)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", e.name, err))
			continue
		}
		record := refold.Record{Source: audit.FromFS(files), Signed: signed, Pinned: r.world().Chain, Now: e.now}
		if _, err := refold.Verify(record, nil); err != nil {
			wrong = append(wrong, fmt.Sprintf("audit verify of %s: %v", e.name, err))
		}
	}
	return wrong
}

// checkpoint signs a head as the first broker would.
func (r *Run) checkpoint(head statement.LogHead, state statement.Hash) (audit.Signed, error) {
	key := r.world().Log
	text, err := audit.Sign(audit.Checkpoint{Deployment: r.world().Chain.Deployment(), LogHead: head, State: state}, key)
	if err != nil {
		return audit.Signed{}, err
	}
	public, err := statement.KeyOf(ssh.PublicKey(key.PublicKey()))
	if err != nil {
		return audit.Signed{}, err
	}
	return audit.Open(text, r.world().Chain.Deployment(), map[statement.BrokerName]statement.Key{"b1": public})
}

// Text is everything that was done, said and heard, for whoever has to find out why.
func (r *Run) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\noptions %+v\nfaults %v\n", r.Seed, r.options, r.faults)
	for _, c := range r.chapters {
		fmt.Fprintf(&b, "\nHISTORY %d\n%s", c.number, c.history.text())
	}
	fmt.Fprintln(&b, "\nJOURNAL")
	r.cluster.log.mu.Lock()
	defer r.cluster.log.mu.Unlock()
	b.Write(r.cluster.log.all.Bytes())
	return b.String()
}

// Tally is how much happened in some runs. The zero value is none.
type Tally struct {
	Operations, Looks, Starts, Events, Deaths, Restores int
	Faults                                              map[string]int // by name
}

// Add counts a run.
func (t *Tally) Add(r *Run) {
	for _, c := range r.chapters {
		t.Operations += len(c.history.ops)
		t.Looks += len(c.history.looks)
		t.Starts += len(c.starts)
		if len(c.final) > 0 {
			t.Events += len(c.final[0].leaves) - len(c.kept)
		}
	}
	t.Restores += len(r.chapters) - 1
	for _, b := range r.cluster.brokers {
		t.Deaths += b.killed
	}
	if t.Faults == nil {
		t.Faults = map[string]int{}
	}
	for name, n := range r.faults {
		t.Faults[name] += n
	}
}

// String says it in one line.
func (t Tally) String() string {
	struck := 0
	for _, n := range t.Faults {
		struck += n
	}
	return fmt.Sprintf("%d operations, %d looks, %d starts on hosts, %d events, %d deaths, %d restores, %d faults %v", t.Operations, t.Looks, t.Starts, t.Events, t.Deaths, t.Restores, struck, t.Faults)
}
