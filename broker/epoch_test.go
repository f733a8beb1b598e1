package broker

import (
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// restore is an operator's word that the deployment goes on from the log as it is.
func (sc *scene) restore(person statement.Person) statement.Restore {
	h := sc.head(statement.KindRestore, person)
	h.NotAfter = h.Created.Add(statement.Day)
	return statement.Restore{Head: h, Epoch: sc.s.Epoch().Number + 1, Size: sc.s.Index(), Root: statement.HashOf([]byte("root")), Why: "all disks burnt"}
}

func (sc *scene) restores(person statement.Person, bend func(*statement.Restore)) statement.Proof {
	sc.t.Helper()
	r := sc.restore(person)
	if bend != nil {
		bend(&r)
	}
	return sc.sign(r, key(string(person)))
}

// copied is the scene as a backup of this moment has it; what the scene does later, it knows nothing of.
func (sc *scene) copied() *scene {
	sc.t.Helper()
	again := &scene{t: sc.t, s: NewState(), now: sc.now, nonces: sc.nonces + 1<<20, log: slices.Clone(sc.log)}
	for _, e := range sc.log {
		Evolve(again.s, e)
	}
	again.chain = again.s.Chain()
	return again
}

func TestARestoreEndsEverythingThatWasOpen(t *testing.T) {
	sc := newScene(t)
	live := sc.granted()
	waiting := sc.request("alice", "web-deploy", "web1")
	waiting.At = sc.now + 3600
	later := sc.sign(waiting, key("alice"))
	sc.must(later)
	pending := sc.asks("alice", "root", "db1")
	sc.must(pending)
	returned := sc.asks("erin", "web-deploy", "web1")
	sc.must(returned)
	sc.must(sc.ends("erin", statement.Return, returned))
	sc.now += 30
	d, err := sc.file(sc.restores("dave", nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(d.Events); got[0] != "EpochBegun" || len(got) != 4 {
		t.Fatalf("events %v", got)
	}
	for what, want := range map[string]struct {
		proof statement.Proof
		is    string
	}{
		"a live grant":      {live, "revoked"},
		"a scheduled grant": {later, "revoked"},
		"a pending request": {pending, "expired"},
		"a returned grant":  {returned, "returned"},
	} {
		r := sc.find(want.proof)
		is := string(r.StateAt(sc.now))
		if r.Grant != nil {
			is = string(r.Grant.Phase(sc.now))
		}
		if is != want.is {
			t.Errorf("%s is %s, want %s", what, is, want.is)
		}
	}
	if e := sc.s.Epoch(); e.Number != 1 || e.Begun != sc.now || e.Person != "dave" || e.Index != d.Events[0].Head().Index || sc.s.Rules() != 2 {
		t.Errorf("epoch %+v under rules %d", e, sc.s.Rules())
	}
	sc.must(sc.ends("erin", statement.Return, func() statement.Proof { // and life goes on
		sc.now++
		asked := sc.asks("erin", "web-deploy", "web1")
		sc.must(asked)
		return asked
	}()))
}

func TestARestoreIsRefusedAnywhereButWhereItBelongs(t *testing.T) {
	sc := grown(t)
	sc.granted()
	for why, try := range map[string]struct {
		kind Kind
		by   statement.Person
		bend func(*statement.Restore)
		late statement.Seconds // after the signature
	}{
		"by mallory":                     {Denied, "mallory", nil, 0},
		"by an auditor":                  {Denied, "frank", nil, 0},
		"in dave's name, by bob's key":   {Denied, "bob", func(r *statement.Restore) { r.Person = "dave" }, 0},
		"of another deployment":          {Denied, "dave", func(r *statement.Restore) { r.Deployment = statement.HashOf([]byte("other")) }, 0},
		"of a shorter log":               {Conflict, "dave", func(r *statement.Restore) { r.Size-- }, 0},
		"of a longer log":                {Conflict, "dave", func(r *statement.Restore) { r.Size++ }, 0},
		"signed in the future":           {Denied, "dave", func(r *statement.Restore) { r.Created, r.NotAfter = r.Created+61, r.NotAfter+61 }, 0},
		"used a day later":               {Expired, "dave", nil, statement.Day + 1},
		"of a policy nobody here knows":  {Unavailable, "dave", func(r *statement.Restore) { r.Policy.Revision += 5 }, 0},
		"of another policy of that name": {Denied, "dave", func(r *statement.Restore) { r.Policy.Hash = statement.HashOf([]byte("other")) }, 0},
	} {
		r := sc.restore(try.by)
		if try.bend != nil {
			try.bend(&r)
		}
		proof := sc.sign(r, key(string(try.by)))
		c, err := CommandFor(proof, sc.now.Add(try.late))
		if err != nil {
			t.Fatal(err)
		}
		d, err := Decide(sc.s, c.Under(sc.s))
		if KindOf(err) != try.kind || len(d.Events) > 0 {
			t.Errorf("%s: %v (%s), %d events, want %s", why, err, KindOf(err), len(d.Events), try.kind)
		}
	}
	good := sc.command(sc.restores("dave", nil))
	for _, rules := range []int{1, 3} {
		bent := good
		bent.Rules = rules
		if d, err := Decide(sc.s, bent); err == nil || len(d.Events) > 0 {
			t.Errorf("under rules %d: %d events", rules, len(d.Events))
		}
	}
	for _, kind := range []CommandKind{FileRequest, EndAccess, ChangeCluster, RaiseRules} {
		bent := good
		bent.Kind = kind
		if d, err := Decide(sc.s, bent.Under(sc.s)); KindOf(err) != Invalid || len(d.Events) > 0 {
			t.Errorf("as a %s command: %v, %d events", kind, err, len(d.Events))
		}
	}
}

// TestARestoreIsUsedOnce: the statement lies about in files.
func TestARestoreIsUsedOnce(t *testing.T) {
	sc := newScene(t)
	restored := sc.restores("dave", nil)
	first := sc.must(restored)
	sc.now += 10
	before := sc.s.Index()
	if again := sc.must(restored); again != first || sc.s.Index() != before {
		t.Errorf("%+v again became %+v, %d events", first, again, sc.s.Index()-before)
	}
	sc.must(sc.asks("alice", "db-admin", "db1"))
	sc.now = sc.now.Add(Keep + 120)
	sc.must(sc.asks("erin", "db-admin", "db1")) // and the first outcome is forgotten
	if _, err := sc.file(restored); KindOf(err) != Conflict {
		t.Errorf("much later: %v", err)
	}
	if _, err := sc.file(sc.restores("dave", func(r *statement.Restore) { r.Epoch = 1 })); KindOf(err) != Conflict {
		t.Errorf("another of the same epoch: %v", err)
	}
	sc.must(sc.restores("dave", func(r *statement.Restore) { r.Epoch = 7 })) // hosts may have heard of epochs that the backup has not
	if sc.s.Epoch().Number != 7 {
		t.Errorf("epoch %d", sc.s.Epoch().Number)
	}
}

// TestTimeBeginsAgainAtTheOperatorsClock: an owned or broken leader stamped a year ahead, and everybody was locked out.
func TestTimeBeginsAgainAtTheOperatorsClock(t *testing.T) {
	sc := newScene(t)
	right := sc.now
	sc.now += 365 * statement.Time(statement.Day)
	sc.must(sc.reports("db1", 1))
	ahead := sc.s.Now()
	sc.now = right + 120
	sc.refused(Expired, sc.asks("alice", "db-admin", "db1"))
	sc.must(sc.restores("dave", nil))
	if sc.s.Now() != sc.now || ahead < sc.now+1000 {
		t.Errorf("it is %s, the operator said %s", sc.s.Now(), sc.now)
	}
	sc.now += 3
	sc.granted()
}

// TestWhatWasSignedBeforeARestoreIsVoid: alice's grant was revoked after the backup was made. Every statement that proved it
// still exists, the revocation is lost.
func TestWhatWasSignedBeforeARestoreIsVoid(t *testing.T) {
	sc := newScene(t)
	asked := sc.asks("alice", "db-admin", "db1")
	sc.must(asked)
	backup := sc.copied()
	yes := sc.approves("bob", asked)
	sc.must(yes)
	dossier := sc.find(asked).Dossier
	sc.must(sc.ends("carol", statement.Revoke, asked))
	host := Host{Name: "db1", Labels: map[string]string{"tier": "db"}}
	if _, err := Judge(sc.chain, dossier, host, sc.now); err != nil {
		t.Fatalf("a host that was told nothing: %v", err)
	}

	backup.now = sc.now + 20
	backup.must(backup.restores("dave", nil))
	begun := backup.now
	host.Since = backup.s.Epoch().Begun
	for at := begun; at < begun+1800; at += 300 {
		if _, err := Judge(backup.chain, dossier, host, at); KindOf(err) != Denied || !strings.Contains(err.Error(), "before the cluster was restored") {
			t.Errorf("at %s: %v", at, err)
		}
	}
	backup.now += 5
	if _, err := backup.file(yes); err == nil {
		t.Error("bob's old yes was taken again")
	}
	before := backup.s.Index()
	backup.must(asked) // its first answer, and nothing new
	if r := backup.find(asked); r.State != StateExpired || backup.s.Index() != before {
		t.Errorf("alice's old request is %s", r.State)
	}
	fresh := sc.request("alice", "db-admin", "db1") // signed before, never filed: kept back
	fresh.Created, fresh.Nonce = begun-1, strings.Repeat("7", 32)
	backup.refused(Denied, sc.sign(fresh, key("alice")))
	again := backup.asks("alice", "db-admin", "db1")
	backup.must(again)
	backup.must(backup.approves("bob", again))
	if g, err := Judge(backup.chain, backup.find(again).Dossier, host, backup.now); err != nil || g.Asked <= begun {
		t.Errorf("what is asked afterwards: %v", err)
	}
}

// TestAnEpochIsFoundedByWhoThePolicyLists: disks that operators added or removed in the old cluster stay out.
func TestAnEpochIsFoundedByWhoThePolicyLists(t *testing.T) {
	sc := grown(t)
	sc.must(sc.adds("dave", "b2", disk("b2"), false))
	sc.must(sc.removes("dave", "b1", ""))
	sc.must(sc.adds("dave", "b1", disk("b1 again"), true))
	sc.must(sc.restores("dave", nil))
	sc.stand(map[string]Standing{
		"b1": Listed, "b2": Listed, "b3": Listed, "b1/b1 again": Removed, "b2/b2": Removed,
	})
	sc.now += 2
	for name, again := range map[statement.BrokerName]statement.Disk{"b1": disk("b1 again"), "b2": disk("b2"), "b3": disk("b3")} {
		sc.refused(Conflict, sc.adds("dave", name, again, false))
	}
	sc.must(sc.removes("dave", "b3", ""))
	sc.must(sc.adds("dave", "b3", disk("b3"), false))
	sc.must(sc.revises(listing(t, "b1", "b2", "b3", "b4", "b5")))
	sc.must(sc.adds("dave", "b5", disk("b5"), false)) // listed after the restore: no founder of it
	sc.stand(map[string]Standing{"b3": Removed, "b3/b3": Voter, "b4": Listed, "b5/b5": Voter})
}

// TestReportsOfEpochsWaitForRules2: an older broker does not know the word, and two builds must decide alike.
func TestReportsOfEpochsWaitForRules2(t *testing.T) {
	report := func(sc *scene) statement.Proof {
		h := sc.head(statement.KindReport, "")
		h.Host = "db1"
		return sc.sign(statement.Report{Head: h, Sequence: 1, What: statement.SessionRefused, Service: "sudo", At: sc.now, Epoch: 1}, key("db1 identity"))
	}
	old := newScene(t)
	if d, err := old.file(report(old)); KindOf(err) != Invalid || len(d.Events) > 0 {
		t.Errorf("under rules 1: %v, %d events", err, len(d.Events))
	}
	sc := grown(t)
	sc.must(report(sc))
}

func TestWhichRestoreFollowsWhich(t *testing.T) {
	at := func(epoch uint64, created statement.Time) statement.Restore {
		return statement.Restore{Epoch: epoch, Head: statement.Head{Created: created}}
	}
	for why, try := range map[string]struct {
		newer, older statement.Restore
		follows      bool
	}{
		"a higher epoch":                   {at(2, 100), at(1, 100), true},
		"a higher epoch, signed earlier":   {at(2, 50), at(1, 100), true},
		"the same again":                   {at(1, 100), at(1, 100), false},
		"an old one shown again":           {at(1, 100), at(2, 90), false},
		"two operators numbered alike":     {at(1, 101), at(1, 100), true},
		"and the first of the two again":   {at(1, 100), at(1, 101), false},
		"the first that was ever heard of": {at(1, 100), statement.Restore{}, true},
	} {
		if Follows(try.newer, try.older) != try.follows {
			t.Errorf("%s: %v", why, !try.follows)
		}
	}
}

func TestARestoreIsCheckedAsHostsCheckIt(t *testing.T) {
	sc := newScene(t)
	if r, err := CheckRestore(sc.chain, sc.restores("dave", nil)); err != nil || r.Restored().Size != sc.s.Index() {
		t.Errorf("%+v, %v", r, err)
	}
	gone := sc.restores("dave", nil)
	sc.must(sc.revises(func(doc *policy.Document) { doc.Operators = []statement.Person{"carol"} }))
	for why, proof := range map[string]statement.Proof{
		"an operator no longer": gone, "mallory": sc.restores("mallory", nil), "another kind": sc.asks("alice", "db-admin", "db1"),
	} {
		if r, err := CheckRestore(sc.chain, proof); err == nil {
			t.Errorf("%s: %+v", why, r)
		}
	}
}
