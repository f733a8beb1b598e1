//go:build lab

package lab

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// spent is a grant that is over, with the real certificate its holder had under it.
type spent struct {
	person statement.Person
	d      broker.Dossier
	offer  ssh.Signer
	until  statement.Time
}

// spend makes a grant for all three hosts of tier db.
func (s *siege) spend(t *testing.T, p statement.Person, duration statement.Seconds) spent {
	t.Helper()
	key := forger.Key(t)
	r := s.w.Ask(p, "db-admin", "db1", duration, key, func(r *statement.Request) { r.Hosts = append(r.Hosts, "h3", "h4") })
	d := with(r, s.w.Approve("bob", r, nil))
	grant, err := broker.Prove(s.w.Chain, d)
	if err != nil {
		t.Fatal(err)
	}
	return spent{p, d, forger.Offer(t, s.w.Certificate(d, key, nil), key), grant.Until}
}

// over is the dossier with a broker's word that it ended.
func (s spent) over(how broker.EndedHow) broker.Dossier {
	d := s.d
	d.Ended = &broker.Ended{How: how, At: forger.Now()}
	return d
}

// again shows returned, revoked and lapsed grants once more: to the host where they were used (db1, by its spool), to
// another that heard of their end (h3, by the wire), and to one that enrols only now (fresh).
func (s *siege) again(t *testing.T, db1, h3 *ground, fresh string) {
	lapsing := s.spend(t, "erin", 4)
	db1.show(t, lapsing.d)
	db1.opens(t, lapsing.d)
	ended := map[broker.EndedHow]spent{broker.EndedByReturn: s.spend(t, "alice", 600), broker.EndedByRevoke: s.spend(t, "alice", 600)}
	for how, old := range ended {
		for _, g := range []*ground{db1, h3} {
			g.show(t, old.d)
			g.opens(t, old.d)
			g.entered(t, "postgres", old.offer)
			g.show(t, old.over(how))
			g.closed(t, old.d)
		}
	}
	for how, old := range ended {
		for _, g := range []*ground{db1, h3} {
			t.Run(fmt.Sprintf("ended by %s, shown without its end on %s", how, g.host), func(t *testing.T) { g.dead(t, old, "it is over: "+string(how)) })
		}
	}
	t.Run("ended, shown with one more approval on db1", func(t *testing.T) {
		old := ended[broker.EndedByRevoke]
		old.d.Decisions = append(old.d.Decisions, s.w.Approve("carol", old.d.Request, nil))
		db1.dead(t, old, "it is over: revoke")
	})
	t.Run("lapsed, shown again on db1", func(t *testing.T) {
		db1.closed(t, lapsing.d)
		<-time.After(time.Until(lapsing.until.Std()))
		db1.dead(t, lapsing, "it is over: lapse")
	})
	t.Run("lapsed, shown with a new approval in place of the old on db1", func(t *testing.T) {
		later := lapsing
		later.d = with(lapsing.d.Request, s.w.Approve("carol", lapsing.d.Request, nil))
		db1.dead(t, later, "it is over: lapse")
	})
	db1.do(t, "systemctl restart pim-hostd")
	t.Run("ended, after the agent started anew on db1", func(t *testing.T) { db1.dead(t, ended[broker.EndedByReturn], "it is over: return") })
	t.Run("lapsed, shown to h3, which never heard of it", func(t *testing.T) { h3.dead(t, lapsing, "lapsed at") })
	h4 := s.ground(t, fresh, "db", deaf)
	t.Run("lapsed, shown to h4, which enrolled since", func(t *testing.T) { h4.dead(t, lapsing, "lapsed at") })
	t.Run("revoked, shown to h4, which enrolled since and is told", func(t *testing.T) {
		old := ended[broker.EndedByReturn]
		h4.show(t, old.over(broker.EndedByReturn))
		h4.dead(t, old, "it is over: return")
	})
	t.Run("revoked, shown to h4, which enrolled since and is not told: what brokers can withhold", func(t *testing.T) {
		h4.withheld(t, ended[broker.EndedByRevoke])
	})
	h4.honest(t)
	db1.honest(t)
}

// dead shows a spent grant without its end, and wants every door shut.
func (g *ground) dead(t *testing.T, old spent, why string) {
	t.Helper()
	g.show(t, old.d)
	since := g.since(t)
	g.nothingStarts(t, old.d, old.person, "postgres", old.offer)
	g.said(t, since, "certificate refused")
	if why != "lapsed at" {
		g.said(t, since, why[len("it "):])
		return
	}
	g.said(t, 0, "grant "+string(old.d.Stem().Grant())+" lapsed at")
}

// withheld is the one thing an owned broker can do with a revoked grant: show it to a host that cannot know. It works
// there, to the second for which people signed, for the key that alice named and as the role she asked for; and it is
// over for good with the first word of its end.
func (g *ground) withheld(t *testing.T, old spent) {
	g.show(t, old.d)
	g.opens(t, old.d)
	g.until(t, old.d, old.until)
	g.entered(t, "postgres", old.offer)
	since := g.since(t)
	stranger := forger.Key(t)
	g.turnedAway(t, "postgres", forger.Offer(t, g.w.Certificate(old.d, stranger, nil), stranger))
	g.said(t, since, "a key its holder never named")
	g.show(t, old.over(broker.EndedByRevoke))
	g.closed(t, old.d)
	g.dead(t, old, "it is over: revoke")
}
