package effect

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// judged is file with what the proposer found out.
func (g *growing) judged(p statement.Proof, j broker.Judged) {
	g.t.Helper()
	command, err := broker.CommandFor(p, forger.Now())
	must(g.t, err)
	command.Judged = j
	decided, _ := broker.Decide(g.state, command.Under(g.state))
	if len(decided.Events) == 0 {
		g.t.Fatal("nothing came of it")
	}
	for _, event := range decided.Events {
		leaf, err := broker.EncodeEvent(event)
		must(g.t, err)
		g.leaves = append(g.leaves, leaf)
		broker.Evolve(g.state, event)
	}
}

// enrol has a host be there.
func (g *growing) enrol(world *forger.World, name statement.HostName) {
	g.t.Helper()
	once, identity := forger.Key(g.t), forger.Key(g.t)
	token := world.Sign(statement.HostToken{Head: world.Head(statement.KindHostToken, "dave"), Name: name, Labels: map[string]string{"tier": "web"},
		Addresses: []string{string(name)}, Key: signtest.Public(once), Expires: forger.Now() + 3600}, "dave")
	head := world.Head(statement.KindEnrolment, "")
	head.Host = name
	p, err := statement.Sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte(name)), Identity: signtest.Public(identity),
		HostKeys: []statement.Key{signtest.Public(identity)}}, once, identity)
	must(g.t, err)
	g.file(p)
}

// heard is a journal that a test reads.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

// lines are those since the last call.
func (h *heard) lines() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := strings.FieldsFunc(h.text.String(), func(r rune) bool { return r == '\n' })
	h.text.Reset()
	return all
}

// TestWhatSomebodyShouldLookAtIsOneLineInTheJournal makes each thing happen once, and what is nobody's alarm beside it.
func TestWhatSomebodyShouldLookAtIsOneLineInTheJournal(t *testing.T) {
	world := forger.New(t, func(doc *policy.Document) {
		role := doc.Roles["web-deploy"]
		role.Approvals, role.Emergency, role.PlainKey = policy.Approvals{Count: 1, From: []policy.Name{"approvers"}}, true, true
		doc.Roles["fire"] = role
		role = doc.Roles["db-admin"]
		role.Hosts.Labels, role.Factors.Ask = map[string]string{"tier": "web"}, policy.TOTP
		doc.Roles["db-admin"] = role
	})
	log := newGrowing(t, world)
	log.enrol(world, "web1")
	journal, later := &heard{}, statement.Seconds(0)
	alarm := &Alarm{Events: log, Now: func() statement.Time { return forger.Now().Add(later) }, Log: slog.New(slog.NewTextHandler(journal, nil))}
	must(t, alarm.Once())
	says := func(what string, words ...string) {
		t.Helper()
		must(t, alarm.Once())
		got := journal.lines()
		if len(got) != len(words) {
			t.Fatalf("%s: %d lines: %q", what, len(got), got)
		}
		for i, word := range words {
			if !strings.Contains(got[i], "level=WARN msg=\"ALARM: ") || !strings.Contains(got[i], word) {
				t.Errorf("%s: %s", what, got[i])
			}
		}
	}
	says("a broker that starts")
	key := forger.Key(t)
	ask := func(role statement.RoleName, code string) statement.Proof {
		return world.Ask("alice", role, "web1", 60, key, func(r *statement.Request) { r.Code = code })
	}
	enrol := statement.Factor{Head: world.Head(statement.KindFactor, "alice"), Action: statement.EnrolFactor, Sealed: []byte("x"), First: "123456"}
	log.judged(world.Sign(enrol, "alice"), broker.Judged{Code: &broker.CodeJudged{Right: true, Step: 1}})
	says("a second factor", "person=alice")
	log.refuse(world, 3)
	says("what is refused, and no code")
	for range broker.MaxFailures - 1 {
		log.judged(ask("db-admin", "000000"), broker.Judged{Code: &broker.CodeJudged{}})
	}
	says("a few wrong codes")
	log.judged(ask("db-admin", "000000"), broker.Judged{Code: &broker.CodeJudged{}})
	says("one too many", "codes are locked\" person=alice until=")
	log.judged(ask("db-admin", "000000"), broker.Judged{})
	says("one more while they are locked")
	log.file(world.Sign(statement.Factor{Head: world.Head(statement.KindFactor, "dave"), Action: statement.ResetFactor, Of: "alice", Reason: "lost"}, "dave"))
	says("a reset", "taken away\" person=alice by=dave")
	fire := ask("fire", "")
	log.file(fire)
	grant := string(broker.StemOf(fire.Hash()).Grant())
	says("an emergency", "nobody approved\" grant="+grant)
	later = statement.Day + 10
	says("a day without a review", "nobody has reviewed an emergency grant\" grant="+grant)
	says("the same day")
	later = 2*statement.Day + 30
	says("another day without", "grant="+grant)
	log.file(world.Sign(statement.Review{Head: world.Head(statement.KindReview, "bob"), Grant: grant, Reason: "looked"}, "bob"))
	later = 4 * statement.Day
	says("it was reviewed")
}

// TestABrokerThatStartsTellsTheLastHourAgain starts one on a log whose alarms are new, and one on a log whose are old.
func TestABrokerThatStartsTellsTheLastHourAgain(t *testing.T) {
	world := forger.New(t, nil)
	log := newGrowing(t, world)
	log.enrol(world, "web1")
	log.refuse(world, 20)
	log.file(world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil))
	log.refuse(world, 20)
	for name, try := range map[string]struct {
		later statement.Seconds
		want  int
	}{"at once": {0, 1}, "two hours later": {2 * 60 * 60, 0}} {
		journal := &heard{}
		alarm := &Alarm{Events: log, Now: func() statement.Time { return forger.Now().Add(try.later) }, Log: slog.New(slog.NewTextHandler(journal, nil))}
		must(t, alarm.Once())
		if lines := journal.lines(); len(lines) != try.want {
			t.Errorf("%s: %q", name, lines)
		}
	}
}

// TestAnAlarmRingsWithoutBeingAsked runs one beside a log that grows.
func TestAnAlarmRingsWithoutBeingAsked(t *testing.T) {
	world := forger.New(t, nil)
	log := newGrowing(t, world)
	log.enrol(world, "web1")
	log.file(world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil))
	journal := &heard{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		(&Alarm{Events: log, Now: forger.Now, Log: slog.New(slog.NewTextHandler(journal, nil))}).Run(ctx)
		close(ended)
	}()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(5 * time.Second); len(journal.lines()) == 0; <-look.C {
		if time.Now().After(deadline) {
			t.Fatal("it never rang")
		}
	}
	cancel()
	<-ended
}
