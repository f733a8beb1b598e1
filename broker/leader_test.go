package broker

import (
	"errors"
	"strings"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// An owned leader proposes whatever it likes. Honest brokers run Decide on it: a forged command changes nothing at all.
func TestAnOwnedLeaderChangesNothing(t *testing.T) {
	at := func(c Command, t statement.Time) Command {
		c.At = t
		return c
	}
	cases := map[string]func(sc *scene) Command{
		"by a request stamped a year ahead": func(sc *scene) Command {
			return at(sc.command(sc.asks("alice", "web-deploy", "web1")), sc.now.Add(365*statement.Day))
		},
		"by an approval stamped an hour ahead": func(sc *scene) Command {
			p := sc.asks("alice", "db-admin", "db1")
			sc.must(p)
			return at(sc.command(sc.approves("bob", p)), sc.now.Add(3600))
		},
		"by an approval kept back for two minutes": func(sc *scene) Command {
			p := sc.asks("alice", "db-admin", "db1")
			sc.must(p)
			c := sc.command(sc.approves("bob", p))
			sc.now += 120
			return at(c, sc.now)
		},
		"by an approval kept back, stamped with the past": func(sc *scene) Command {
			p := sc.asks("alice", "db-admin", "db1")
			sc.must(p)
			c := sc.command(sc.approves("bob", p))
			sc.now += 120
			sc.must(sc.asks("erin", "web-deploy", "web1")) // the cluster's now has moved on
			return at(c, c.At)
		},
		"by a request in alice's name": func(sc *scene) Command {
			return sc.command(sc.sign(sc.request("alice", "web-deploy", "web1"), key("b1 identity")))
		},
		"by an approval in bob's name": func(sc *scene) Command {
			p := sc.asks("alice", "db-admin", "db1")
			sc.must(p)
			return sc.command(sc.sign(sc.decision("bob", statement.Approve, p), key("b1 identity")))
		},
		"by a command of the wrong kind": func(sc *scene) Command {
			c := sc.command(sc.asks("alice", "db-admin", "db1"))
			c.Kind = FileDecision
			return c
		},
		"by bytes that are no statement": func(*scene) Command {
			return Command{V: CommandVersion, Kind: FileRequest, Rules: 1, Proof: statement.Proof{Payload: []byte(`{"v":1}`)}}
		},
		"by no statement at all": func(*scene) Command { return Command{V: CommandVersion, Kind: FileRequest, Rules: 1} },
		"by a statement that was changed": func(sc *scene) Command {
			c := sc.command(sc.asks("alice", "web-deploy", "web1"))
			c.Proof.Payload = []byte(strings.Replace(string(c.Proof.Payload), `"duration":1800`, `"duration":3600`, 1))
			return c
		},
		"by a policy of its own": func(sc *scene) Command {
			return sc.command(signPolicy(sc.t, sc.draft(changeRole("root", func(r *policy.Role) { r.Approvals.Count = 1 })), "mallory"))
		},
		"by another deployment's first policy": func(sc *scene) Command {
			doc := labPolicy(sc.t)
			doc.Stewards.People = []statement.Person{"mallory"}
			return sc.command(signPolicy(sc.t, doc, "mallory"))
		},
		"by an enrolment under a token of its own": func(sc *scene) Command {
			return sc.command(sc.joins("db3", "db3", sc.token("db3", "db", "mallory")))
		},
		"by a report in a host's name": func(sc *scene) Command {
			h := sc.head(statement.KindReport, "")
			h.Host = "db1"
			return sc.command(sc.sign(statement.Report{Head: h, Sequence: 1, What: statement.SessionOpened, Service: "sshd", At: sc.now}, key("b1 identity")))
		},
		"by a certificate statement in alice's name": func(sc *scene) Command {
			p := sc.granted()
			return sc.command(sc.sign(statement.Certificate{
				Head: sc.head(statement.KindCertificate, "alice"), Grant: string(StemOf(p.Hash()).Grant()), Key: publicKeyOf("b1 laptop"),
			}, key("b1 identity")))
		},
		"by a tick with nothing to record": func(sc *scene) Command { return sc.clock(sc.now.Add(600), nil) },
	}
	for name, make := range cases {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			c := make(sc)
			before := sc.s.Digest()
			d, err := sc.apply(c)
			if c.Kind != Tick && err == nil {
				t.Error("taken")
			}
			if len(d.Events) != 0 || sc.s.Digest() != before {
				t.Errorf("events %v: %v", kinds(d.Events), err)
			}
		})
	}
}

// The one thing a lying clock can do: end things. It never opens one.
func TestAnOwnedLeadersClockOnlyEnds(t *testing.T) {
	sc := newScene(t)
	grant, pending := sc.granted(), sc.asks("alice", "root", "db1")
	sc.must(pending)
	d, err := sc.apply(sc.clock(sc.now.Add(365*statement.Day), nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range d.Events {
		switch e.(type) {
		case *GrantLapsed, *RequestExpired:
		default:
			t.Errorf("a tick became %s", e.Head().Kind)
		}
	}
	if sc.find(grant).live(sc.s.Now()) || sc.find(pending).State != StateExpired {
		t.Error("something outlived a year")
	}
}

func TestAnOwnedLeaderCannotMakeAGrantLongerByWithholdingTime(t *testing.T) {
	sc := newScene(t)
	p := sc.granted()
	until := sc.find(p).Grant.Until
	sc.now += 1799
	sc.must(sc.asks("erin", "web-deploy", "web1"))
	back, err := sc.apply(sc.clock(dawn, nil))
	if err != nil || len(back.Events) != 0 || sc.s.Now() != sc.now {
		t.Errorf("a clock set back: %v %v", kinds(back.Events), err)
	}
	if sc.find(p).Grant.Until != until {
		t.Error("the window moved")
	}
}

func TestWhatStopsABroker(t *testing.T) {
	sc := newScene(t)
	index, digest := sc.s.Index(), sc.s.Digest()
	cases := map[string]struct {
		c    Command
		want error
	}{
		"a command of a later version":          {Command{V: 2, Kind: Tick, Rules: 1}, ErrUnknownVersion},
		"a command under other rules":           {Command{V: CommandVersion, Kind: Tick, Rules: Rules + 1}, ErrUnknownVersion},
		"a command of an unknown kind":          {Command{V: CommandVersion, Kind: "OpenEverything", Rules: 1}, ErrUnknownVersion},
		"another digest at the same index":      {sc.clock(sc.now, &StateAt{Index: index, Digest: statement.HashOf(nil)}), ErrDiverged},
		"a leader that is ahead of its own log": {sc.clock(sc.now, &StateAt{Index: index + 1, Digest: digest}), ErrDiverged},
		"the same digest at the same index":     {sc.clock(sc.now, &StateAt{Index: index, Digest: digest}), nil},
		"a digest of an earlier index":          {sc.clock(sc.now, &StateAt{Index: index - 1, Digest: statement.HashOf(nil)}), nil},
	}
	for name, c := range cases {
		d, err := sc.apply(c.c)
		if !errors.Is(err, c.want) || MustStop(err) != (c.want != nil) || len(d.Events) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCommandForTakesOnlyWhatIsFiled(t *testing.T) {
	sc := newScene(t)
	read := statement.Read{Head: sc.head(statement.KindRead, "alice"), Method: "GET", PathAndQuery: "/v1/whoami", BodySHA256: statement.HashOf(nil)}
	read.NotAfter = read.Created.Add(60)
	cases := map[string]statement.Proof{
		"a read":       sc.sign(read, key("alice")),
		"a session":    sc.sign(statement.Session{Head: sc.head(statement.KindSession, "alice"), Key: publicKeyOf("s"), Until: sc.now.Add(60)}, key("alice")),
		"a host token": sc.token("db3", "db", "dave"),
		"nothing":      {},
		"rubbish":      {Payload: []byte("rubbish"), Signatures: [][]byte{[]byte("x")}},
		"unsigned":     {Payload: sc.asks("alice", "db-admin", "db1").Payload},
	}
	for name, p := range cases {
		if _, err := CommandFor(p, sc.now); KindOf(err) != Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
