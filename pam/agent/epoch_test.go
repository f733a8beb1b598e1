package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// restored is dave's word that the brokers go on from a record of 200 events.
func restored(w *forger.World, bend func(*statement.Restore)) statement.Proof {
	body := statement.Restore{Head: w.Head(statement.KindRestore, "dave"), Epoch: 1, Size: 200, Root: recordOf(w.T, 200, never).head.Root, Why: "all disks burnt"}
	if bend != nil {
		bend(&body)
	}
	return w.Sign(body, body.Person)
}

func despite(body *statement.Restore) { body.Despite = "the newest backup is of 8 o'clock" }

// afterwards is alice's grant, asked and approved a moment after everything signed so far.
func afterwards(w *forger.World) broker.Dossier {
	d := broker.Dossier{Request: w.Ask("alice", "db-strict", "db1", 600, w.People["alice"], func(r *statement.Request) { r.Created += 2; r.NotAfter += 2 })}
	d.Decisions = []statement.Proof{w.Approve("bob", d.Request, func(d *statement.Decision) { d.Created += 2; d.NotAfter += 2 })}
	return d
}

// TestARestoreEndsEverySessionAtOnce: alice works under a grant when the host hears that the brokers were restored.
func TestARestoreEndsEverySessionAtOnce(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	m.enforce()
	b := newScripted(t, w, w.Identity)
	b.record = recordOf(t, 230, never)
	s := m.following(b)
	d := strict(w)
	beat := func(index uint64) {
		b.frame(api.Frame{Index: at(index), Beat: statement.TimeOf(m.clock.Wall()), Checkpoint: b.record.signed(t, w, w.Log)})
	}
	b.frame(api.Frame{Dossier: &d})
	beat(229)
	waitFor(t, "the grant open", func() bool { return strings.Contains(m.log.String(), "grant open") })
	sudo := newCaller(t, aliceUID, 0)
	if got := sudo.say(s.pam, sudoAccount("alice")); !got.Allow {
		t.Fatalf("%+v\n%s", got, m.log)
	}
	if got := sudo.say(s.pam, sudoOpen("alice", "postgres")); !got.Allow {
		t.Fatalf("%+v", got)
	}
	begun := time.Now()
	proof := restored(w, nil)
	b.frame(api.Frame{Restore: &proof})
	waitFor(t, "the session gone", sudo.dead)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	waitFor(t, "the whole list asked for", func() bool { return b.watches() == 2 })
	if b.asked[1] != "" {
		t.Errorf("it asked for %q", b.asked[1])
	}
	b.frame(api.Frame{Restore: &proof})
	b.frame(api.Frame{Dossier: &d}) // by an owned broker
	beat(231)
	again := afterwards(w)
	b.frame(api.Frame{Index: at(232), Dossier: &again})
	waitFor(t, "what was granted afterwards", func() bool { return newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")).Allow })
	m.wantStands(d.Stem(), false)
	if got, err := s.ledger.named(d.Stem()); err == nil {
		t.Errorf("the old grant is %+v", got)
	}
	waitFor(t, "a report of the new epoch", func() bool {
		return slices.ContainsFunc(b.reports(), func(r statement.Report) bool { return r.Epoch == 1 })
	})
}

// TestWhatWasAskedBeforeARestoreNeverOpens: the dossier never came to this host before the restore; the agent died since.
func TestWhatWasAskedBeforeARestoreNeverOpens(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	a := m.start()
	d := strict(w)
	if err := a.takeRestore(restored(w, nil)); !errors.Is(err, errAnew) {
		t.Fatal(err)
	}
	if err := a.takeDossier(d); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after a restart", "after another"} {
		a.settle(t.Context())
		m.wantStands(d.Stem(), false)
		if !strings.Contains(m.log.String(), "before the cluster was restored") {
			t.Errorf("%s: the journal does not say why\n%s", when, m.log)
		}
		_ = a.Close()
		a = m.start()
		if a.Host().Since == 0 || a.ledger.snapshot(0).epoch.Epoch != 1 {
			t.Fatalf("%s: forgotten", when)
		}
	}
	if err := a.takeDossier(afterwards(w)); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	if len(a.ledger.grants()) == 0 {
		t.Error("what was asked afterwards is not there")
	}
}

// TestWhichRestoresAHostTakes: whatever it refuses, it goes on to the next broker.
func TestWhichRestoresAHostTakes(t *testing.T) {
	w := forger.New(t, roles)
	other := forger.New(t, roles)
	first := restored(w, func(r *statement.Restore) { r.Epoch = 3 })
	resigned := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"carol"} })
	for sentence, c := range map[string]struct {
		known  *statement.Proof
		policy policy.Chain // a later one; zero: none
		shown  statement.Proof
		want   error
		epoch  uint64 // known afterwards
	}{
		"dave's":                            {nil, policy.Chain{}, restored(w, nil), errAnew, 1},
		"mallory's":                         {nil, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Person = "mallory" }), errOldEpoch, 0},
		"another deployment's":              {nil, policy.Chain{}, restored(other, nil), errOldEpoch, 0},
		"one signed in the future":          {nil, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Created += 120; r.NotAfter += 120 }), errOldEpoch, 0},
		"one under a policy not heard of":   {nil, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Policy.Revision = 9 }), errAnew, 0},
		"no restore at all":                 {nil, policy.Chain{}, strict(w).Request, errOldEpoch, 0},
		"the same again":                    {&first, policy.Chain{}, first, nil, 3},
		"an older epoch":                    {&first, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Epoch = 2; r.Created += 9; r.NotAfter += 9 }), errOldEpoch, 3},
		"a later epoch":                     {&first, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Epoch = 4 }), errAnew, 4},
		"another of the same number, later": {&first, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Epoch = 3; r.Created += 9; r.NotAfter += 9 }), errAnew, 3},
		"another of the same, earlier":      {&first, policy.Chain{}, restored(w, func(r *statement.Restore) { r.Epoch = 3; r.Created -= 9 }), errOldEpoch, 3},
		"an operator's of that time":        {nil, resigned, restored(w, nil), errAnew, 1},
		"a lower one, when the known operator was dismissed": {&first, resigned, signedBy(w, resigned, "carol", func(r *statement.Restore) { r.Epoch = 1; r.Created += 9; r.NotAfter += 9 }),
			errAnew, 1},
		"an older one, when the known operator was dismissed": {&first, resigned, restored(w, func(r *statement.Restore) { r.Epoch = 1; r.Created -= 9 }), nil, 3},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, w)
			a := m.start()
			if c.known != nil {
				if err := a.takeRestore(*c.known); !errors.Is(err, errAnew) {
					t.Fatal(err)
				}
			}
			if c.policy.Ref().Revision > 0 {
				if err := a.takePolicy(c.policy.Proofs()[1]); err != nil {
					t.Fatal(err)
				}
			}
			err := a.takeRestore(c.shown)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || a.ledger.snapshot(0).epoch.Epoch != c.epoch {
				t.Errorf("%v, epoch %d; want %v, %d", err, a.ledger.snapshot(0).epoch.Epoch, c.want, c.epoch)
			}
		})
	}
}

// signedBy is a restore under a later policy.
func signedBy(w *forger.World, chain policy.Chain, person statement.Person, bend func(*statement.Restore)) statement.Proof {
	return restored(w, func(r *statement.Restore) {
		r.Person, r.Policy = person, chain.Ref()
		bend(r)
	})
}

// TestABrokerOfTheOldEpochIsPassedOver: it shows its dossiers, its beats and its whole list, as it always did.
func TestABrokerOfTheOldEpochIsPassedOver(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	a := m.start()
	if err := a.takeRestore(restored(w, nil)); !errors.Is(err, errAnew) {
		t.Fatal(err)
	}
	d := afterwards(w)
	if err := a.takeDossier(d); err != nil {
		t.Fatal(err)
	}
	before := a.ledger.snapshot(0).heard
	stream := &listing{whole: true}
	stranger := strict(w)
	for what, frame := range map[string]api.Frame{
		"its beat":  {Index: at(1 << 30), Beat: statement.TimeOf(m.clock.Wall())},
		"a dossier": {Dossier: &stranger},
	} {
		if err := a.take(frame, stream); !errors.Is(err, errOldEpoch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := a.ledger.snapshot(0).heard; after != before {
		t.Error("its word counts as fresh")
	}
	if e := a.ledger.entries[d.Stem()]; e.ended != nil {
		t.Error("its list ended a grant of the new epoch")
	}
	if _, taken := a.ledger.entries[stranger.Stem()]; taken {
		t.Error("its dossier was taken")
	}
	if err := a.take(api.Frame{Ended: &api.EndedFrame{Request: d.Request.Hash(), How: broker.EndedByRevoke}}, stream); err != nil || a.ledger.entries[d.Stem()].ended == nil {
		t.Errorf("an end is an end, whoever says it: %v", err)
	}
	var after *uint64
	_ = a.leave(errOldEpoch, &after)
	if a.skip != 1 {
		t.Error("it stays with that broker")
	}
}

// TestARestoredRecordIsHeldToWhatThisHostHasSeen: the host saw 300 events of b1, and the backup has 200.
func TestARestoredRecordIsHeldToWhatThisHostHasSeen(t *testing.T) {
	w := forger.New(t, roles)
	short := recordOf(t, 230, 210)   // goes on from the backup, in another way
	long := recordOf(t, 700, 210)    // and has outgrown what was seen
	whole := recordOf(t, 330, never) // the backup held all
	other := recordOf(t, 230, 100)   // does not go on from the backup at all
	all := func(r *statement.Restore) { r.Size, r.Root = 300, recordOf(t, 300, never).head.Root }
	for sentence, c := range map[string]struct {
		bend func(*statement.Restore)
		from shown
		want error
	}{
		"an older head, nobody says why":                       {nil, short, audit.ErrShrunk},
		"an older head that has grown since":                   {nil, long, audit.ErrForked},
		"an older head, and dave says why":                     {despite, short, nil},
		"an older head that has grown, and dave says why":      {despite, long, nil},
		"a head that holds all that was seen":                  {all, whole, nil},
		"another record than the one dave signed":              {despite, other, audit.ErrForked},
		"fewer events than dave signed":                        {despite, recordOf(t, 150, never), audit.ErrShrunk},
		"what was seen, but not what dave signed":              {func(r *statement.Restore) { r.Size, r.Root = 310, recordOf(t, 310, 305).head.Root }, whole, audit.ErrForked},
		"a backup of the same length, in which one is another": {func(r *statement.Restore) { r.Size, r.Root = 300, recordOf(t, 300, 5).head.Root }, recordOf(t, 330, 5), audit.ErrForked},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := newMachine(t, w)
			a := m.start()
			first := recordOf(t, 300, never)
			if err := a.takeHead(first.signed(t, w, w.Log), first.source()); err != nil {
				t.Fatal(err)
			}
			if err := a.takeRestore(restored(w, c.bend)); !errors.Is(err, errAnew) {
				t.Fatal(err)
			}
			err := a.takeHead(c.from.signed(t, w, w.Log), c.from.source())
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if loud := strings.Contains(m.log.String(), "A BROKER'S RECORD CONTRADICTS"); loud != (c.want != nil) {
				t.Errorf("loud: %v\n%s", loud, m.log)
			}
			if err := a.takeHead("", nil); err == nil {
				t.Error("no checkpoint at all is taken for a fresh word")
			}
		})
	}
}

// TestAHeadThatARestoreLeavesOutIsKeptAside: nothing that was seen is deleted.
func TestAHeadThatARestoreLeavesOutIsKeptAside(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	a := m.start()
	first := recordOf(t, 300, never)
	if err := a.takeHead(first.signed(t, w, w.Log), first.source()); err != nil {
		t.Fatal(err)
	}
	if err := a.takeRestore(restored(w, despite)); !errors.Is(err, errAnew) {
		t.Fatal(err)
	}
	aside, err := os.ReadDir(a.Spool.path(asideDir))
	if err != nil || !slices.ContainsFunc(aside, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), headFile) }) {
		t.Errorf("%v, %v", aside, err)
	}
	_ = a.Close()
	a = m.start()
	if a.logHead().Size != 0 {
		t.Errorf("after a restart it holds brokers to %+v", a.logHead())
	}
	dismissed := next(w, func(doc *policy.Document) { doc.Operators = []statement.Person{"carol"} })
	n := newMachine(t, w)
	h := n.start()
	if err := errors.Join(h.takeHead(first.signed(t, w, w.Log), first.source()), h.takePolicy(dismissed.Proofs()[1])); err != nil {
		t.Fatal(err)
	}
	if err := h.takeRestore(restored(w, despite)); !errors.Is(err, errAnew) || h.logHead().Size != 300 {
		t.Errorf("an operator who is none any more made it forget: %v, %+v", err, h.logHead())
	}
}

// TestALowerPolicyThanAHostHasSeenIsNotFollowed: the backup is of before alice lost her eligibility.
func TestALowerPolicyThanAHostHasSeenIsNotFollowed(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	a := m.start()
	lost := next(w, func(doc *policy.Document) {
		doc.Groups = map[policy.GroupName][]statement.Person{"approvers": doc.Groups["approvers"], "engineers": {"erin"}}
	})
	if err := a.takePolicy(lost.Proofs()[1]); err != nil {
		t.Fatal(err)
	}
	if err := a.takeRestore(restored(w, despite)); !errors.Is(err, errAnew) {
		t.Fatal(err)
	}
	d := afterwards(w) // which brokers that know revision 1 alone would grant
	if err := a.takePolicy(w.Chain.Proofs()[0]); err != nil {
		t.Fatal(err)
	}
	if err := a.takeDossier(d); err != nil {
		t.Fatal(err)
	}
	a.settle(t.Context())
	m.wantStands(d.Stem(), false)
	if ref := a.ledger.snapshot(0).chain.Ref(); ref.Revision != 2 {
		t.Errorf("policy revision %d", ref.Revision)
	}
}

// TestATornNoteOfARestoreStopsGranting until a broker shows the restore again.
func TestATornNoteOfARestoreStopsGranting(t *testing.T) {
	w := forger.New(t, roles)
	m := newMachine(t, w)
	a := m.start()
	proof := restored(w, nil)
	if err := a.takeRestore(proof); !errors.Is(err, errAnew) {
		t.Fatal(err)
	}
	_ = a.Close()
	write(t, m.spool(), encode(t, proof)[:40], epochFile)
	for range 2 { // and a restart does not help
		a = m.start()
		d := afterwards(w)
		if err := a.takeDossier(d); err != nil {
			t.Fatal(err)
		}
		if err := a.ledger.snapshot(a.Clock.now()).mayOpen(a.ledger.entries[d.Stem()].grant); err == nil || !strings.Contains(err.Error(), "is torn") {
			t.Fatalf("it may open: %v", err)
		}
		_ = a.Close()
	}
	a = m.start()
	if err := a.takeRestore(proof); !errors.Is(err, errAnew) {
		t.Fatal(err)
	}
	m.clock.pass(3 * time.Second)
	if s := a.ledger.snapshot(a.Clock.now()); s.halt != nil || s.host.Since == 0 {
		t.Errorf("shown again: %v", s.halt)
	}
}
