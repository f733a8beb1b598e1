package broker

import (
	"slices"
	"strings"
	"testing"

	"pim-ssh/broker/statement"
)

func TestTheInboxHoldsWhatAPersonCanDecideNow(t *testing.T) {
	sc := newScene(t)
	bobs := sc.asks("bob", "root", "db1")
	half := sc.asks("alice", "root", "db1")
	open := sc.asks("alice", "db-admin", "db1")
	denied := sc.asks("erin", "db-admin", "db1")
	for _, p := range []statement.Proof{bobs, half, open, denied} {
		sc.must(p)
	}
	sc.must(sc.approves("carol", half))
	sc.must(sc.denies("carol", denied))
	cases := map[statement.Person][]statement.Proof{
		"bob": {half, open}, "carol": {bobs, open}, "gwen": {bobs, half, open}, "alice": nil, "dave": nil, "nobody": nil,
	}
	for person, want := range cases {
		var got, wanted []RequestID
		for _, r := range sc.s.Inbox(person, sc.now) {
			got = append(got, r.ID)
		}
		for _, p := range want {
			wanted = append(wanted, StemOf(p.Hash()).Request())
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: %v, want %v", person, got, wanted)
		}
	}
	if left := sc.s.Inbox("gwen", sc.now+3601); len(left) != 0 {
		t.Errorf("expired requests in the inbox: %v", left)
	}
}

func TestFindByTheStartOfAnID(t *testing.T) {
	sc := newScene(t)
	grant := sc.granted()
	pending := sc.asks("alice", "root", "db1")
	sc.must(pending)
	stem, other := string(StemOf(grant.Hash())), string(StemOf(pending.Hash()))
	for _, prefix := range []string{"r-" + stem, "g-" + stem, stem, "r-" + stem[:6], "g-" + stem[:6], stem[:6]} {
		if r, err := sc.s.FindGrant(prefix); err != nil || string(r.ID.Stem()) != stem {
			t.Errorf("grant %s: %v", prefix, err)
		}
	}
	if r, err := sc.s.FindRequest(other[:6]); err != nil || string(r.ID.Stem()) != other {
		t.Errorf("request: %v", err)
	}
	refused := map[string]Kind{"r-" + other: Missing, "zzzzzz": Missing, "": Invalid, "r-": Invalid, "g-0": Invalid, "../x": Invalid, stem + "a": Invalid}
	for prefix, want := range refused {
		if _, err := sc.s.FindGrant(prefix); KindOf(err) != want {
			t.Errorf("grant %q: %v", prefix, err)
		}
	}
	seen := map[byte]bool{}
	for {
		p := sc.asks("erin", "web-deploy", "web1")
		sc.must(p)
		first := StemOf(p.Hash())[0]
		if seen[first] {
			if _, err := sc.s.FindRequest(string(first)); KindOf(err) != Conflict {
				t.Errorf("two start with %c: %v", first, err)
			}
			return
		}
		seen[first] = true
	}
}

func TestWhatIsOverIsForgottenAnHourLater(t *testing.T) {
	sc := newScene(t)
	grant, denied := sc.granted(), sc.asks("alice", "root", "db1")
	sc.must(denied)
	sc.must(sc.denies("bob", denied))
	sc.now += 1800
	sc.tick()
	over := sc.now
	held := func(p statement.Proof) bool {
		_, ok := sc.s.Request(StemOf(p.Hash()).Request())
		return ok
	}
	sc.now = over.Add(Keep)
	sc.must(sc.asks("erin", "web-deploy", "web1"))
	if !held(grant) || !held(denied) {
		t.Error("forgotten too early")
	}
	sc.now++
	sc.must(sc.asks("erin", "web-deploy", "web1"))
	if held(grant) {
		t.Error("the grant is not forgotten")
	}
	sc.now = dawn.Add(3600 + Keep + 1)
	sc.must(sc.asks("erin", "web-deploy", "web1"))
	if held(denied) {
		t.Error("the denied request is not forgotten")
	}
	for _, p := range []statement.Proof{grant, denied} {
		if d, err := sc.file(p); KindOf(err) != Expired || len(d.Events) != 0 {
			t.Errorf("a forgotten request filed again: %v %v", kinds(d.Events), err)
		}
	}
}

func TestStateStaysAsSmallAsWhatIsLive(t *testing.T) {
	sc := resume(t)
	for range 200 {
		sc.must(sc.asks("erin", "web-deploy", "web1"))
		sc.now += 1800
		sc.tick()
	}
	if n, m := len(sc.s.requests), len(sc.s.seen); n > 8 || m > 8 {
		t.Errorf("%d requests and %d outcomes are held after 200 windows", n, m)
	}
	if len(sc.s.open) != 0 || len(sc.s.wishes) != 0 {
		t.Errorf("open %v, wishes %v", sc.s.open, sc.s.wishes)
	}
}

func TestReadersKeepWhatTheyWereHanded(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "root", "db1")
	sc.must(p)
	before := sc.find(p)
	sc.must(sc.approves("bob", p))
	sc.must(sc.approves("carol", p))
	granted := sc.find(p)
	sc.must(sc.ends("alice", statement.Return, p))
	if before.State != StatePending || before.Grant != nil || len(before.Dossier.Decisions) != 0 {
		t.Errorf("a pending request changed in a reader's hands: %+v", before)
	}
	if granted.Grant.Ended != nil || granted.Dossier.Ended != nil {
		t.Error("a live grant ended in a reader's hands")
	}
}

func TestMergeKeepsWhatEitherKnows(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "root", "db1")
	bob, carol := sc.approves("bob", p), sc.approves("carol", p)
	one, two := sc.dossier(p, bob), sc.dossier(p, carol, bob)
	two.Ended = &Ended{How: EndedByRevoke, At: sc.now}
	sum, err := Merge(one, two)
	if err != nil || len(sum.Decisions) != 2 || sum.Ended == nil {
		t.Errorf("merged %+v, %v", sum, err)
	}
	again, err := Merge(sum, one)
	if err != nil || again.Ended == nil {
		t.Error("an end was forgotten")
	}
	if _, err := Merge(one, sc.dossier(bob)); KindOf(err) != Conflict {
		t.Errorf("dossiers of two requests: %v", err)
	}
	earlier := one
	earlier.Ended = &Ended{How: EndedByReturn, At: sc.now - 1}
	if sum, _ := Merge(two, earlier); sum.Ended.How != EndedByReturn {
		t.Errorf("the later of two ends was kept")
	}
}

func TestASpoiledEnvelopeDoesNotSpoilTheStatement(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	yes := sc.approves("bob", p)
	spoiled := statement.Proof{Payload: yes.Payload, Signatures: p.Signatures}
	for name, pair := range map[string][2]Dossier{
		"held first": {sc.dossier(p, spoiled), sc.dossier(p, yes)},
		"held last":  {sc.dossier(p, yes), sc.dossier(p, spoiled)},
	} {
		sum, err := Merge(pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Prove(sc.chain, sum); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDs(t *testing.T) {
	sc := newScene(t)
	stem := StemOf(sc.asks("alice", "db-admin", "db1").Hash())
	if got, err := ParseStem(string(stem)); err != nil || got != stem {
		t.Errorf("stem %v", err)
	}
	if got, err := ParsePrincipal(stem.Principal()); err != nil || got != stem {
		t.Errorf("principal %v", err)
	}
	if got, err := ParseUnit(stem.Unit()); err != nil || got != stem {
		t.Errorf("unit %v", err)
	}
	if stem.Request().Stem() != stem || stem.Grant().Stem() != stem || stem.SudoersFile() != string(stem.Grant()) {
		t.Error("ids do not share the stem")
	}
	good := strings.Repeat("a", 26)
	for _, bad := range []string{"", "r-", "g-" + good, "r-" + good[1:], "r-" + good + "a", "r-" + strings.ToUpper(good), "r-" + good[1:] + "1", "r-" + good[1:] + "/", " r-" + good} {
		if id, err := ParseRequestID(bad); err == nil {
			t.Errorf("%q parsed as %s", bad, id)
		}
	}
	for _, bad := range []string{"", "root", "pim-g-", "pim-g-" + good + " root", "pim-g-" + good + "\n", "pim-g-" + good + ".service", "PIM-G-" + good} {
		if stem, err := ParsePrincipal(bad); err == nil {
			t.Errorf("principal %q parsed as %s", bad, stem)
		}
	}
	for _, bad := range []string{"", "pim-g-" + good, "pim-g-" + good + ".scope", "x/pim-g-" + good + ".service"} {
		if stem, err := ParseUnit(bad); err == nil {
			t.Errorf("unit %q parsed as %s", bad, stem)
		}
	}
}

func TestTheTableOfKinds(t *testing.T) {
	want := map[Kind][2]int{Invalid: {400, 1}, Denied: {403, 3}, Missing: {404, 4}, Conflict: {409, 7}, Expired: {410, 6}, Unavailable: {503, 69}}
	for kind, codes := range want {
		if kind.HTTPStatus() != codes[0] || kind.ExitCode() != codes[1] {
			t.Errorf("%s: %d %d", kind, kind.HTTPStatus(), kind.ExitCode())
		}
	}
	if len(outcomes) != len(want) {
		t.Errorf("%d kinds in the table", len(outcomes))
	}
}
