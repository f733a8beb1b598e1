//go:build lab

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// policies puts before a host what no stewards signed, and then what they did sign in an order that they did not mean.
func (g *ground) policies(t *testing.T) {
	g.honest(t)
	for _, u := range usurpations {
		t.Run(u.sentence, func(t *testing.T) { g.usurp(t, u) })
	}
	g.honest(t)
	old := g.held(t)
	t.Run("a revision that has expired, with the next one withheld", func(t *testing.T) { g.expires(t, old) })
	g.follow(t, g.w.Next(removal), "dave", "frank")
	t.Run("a grant whose holder the newest revision removed", func(t *testing.T) { g.removed(t, old) })
	g.honest(t)
	t.Run("rolled back: the newest revision taken away", func(t *testing.T) { g.rolledBack(t, old) })
	g.honest(t)
	t.Run("forked: two rightly signed revisions of one number", g.forked)
}

// held is a live grant of alice's for root.
func (g *ground) held(t *testing.T) spent {
	key := forger.Key(t)
	d := g.w.Granted("alice", "root", hostName(g.host), 600, key, "bob", "carol")
	g.show(t, d)
	g.opens(t, d)
	old := spent{"alice", d, forger.Offer(t, g.w.Certificate(d, key, nil), key), forger.Now() + 600}
	g.entered(t, "root", old.offer)
	return old
}

// removal takes the role root from alice.
func removal(doc *policy.Document) {
	root := doc.Roles["root"]
	root.Eligible = []policy.Name{"bob"}
	doc.Roles["root"] = root
}

// follow moves the world and the host to a rightly signed revision.
func (g *ground) follow(t *testing.T, doc policy.Document, stewards ...statement.Person) {
	t.Helper()
	proof := g.w.SignPolicy(doc, stewards...)
	g.w.Adopt(proof)
	since := g.since(t)
	g.putJSON(t, proof, "policy", fmt.Sprintf("%08d.json", doc.Revision))
	g.do(t, "systemctl reload pim-hostd")
	g.said(t, since, fmt.Sprintf("spool read\" policy=%d", doc.Revision))
}

func (g *ground) expires(t *testing.T, old spent) {
	ends := forger.Now() + 3
	g.follow(t, g.w.Next(func(doc *policy.Document) { doc.Expires = ends }), "dave", "frank")
	g.entered(t, "root", old.offer)
	<-time.After(time.Until(ends.Std()))
	since := g.since(t)
	g.turnedAway(t, "root", old.offer)
	if out := g.sudo(t, "alice", "postgres", "root"); strings.Contains(out, "uid=") {
		t.Errorf("%s: SUDO under an expired policy:\n%s", g.host, out)
	}
	g.said(t, since, "the policy expired at")
	key := forger.Key(t)
	fresh := g.w.Granted("erin", "keeper", hostName(g.host), 300, key, "gwen")
	g.show(t, fresh)
	g.nothingStarts(t, fresh, "erin", "postgres", forger.Offer(t, g.w.Certificate(fresh, key, nil), key))
}

// removed: by the newest revision the grant is over, and so it stays.
func (g *ground) removed(t *testing.T, old spent) {
	g.closed(t, old.d)
	since := g.since(t)
	g.show(t, old.d)
	g.nothingStarts(t, old.d, "alice", "root", old.offer)
	g.said(t, since, "certificate refused")
	g.said(t, 0, "alice is not eligible for role root")
}

func (g *ground) rolledBack(t *testing.T, old spent) {
	newest := fmt.Sprintf("/var/lib/pim-ssh/host/policy/%08d.json", g.w.Chain.Ref().Revision)
	since := g.since(t)
	g.do(t, "mv "+newest+" /root/newest && systemctl reload pim-hostd")
	g.said(t, since, "the spool holds policy revision 2, known is 3")
	g.nothingStarts(t, old.d, "alice", "root", old.offer)
	since = g.since(t)
	g.do(t, "systemctl restart pim-hostd")
	g.said(t, since, "policy revision 3 was verified here before and is missing now")
	g.nothingStarts(t, old.d, "alice", "root", old.offer)
	g.said(t, since, "certificate refused")
	since = g.since(t)
	g.do(t, "mv /root/newest "+newest+" && systemctl reload pim-hostd")
	g.said(t, since, "spool read\" policy=3")
}

// forked needs the stewards themselves, or both their keys: then nothing starts at all, whichever revision is right.
func (g *ground) forked(t *testing.T) {
	key := forger.Key(t)
	d := g.w.Granted("erin", "keeper", hostName(g.host), 300, key, "gwen")
	offer := forger.Offer(t, g.w.Certificate(d, key, nil), key)
	g.show(t, d)
	g.opens(t, d)
	g.entered(t, "postgres", offer)
	since := g.since(t)
	g.showPolicy(t, g.fork())
	g.said(t, since, "two rightly signed policies bear the same revision number")
	g.halted(t, d, offer)
	since = g.since(t)
	g.do(t, "systemctl restart pim-hostd")
	g.said(t, since, "two rightly signed policies bear the same revision number")
	g.halted(t, d, offer)
}

// fork is another revision of the newest number, rightly signed, in which mallory has what she wishes for.
func (g *ground) fork() statement.Proof {
	proofs := g.w.Chain.Proofs()
	doc, err := policy.Parse(proofs[len(proofs)-1].Payload)
	if err != nil {
		g.w.T.Fatal(err)
	}
	coup(doc)
	return g.w.SignPolicy(*doc, "dave", "frank")
}

// halted wants even an honest grant to start nothing.
func (g *ground) halted(t *testing.T, d broker.Dossier, offer forgerSigner) {
	t.Helper()
	since := g.since(t)
	g.turnedAway(t, "postgres", offer)
	if out := g.sudo(t, "erin", "postgres", "root"); strings.Contains(out, "uid=") {
		t.Errorf("%s: SUDO after a fork:\n%s", g.host, out)
	}
	g.said(t, since, "granting has stopped on this host")
	key := forger.Key(t)
	mine := with(g.w.Ask("mallory", "root", hostName(g.host), 600, key, nil))
	g.show(t, mine)
	g.nothingStarts(t, mine, "mallory", "root", forger.Offer(t, g.w.Certificate(mine, key, nil), key))
}

// overtaken: the stewards have signed two revisions that the owned broker keeps to itself. The first statement by
// somebody who has seen the newest stops the old rules; once the host has followed there is no way back.
func (g *ground) overtaken(t *testing.T) {
	first := g.w.Chain.Proofs()[0]
	g.wire.Pretend([]statement.Proof{first})
	for g.w.Chain.Ref().Revision < 3 { // policies, when it ran, has signed them already
		g.w.Adopt(g.w.SignPolicy(g.w.Next(removal), "dave", "frank"))
	}
	behind, err := policy.Genesis(first)
	if err != nil {
		t.Fatal(err)
	}
	key := forger.Key(t)
	d := g.w.Granted("erin", "keeper", hostName(g.host), 300, key, "gwen")
	offer := forger.Offer(t, g.w.Certificate(d, key, nil), key)
	t.Run("withheld: a request by one who has seen the newest revision", func(t *testing.T) {
		since := g.since(t)
		g.show(t, d)
		g.said(t, since, "behind: the request statement was made under policy revision 3, newest here is 1")
		g.nothingStarts(t, d, "erin", "postgres", offer)
	})
	now := g.w.Chain
	g.w.Chain = behind
	old := g.held(t) // still under the old rules, by people who have not seen the new
	g.w.Chain = now
	t.Run("followed: the same request opens, and what the newest revision removed ends", func(t *testing.T) {
		for _, p := range g.w.Chain.Proofs() {
			g.wire.ShowPolicy(p)
		}
		g.said(t, 0, "policy followed\" revision=3")
		g.opens(t, d)
		g.closed(t, old.d)
	})
	t.Run("rolled back: the broker begins again at revision 1", func(t *testing.T) {
		g.wire.Forget()
		g.show(t, old.d)
		g.wire.Become(g.w.Identity, nil)
		labtest.WaitFor(t, "the host listens again", 15*time.Second, func() bool { return g.wire.Listeners() > 0 })
		since := g.since(t)
		g.nothingStarts(t, old.d, "alice", "root", old.offer)
		g.said(t, since, "certificate refused")
	})
	g.honest(t)
	t.Run("forked: two rightly signed revisions of one number", func(t *testing.T) {
		g.forked(t)
		g.said(t, 0, "GRANTING STOPS: policy forked")
	})
}
