package broker

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func TestABrokerIsAddedThenVotesThenIsRemovedForEver(t *testing.T) {
	sc := grown(t)
	sc.stand(map[string]Standing{"b1": Listed, "b2": Listed, "b2/x": Listed, "b9/x": Unlisted})
	sc.must(sc.adds("dave", "b2", disk("x"), true))
	sc.stand(map[string]Standing{"b2/x": Watching, "b2/y": OtherDisk, "b2": OtherDisk})
	d, err := sc.file(sc.adds("dave", "b2", disk("x"), false))
	if err != nil {
		t.Fatal(err)
	}
	wantKinds(t, d.Events, "BrokerAdded")
	sc.stand(map[string]Standing{"b2/x": Voter})
	sc.must(sc.removes("dave", "b1", ""))
	sc.stand(map[string]Standing{"b1": Removed, "b1/x": Listed})
	if r, removed := sc.s.Removal("b1", ""); !removed || r.By != "dave" || r.At != sc.now || r.Index != sc.s.Index()-1 {
		t.Errorf("removal %+v", r)
	}
	sc.must(sc.adds("dave", "b1", disk("b1 again"), false))
	sc.must(sc.removes("dave", "b2", disk("x")))
	sc.stand(map[string]Standing{"b1": Removed, "b1/b1 again": Voter, "b2/x": Removed, "b2/y": Listed})
	if m := sc.s.Members(); len(m) != 1 || m[0].Name != "b1" || m[0].Disk != disk("b1 again") || m[0].By != "dave" {
		t.Errorf("members %+v", m)
	}
}

// THREATS raft: a removed or wiped broker returns; an operator who is not one any more; a disk used before.
func TestTheClusterIsNotChangedBy(t *testing.T) {
	cases := map[string]struct {
		kind Kind
		make func(sc *scene) statement.Proof
		hint string
	}{
		"an approver":                     {Denied, func(sc *scene) statement.Proof { return sc.adds("bob", "b2", disk("x"), false) }, "operator"},
		"a nobody who removes":            {Denied, func(sc *scene) statement.Proof { return sc.removes("mallory", "b1", "") }, "operator"},
		"an auditor who raises the rules": {Denied, func(sc *scene) statement.Proof { return sc.raises("frank", 3) }, "operator"},
		"an operator who is not one any more": {Denied, func(sc *scene) statement.Proof {
			p := sc.adds("dave", "b2", disk("x"), false)
			sc.must(sc.revises(func(doc *policy.Document) { doc.Operators = []statement.Person{"gwen"} }))
			return p
		}, "operator"},
		"an add of a broker nobody listed": {Missing, func(sc *scene) statement.Proof { return sc.adds("dave", "b9", disk("x"), false) }, "policy sign"},
		"an add of a broker dropped since": {Missing, func(sc *scene) statement.Proof {
			sc.must(sc.revises(listing(sc.t, "b1", "b2")))
			return sc.adds("dave", "b3", disk("x"), false)
		}, "policy sign"},
		"a second disk for a founding broker": {Conflict, func(sc *scene) statement.Proof { return sc.adds("dave", "b1", disk("x"), false) }, "cluster remove b1"},
		"a second disk for a member": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			return sc.adds("dave", "b2", disk("y"), false)
		}, "cluster remove b2"},
		"one disk under two names": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			return sc.adds("dave", "b3", disk("x"), false)
		}, "join"},
		"a disk that was removed": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			sc.must(sc.removes("dave", "b2", disk("x")))
			return sc.adds("dave", "b2", disk("x"), false)
		}, "join"},
		"a disk that was removed, under another name": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			sc.must(sc.removes("dave", "b2", disk("x")))
			return sc.adds("dave", "b3", disk("x"), true)
		}, "join"},
		"a vote taken without removal": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			return sc.adds("dave", "b2", disk("x"), true)
		}, "cluster remove b2"},
		"a removal of the last vote": {Conflict, func(sc *scene) statement.Proof { return sc.removes("dave", "b1", "") }, "add"},
		"a removal that leaves a watcher": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), true))
			return sc.removes("dave", "b1", "")
		}, "add"},
		"a removal of no member":     {Missing, func(sc *scene) statement.Proof { return sc.removes("dave", "b2", "") }, "status"},
		"a removal of nobody's disk": {Missing, func(sc *scene) statement.Proof { return sc.removes("dave", "b2", disk("x")) }, "status"},
		"a removal of a disk it has not": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			return sc.removes("dave", "b2", disk("y"))
		}, "status"},
		"a removal by the name it was founded with": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			return sc.removes("dave", "b2", "")
		}, "status"},
		"a second removal": {Conflict, func(sc *scene) statement.Proof {
			sc.must(sc.adds("dave", "b2", disk("x"), false))
			sc.must(sc.removes("dave", "b1", ""))
			return sc.removes("dave", "b1", "")
		}, "status"},
		"rules that are in force": {Conflict, func(sc *scene) statement.Proof { return sc.raises("dave", 2) }, "status"},
		"rules far ahead":         {Invalid, func(sc *scene) statement.Proof { return sc.raises("dave", 4) }, "rules 3"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := grown(t)
			p := c.make(sc)
			before := sc.s.cluster
			refusal := sc.refused(c.kind, p)
			if !strings.Contains(refusal.Hint, c.hint) {
				t.Errorf("hint %q, want %q in it", refusal.Hint, c.hint)
			}
			wantKinds(t, sc.log[len(sc.log)-1:], "StatementRefused")
			if hashOf(sc.s.cluster) != hashOf(before) {
				t.Errorf("the cluster changed: %+v", sc.s.cluster)
			}
		})
	}
}

// THREATS raft, an owned leader: replayed and withheld cluster statements do what they did, or nothing.
func TestAReplayedClusterStatementChangesNothing(t *testing.T) {
	sc := grown(t)
	added := sc.adds("dave", "b2", disk("x"), false)
	first := sc.must(added)
	removed := sc.removes("dave", "b2", disk("x"))
	sc.must(removed)
	sc.must(sc.adds("dave", "b2", disk("y"), false))
	for name, p := range map[string]statement.Proof{"the add": added, "the removal": removed} {
		d, err := sc.file(p)
		if err != nil || len(d.Events) != 0 {
			t.Errorf("%s again: %v, %v", name, kinds(d.Events), err)
		}
	}
	if again, _ := sc.file(added); again.Outcome != first {
		t.Errorf("outcome %v, first %v", again.Outcome, first)
	}
	withheld := sc.removes("dave", "b2", disk("x")) // kept back while b2 came with another disk
	sc.refused(Conflict, withheld)
	sc.now += 61
	for _, p := range []statement.Proof{sc.sign(statement.Cluster{Head: sc.stale(), Action: statement.Remove, Broker: "b2", Disk: disk("y")}, key("dave"))} {
		if d, err := sc.file(p); KindOf(err) != Expired || len(d.Events) != 0 {
			t.Errorf("a stale one: %v %v", kinds(d.Events), err)
		}
	}
	sc.stand(map[string]Standing{"b2/y": Voter, "b2/x": Removed})
}

// stale is dave's head of a cluster statement made more than a minute ago.
func (sc *scene) stale() statement.Head {
	h := sc.head(statement.KindCluster, "dave")
	h.Created, h.NotAfter = sc.now.Add(-61), sc.now.Add(300)
	return h
}

func TestAddingAMemberAgainIsOneAdd(t *testing.T) {
	sc := grown(t)
	first := sc.must(sc.adds("dave", "b2", disk("x"), false))
	d, err := sc.file(sc.adds("dave", "b2", disk("x"), false))
	if err != nil || len(d.Events) != 0 || d.Outcome != first {
		t.Errorf("%v %v %v", kinds(d.Events), d.Outcome, err)
	}
}

// An expired or forked policy stops granting; a cluster that needs a broker to adopt the next one can still be mended.
func TestTheClusterIsMendedUnderAnExpiredOrForkedPolicy(t *testing.T) {
	sc := grown(t)
	one := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7200 }))
	two := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 3000 }))
	sc.must(one)
	sc.refused(Conflict, two)
	sc.must(sc.adds("dave", "b2", disk("x"), false))
	sc.now = dawn.Add(91 * statement.Day)
	sc.refused(Denied, sc.asks("alice", "web-deploy", "web1"))
	sc.must(sc.adds("dave", "b3", disk("y"), true))
	sc.must(sc.removes("dave", "b2", disk("x")))
}

func TestAPolicyThatDropsABrokerRemovesItForEver(t *testing.T) {
	sc := grown(t)
	sc.must(sc.adds("dave", "b2", disk("x"), false))
	sc.must(sc.adds("dave", "b3", disk("y"), true))
	sc.must(sc.revises(listing(t, "b2", "b4")))
	sc.stand(map[string]Standing{"b1": Removed, "b3/y": Removed, "b2/x": Voter, "b4": Listed})
	sc.must(sc.revises(listing(t, "b1", "b2", "b3", "b4")))
	sc.stand(map[string]Standing{"b1": Removed, "b1/z": Listed, "b3/y": Removed, "b3/z": Listed, "b2/x": Voter, "b4": Listed})
	if r, _ := sc.s.Removal("b3", disk("y")); r.By != "" || r.Index == 0 {
		t.Errorf("removal %+v", r)
	}
	before := sc.s.Index()
	if err := sc.refused(Denied, sc.revises(listing(t, "b1", "b3", "b4"))); !strings.Contains(err.Msg, "[b2]") || sc.s.Index() != before {
		t.Errorf("a policy without a voter: %v", err)
	}
}

// A deployment that begins under rules 2 knows exactly who founded it: one broker can become three at once.
func TestWhoFoundedTheClusterIsKnownFromTheFirstEvent(t *testing.T) {
	for name, c := range map[string]struct {
		founding uint64
		listed   [][]statement.BrokerName // by the revisions after the first
		added    statement.BrokerName
		founded  statement.BrokerName
	}{
		"founded on one revision, listed at once":   {1, [][]statement.BrokerName{{"b1", "b2"}}, "b2", "b1"},
		"founded on two revisions":                  {2, [][]statement.BrokerName{{"b1", "b2"}, {"b1", "b2", "b3"}}, "b3", "b2"},
		"founded on a revision that dropped one":    {2, [][]statement.BrokerName{{"b2", "b3"}, {"b1", "b2", "b3"}}, "b1", "b2"},
		"founded on a revision that listed it anew": {3, [][]statement.BrokerName{{"b2"}, {"b1", "b2"}, {"b1", "b2", "b4"}}, "b4", "b1"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{t: t, s: NewState(), now: dawn}
			first := sc.command(signPolicy(t, labPolicy(t), "dave"))
			first.Rules, first.Founding = 2, c.founding
			if _, err := sc.apply(first); err != nil {
				t.Fatal(err)
			}
			for _, names := range c.listed {
				sc.must(sc.revises(listing(t, names...)))
			}
			sc.refused(Conflict, sc.adds("dave", c.founded, disk("x"), false))
			sc.must(sc.adds("dave", c.added, disk("x"), false))
			if err := refoldingAgrees(&walk{scene: sc, refold: NewState()}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Founding brokers are those of the newest revision of the founding chain, which the state cannot tell from policies that
// follow at once: until one is removed it counts as a founding one.
func TestTheFoundingChainMayListAndDrop(t *testing.T) {
	sc := &scene{t: t, s: NewState(), now: dawn}
	begin := func(p statement.Proof) {
		t.Helper()
		c := sc.command(p)
		if sc.s.Index() == 0 {
			c.Rules = Rules
		}
		if _, err := sc.apply(c); err != nil {
			t.Fatal(err)
		}
	}
	begin(signPolicy(t, labPolicy(t), "dave"))
	begin(sc.revises(listing(t, "b1", "b2", "b3")))
	begin(sc.revises(listing(t, "b1", "b2")))
	begin(sc.revises(listing(t, "b1", "b2", "b3")))
	sc.must(sc.enrolment("db1", "db"))
	sc.stand(map[string]Standing{"b1": Listed, "b2": Listed, "b3": Listed})
	sc.must(sc.revises(listing(t, "b1", "b2", "b3", "b4")))
	sc.refused(Conflict, sc.adds("dave", "b3", disk("x"), false))
	sc.must(sc.adds("dave", "b4", disk("x"), false))
	sc.must(sc.removes("dave", "b3", ""))
	sc.must(sc.adds("dave", "b3", disk("y"), false))
	sc.stand(map[string]Standing{"b3": Removed, "b3/y": Voter, "b4/x": Voter})
}

func TestASnapshotOfAClusterThatWasTouchedIsRefused(t *testing.T) {
	sc := grown(t)
	sc.must(sc.adds("dave", "b2", disk("x"), false))
	sc.must(sc.adds("dave", "b3", disk("y"), false))
	sc.must(sc.removes("dave", "b2", disk("x")))
	sc.must(sc.removes("dave", "b1", ""))
	sc.must(sc.adds("dave", "b2", disk("z"), false))
	data, err := EncodeState(sc.s)
	if err != nil {
		t.Fatal(err)
	}
	restored, err := DecodeState(data)
	if err != nil || restored.Digest() != sc.s.Digest() || !slices.Equal(restored.Members(), sc.s.Members()) {
		t.Fatalf("a snapshot leads elsewhere: %v", err)
	}
	names := string(data[bytes.Index(data, []byte(`"members":[`)):])
	second := names[strings.Index(names, `},{`)+2 : strings.Index(names, `]`)]
	cases := map[string][2]string{
		"rules of a later build":     {`"rules":2`, `"rules":4`},
		"rules written though 1":     {`"rules":2`, `"rules":1`},
		"members without the rules":  {`"rules":2,`, ``},
		"founders without the rules": {`"cluster":{"rules":2,`, `"cluster":{"founding":1,`},
		"members out of order":       {names[:strings.Index(names, `]`)], `"members":[` + second + `,` + names[len(`"members":[`):strings.Index(names, `},{`)+1]},
		"a member twice":             {second, second + `,` + second},
		"an odd disk":                {string(disk("z")), "../../../../../../../../../etc/abc"},
		"an unknown member":          {`"cluster":{`, `"cluster":{"x":1,`},
	}
	for name, c := range cases {
		touched := bytes.Replace(data, []byte(c[0]), []byte(c[1]), 1)
		if bytes.Equal(touched, data) {
			t.Errorf("%s: nothing to touch", name)
		}
		if _, err := DecodeState(touched); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := DecodeState(bytes.Replace(data, []byte(`"rules":2`), []byte(`"rules":4`), 1)); !MustStop(err) {
		t.Errorf("rules of a later build do not stop the broker: %v", err)
	}
	plain, err := EncodeState(newScene(t).s)
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{`,"cluster":{}}`, `,"cluster":{"members":[]}}`, `,"cluster":{"removed":[]}}`, `,"cluster":null}`} {
		if _, err := DecodeState(append(bytes.Clone(plain[:len(plain)-1]), odd...)); err == nil {
			t.Errorf("%s: accepted", odd)
		}
	}
}
