package broker

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"pim-ssh/broker/statement"
)

// modelCluster is who replicates the record, told again in plain strings: an identity is a name, or name/disk.
type modelCluster struct {
	rules   int
	listed  []string
	stands  map[string]bool   // identities in the cluster: does it vote
	gone    map[string]bool   // identities
	holders map[string]string // disks ever added, and whose they were
}

func (c *modelCluster) standing(name string) (identity string, votes, stands bool) {
	for identity, votes := range c.stands {
		if identity == name || len(identity) > len(name) && identity[:len(name)+1] == name+"/" {
			return identity, votes, true
		}
	}
	return "", false, false
}

// voters counts the listed brokers that vote, one identity left out.
func (c *modelCluster) voters(but string, listed []string) int {
	n := 0
	for _, name := range listed {
		if identity, votes, stands := c.standing(name); stands && votes && identity != but {
			n++
		}
	}
	return n
}

func (c *modelCluster) add(name, disk string, votes bool) (taken, changed bool) {
	identity, voted, stands := c.standing(name)
	holder, used := c.holders[disk]
	switch {
	case !slices.Contains(c.listed, name), c.gone[name+"/"+disk], used && holder != name, stands && identity != name+"/"+disk, voted && !votes:
		return false, false
	case stands && voted == votes:
		return true, false
	}
	c.stands[name+"/"+disk], c.holders[disk] = votes, name
	return true, true
}

func (c *modelCluster) remove(identity, name string) bool {
	now, _, stands := c.standing(name)
	if !stands || now != identity || c.stands[identity] && c.voters(identity, c.listed) == 0 {
		return false
	}
	delete(c.stands, identity)
	c.gone[identity] = true
	return true
}

// list adopts a policy that lists these brokers; under rules 2 what it drops is gone.
func (c *modelCluster) list(names []string) bool {
	if c.rules > 1 && c.voters("", c.listed) > 0 && c.voters("", names) == 0 {
		return false
	}
	for _, name := range c.listed {
		if identity, _, stands := c.standing(name); c.rules > 1 && stands && !slices.Contains(names, name) {
			delete(c.stands, identity)
			c.gone[identity] = true
		}
	}
	c.listed = names
	return true
}

// noon is morning, and then what rules 2 begin with: a policy that lists four brokers, and the raise.
var noon = sync.OnceValue(func() []Event {
	return grown(panicker{}).log
})

var walkDisks = []string{"x", "y", "z"}

// cluster has somebody, mostly dave, change who replicates the record.
func (w *walk) cluster(*rapid.T) {
	if !w.sometimes("cluster changes") {
		return
	}
	c := w.scene.change("dave", pick(w, "action", statement.Add, statement.Add, statement.Remove, statement.Raise))
	if w.odd("operator") {
		c.Person = pick[statement.Person](w, "operator", "mallory", "bob")
	}
	signer, authentic := w.common(&c.Head)
	name := pick(w, "broker", "b1", "b2", "b3", "b4", "b9")
	d := pick(w, "disk", walkDisks...)
	identity := name + "/" + d
	switch c.Action {
	case statement.Add:
		c.Broker, c.Disk, c.Watching = statement.BrokerName(name), disk(d), pick(w, "watching", false, false, true)
	case statement.Remove:
		c.Broker, c.Disk = statement.BrokerName(name), disk(d)
		if now, _, stands := w.m.cluster.standing(name); stands && !w.odd("disk") {
			c.Disk, identity = "", now
			if now != name {
				c.Disk = disk(now[len(name)+1:])
			}
		}
	default:
		c.Rules = pick(w, "rules", 2, 2, 3, 4)
	}
	p := w.sign(c, key(signer))
	w.changes(c, p, authentic, func() (bool, bool) {
		switch {
		case c.Person != "dave":
			return false, false
		case c.Action == statement.Add:
			return w.m.cluster.add(name, d, !c.Watching)
		case c.Action == statement.Remove:
			taken := w.m.cluster.remove(identity, name)
			return taken, taken
		default:
			taken := c.Rules == w.m.cluster.rules+1 && c.Rules <= Rules
			if taken {
				w.m.cluster.rules = c.Rules
			}
			return taken, taken
		}
	})
}

// changes files a cluster statement. Under rules 1 nothing but dave's raise is even heard, and a statement that changes
// nothing leaves nothing.
func (w *walk) changes(b statement.Cluster, p statement.Proof, authentic bool, take func() (taken, changed bool)) {
	raise := b.Action == statement.Raise && b.Rules == w.m.cluster.rules+1 && b.Rules <= Rules && b.Person == "dave"
	deaf := w.m.cluster.rules == 1 && !raise
	kind := ChangeCluster
	if b.Action == statement.Raise {
		kind = RaiseRules
	}
	before := w.m.now
	at := w.now.Add(pick[statement.Seconds](w, "leader's clock", 0, 0, 0, -30, 5))
	want, changed := false, false
	if !deaf {
		_, heard := w.m.hear(w.n, int64(b.Created), int64(at), authentic)
		if heard {
			want, changed = take()
		}
		if heard && want && !changed || heard && raise && !want {
			w.m.now = before
			delete(w.m.recorded, w.n)
		}
	}
	w.sent = append(w.sent, sent{w.n, p})
	d, err := w.apply(Command{V: CommandVersion, At: at, Kind: kind, Proof: p}.Under(w.s))
	if (err == nil) != want || want && changed != (len(d.Events) == 1) {
		w.rt.Fatalf("the model says %v, the core %v and %v", want, err, kinds(d.Events))
	}
	w.step(d)
}

// list has the steward sign a policy that lists other brokers.
func (w *walk) list(*rapid.T) {
	if !w.sometimes("brokers listed") {
		return
	}
	names := pick(w, "brokers", []string{"b1", "b2", "b3", "b4"}, []string{"b1", "b2", "b3"}, []string{"b2", "b3"}, []string{"b1", "b4"})
	var list []statement.BrokerName
	for _, name := range names {
		list = append(list, statement.BrokerName(name))
	}
	p := w.revises(listing(w.t, list...))
	d, err := w.file(p)
	if taken := w.m.cluster.list(names); taken != (err == nil) {
		w.rt.Fatalf("brokers %v: the model says %v, the core %v", names, taken, err)
	}
	if err == nil {
		w.m.adopt(w.m.policies[len(w.m.policies)-1], int64(w.now))
	}
	w.step(d)
}

// theModelAgreesOnTheCluster: who stands, who votes, what is gone; and what is gone stays gone.
func theModelAgreesOnTheCluster(w *walk) error {
	c := w.m.cluster
	if w.s.Rules() != c.rules {
		return fmt.Errorf("rules %d, the model says %d", w.s.Rules(), c.rules)
	}
	for _, name := range []string{"b1", "b2", "b3", "b4", "b9"} {
		for _, d := range append([]string{""}, walkDisks...) {
			identity, id := name, statement.Disk("")
			if d != "" {
				identity, id = name+"/"+d, disk(d)
			}
			votes, stands := c.stands[identity]
			got := w.s.Standing(statement.BrokerName(name), id)
			switch {
			case c.gone[identity] != (got == Removed):
			case d != "" && stands != (got == Voter || got == Watching):
			case d != "" && votes != (got == Voter):
			case d == "" && stands && got != Listed && slices.Contains(c.listed, name):
			default:
				continue
			}
			return fmt.Errorf("%s is %s, the model has it %+v", identity, got, c)
		}
	}
	return nil
}

func TestInEveryHistoryTheNaiveModelAgreesOnTheClusterAndWhatIsRemovedStaysSo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(rt)
		w.busy = true
		rt.Repeat(map[string]func(*rapid.T){
			"cluster": w.cluster, "cluster too": w.cluster, "cluster again": w.cluster, "list": w.list, "repeat": w.repeat, "wait": w.wait, "tick": w.sweep,
			"": func(rt *rapid.T) {
				if err := theModelAgreesOnTheCluster(w); err != nil {
					rt.Fatal(err)
				}
			},
		})
		if err := refoldingAgrees(w); err != nil {
			rt.Fatal(err)
		}
	})
}
