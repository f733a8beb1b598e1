package broker

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

var update = flag.Bool("update", false, "write testdata anew: only when the encoding was changed on purpose")

// everything is a scene in which every kind of event happens.
func everything(t *testing.T) *scene {
	sc := newScene(t)
	returned := sc.granted()
	sc.must(sc.certifies("alice", returned, "alice desk"))
	sc.must(sc.ends("alice", statement.Return, returned))
	revoked := sc.granted()
	sc.must(sc.ends("carol", statement.Revoke, revoked))
	deployed := sc.asks("erin", "web-deploy", "web1")
	sc.must(deployed)
	denied := sc.asks("alice", "root", "db1", "web1")
	sc.must(denied)
	sc.must(sc.denies("gwen", denied))
	withdrawn := sc.asks("alice", "root", "db1", "web1")
	sc.must(withdrawn)
	sc.must(sc.ends("alice", statement.Withdraw, withdrawn))
	expiring := sc.asks("alice", "root", "db1")
	sc.must(expiring)
	sc.must(sc.reports("db1", 1))
	sc.must(sc.reports("db1", 4))
	sc.refused(Missing, sc.approves("mallory", expiring))
	ended := sc.granted()
	shorter := sc.revises(changeRole("db-admin", func(r *policy.Role) { r.Eligible = []policy.Name{"erin"} }))
	other := sc.revises(changeRole("db-admin", func(r *policy.Role) { r.Longest = 7200 }))
	sc.must(shorter)
	sc.refused(Conflict, other)
	if sc.find(ended).Grant.Phase(sc.now) != PhaseRevoked {
		t.Fatal("alice's grant outlived her eligibility")
	}
	sc.now += 3601
	wantKinds(t, sc.tick().Events, "RequestExpired", "GrantLapsed") // in the order of their ids
	return sc
}

// sequel is everything, and what rules 2 bring.
func sequel(t *testing.T) *scene {
	sc := everything(t)
	sc.must(sc.revises(listing(t, "b1", "b2", "b3", "b4")))
	sc.must(sc.raises("dave", 2))
	sc.must(sc.adds("dave", "b2", disk("b2"), true))
	sc.must(sc.adds("dave", "b2", disk("b2"), false))
	sc.must(sc.adds("dave", "b3", disk("b3"), false))
	sc.must(sc.removes("dave", "b1", ""))
	sc.must(sc.removes("dave", "b3", disk("b3")))
	sc.refused(Conflict, sc.adds("dave", "b3", disk("b3"), false))
	sc.refused(Denied, sc.removes("mallory", "b2", disk("b2")))
	sc.must(sc.adds("dave", "b3", disk("b3 again"), true))
	sc.must(sc.revises(listing(t, "b1", "b2", "b4")))
	sc.must(sc.asks("erin", "web-deploy", "web1"))
	return sc
}

// aftermath is sequel, and a restore: the leader's clock had run a day ahead, and something was open.
func aftermath(t *testing.T) *scene {
	sc := sequel(t)
	open := sc.asks("erin", "db-admin", "db1")
	sc.must(open)
	sc.must(sc.approves("bob", open))
	right := sc.now
	sc.now += 3600
	sc.must(sc.asks("erin", "db-admin", "db1"))
	sc.now = right + 60
	sc.must(sc.restores("dave", nil))
	sc.now += 5
	sc.must(sc.asks("erin", "web-deploy", "web1"))
	return sc
}

// sundry is aftermath, and what rules 3 bring.
func sundry(t *testing.T) *scene {
	sc := aftermath(t)
	sc.must(sc.raises("dave", 3))
	sc.must(sc.revises(func(doc *policy.Document) {
		changeRole("web-deploy", func(r *policy.Role) { r.PlainKey = true })(doc)
		changeRole("db-admin", func(r *policy.Role) {
			r.Eligible, r.Longest = []policy.Name{"engineers"}, 4*3600
			r.Factors, r.Budget = policy.Factors{Ask: policy.TOTP, Fresh: 900}, policy.Budget{Time: 8 * 3600, Per: 7 * statement.Day}
		})(doc)
		changeRole("root", func(r *policy.Role) {
			r.Emergency, r.PlainKey, r.Eligible = true, true, nil
			r.Dated = []policy.Eligibility{{Who: "alice", Until: dawn.Add(60 * statement.Day)}}
		})(doc)
	}))
	sc.must(sc.enrolsFactor("alice", "123456", ""), judging(Judged{Code: &CodeJudged{Right: true, Step: 100}}))
	sc.refused(Denied, sc.asksWith("alice", "db-admin", "123457", "db1"), judging(Judged{Code: &CodeJudged{}}))
	later := sc.request("alice", "db-admin", "db1")
	later.Code, later.At = "123458", sc.now.Add(600)
	p := sc.sign(later, key("alice"))
	sc.must(p, judging(Judged{Code: &CodeJudged{Right: true, Step: 101}}))
	sc.must(sc.approves("bob", p))
	sc.now += 600
	wantKinds(t, sc.tick().Events, "GrantStarted")
	sc.now += 60
	longer := sc.request("alice", "db-admin", "db1")
	longer.Extends, longer.At = string(sc.find(p).Grant.ID), sc.find(p).Grant.Until
	sc.must(sc.sign(longer, key("alice")), judging(Judged{}))
	urgent := sc.asks("alice", "root", "db1", "web1")
	sc.must(urgent)
	sc.must(sc.reviews("carol", urgent))
	sc.must(sc.renews("alice", "root", dawn.Add(90*statement.Day)))
	sc.must(sc.resetsFactor("dave", "alice"))
	return sc
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func encoded(t *testing.T, events []Event) [][]byte {
	t.Helper()
	var leaves [][]byte
	for _, e := range events {
		leaf, err := EncodeEvent(e)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	return leaves
}

func TestEveryKindOfEventKeepsItsEncoding(t *testing.T) {
	sc := sundry(t)
	leaves := encoded(t, sc.log)
	met := map[EventKind]bool{}
	for i, e := range sc.log {
		if kind := e.Head().Kind; !met[kind] {
			met[kind] = true
			golden(t, "events/"+string(kind)+".json", append(leaves[i], '\n'))
		}
	}
	for kind := range eventDecoders {
		if !met[kind] {
			t.Errorf("no event of kind %s happened", kind)
		}
	}
}

func TestEveryKindOfCommandKeepsItsEncoding(t *testing.T) {
	met := map[CommandKind]bool{}
	for _, c := range sundry(t).taken {
		data, err := EncodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeCommand(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("%s: %s", c.Kind, diff)
		}
		if !met[c.Kind] {
			met[c.Kind] = true
			golden(t, "commands/"+string(c.Kind)+".json", append(data, '\n'))
		}
	}
	if len(met) != 14 {
		t.Errorf("met %v", met)
	}
}

func TestEveryEventReadBackIsTheSameEvent(t *testing.T) {
	sc := sundry(t)
	for i, leaf := range encoded(t, sc.log) {
		e, err := DecodeEvent(leaf)
		if err != nil {
			t.Fatal(err)
		}
		again, err := EncodeEvent(e)
		if err != nil || !bytes.Equal(again, leaf) {
			t.Errorf("event %d: %v: %s", i, err, again)
		}
	}
}

// The recorded logs were written by earlier builds, one under rules 1, one up to rules 2, one with a restore, one up to rules 3: today's rules
// must fold each to the digest recorded beside it.
func TestRefoldingTheRecordedLogsGivesTheRecordedDigests(t *testing.T) {
	refolds(t, everything(t), "log.ndjson", "digest")
	refolds(t, sequel(t), "log-2.ndjson", "digest-2")
	refolds(t, aftermath(t), "log-3.ndjson", "digest-3")
	refolds(t, sundry(t), "log-4.ndjson", "digest-4")
}

func refolds(t *testing.T, sc *scene, log, sum string) {
	golden(t, log, append(bytes.Join(encoded(t, sc.log), []byte("\n")), '\n'))
	golden(t, sum, []byte(sc.s.Digest().String()+"\n"))
	recorded, err := os.ReadFile("testdata/" + log)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := os.ReadFile("testdata/" + sum)
	if err != nil {
		t.Fatal(err)
	}
	s := NewState()
	for leaf := range bytes.Lines(recorded) {
		e, err := DecodeEvent(bytes.TrimSuffix(leaf, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		Evolve(s, e)
	}
	if got := s.Digest().String() + "\n"; got != string(digest) {
		t.Errorf("digest %s, want %s", got, digest)
	}
}

func TestASnapshotTakenAnywhereContinuesAsTheLogDoes(t *testing.T) {
	sc := sundry(t)
	for cut := range sc.log {
		s := NewState()
		for _, e := range sc.log[:cut] {
			Evolve(s, e)
		}
		data, err := EncodeState(s)
		if err != nil {
			t.Fatal(err)
		}
		restored, err := DecodeState(data)
		if err != nil {
			t.Fatalf("at %d: %v", cut, err)
		}
		for _, e := range sc.log[cut:] {
			Evolve(restored, e)
		}
		if restored.Digest() != sc.s.Digest() {
			t.Fatalf("a snapshot at index %d leads elsewhere", cut)
		}
	}
}

func TestASnapshotThatWasTouchedIsRefused(t *testing.T) {
	data, err := EncodeState(everything(t).s)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][2]string{
		"a later version":             {`{"v":1,`, `{"v":2,`},
		"an unknown member":           {`{"v":1,`, `{"v":1,"x":1,`},
		"another spelling":            {`{"v":1,`, `{ "v":1,`},
		"a duplicate member":          {`{"v":1,`, `{"v":1,"v":1,`},
		"a request under another id":  {`{"id":"r-`, `{"id":"r-a`},
		"a policy that is not signed": {`"policy":[{"payload":"e`, `"policy":[{"payload":"f`},
		"a revision without an index": {`"adopted":[0,`, `"adopted":[`},
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
	if _, err := DecodeState(bytes.Replace(data, []byte(`{"v":1,`), []byte(`{"v":2,`), 1)); !MustStop(err) {
		t.Errorf("a later version does not stop the broker: %v", err)
	}
}
