//go:build lab

package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// A summons is a token file by which an attacker wants to make a machine a host of something else than the operator
// meant, and the words in which `pim-hostd enrol` refuses it.
type summons struct {
	sentence string
	forge    func(c call) forger.TokenFile
	why      string
}

// call is what a summons is made from.
type call struct {
	*siege
	name statement.HostName
	own  *forger.World // a deployment of the attacker's own, in which mallory is everything
}

var tier = map[string]string{"tier": "db"}

// real is the operator's own token.
func (c call) real(bend func(*statement.HostToken)) forger.TokenFile {
	return c.w.TokenBy("dave", c.w.People["dave"], c.name, tier, bend)
}

var summonses = []summons{
	{"a token signed by the broker in the operator's name", func(c call) forger.TokenFile {
		return c.w.TokenBy("dave", c.w.Broker(), c.name, tier, nil)
	}, "the token is not signed by an operator"},
	{"a token by an approver, who is no operator", func(c call) forger.TokenFile {
		return c.w.TokenBy("bob", c.w.People["bob"], c.name, tier, nil)
	}, "the token is not signed by an operator"},
	{"a token by somebody policy does not know", func(c call) forger.TokenFile {
		return c.w.TokenBy("zed", forger.Key(c.w.T), c.name, tier, nil)
	}, "the token is not signed by an operator"},
	{"the operator's token for another deployment", func(c call) forger.TokenFile {
		f := c.twin.TokenBy("dave", c.w.People["dave"], c.name, tier, nil)
		f.Chain = c.w.Chain.Proofs()
		return f
	}, "the token is for another deployment than its chain"},
	{"the operator's token with another deployment's chain", func(c call) forger.TokenFile {
		f := c.real(nil)
		f.Chain = c.twin.Chain.Proofs()
		return f
	}, "the token is for another deployment than its chain"},
	{"the operator's token with the attacker's chain", func(c call) forger.TokenFile {
		f := c.real(nil)
		f.Chain = c.own.Chain.Proofs()
		return f
	}, "the token is for another deployment than its chain"},
	{"the operator's token, changed to name other labels", func(c call) forger.TokenFile {
		f := c.real(nil)
		f.Token = forger.Edited(c.w.T, f.Token, `"tier":"db"`, `"tier":"web"`)
		return f
	}, "host-token: signature 1: "},
	{"the operator's token, changed to name another host", func(c call) forger.TokenFile {
		f := c.real(func(t *statement.HostToken) { t.Addresses = []string{"10.77.0.24"} })
		f.Token = forger.Edited(c.w.T, f.Token, `"name":"h4"`, `"name":"db1"`)
		return f
	}, "host-token: signature 1: "},
	{"the operator's token with a secret of the broker's", func(c call) forger.TokenFile {
		f := c.real(nil)
		_, f.Secret, _ = ed25519.GenerateKey(rand.Reader)
		return f
	}, "the secret is not the one the token names"},
	{"a token that has expired", func(c call) forger.TokenFile {
		return c.real(func(t *statement.HostToken) { t.Created, t.Expires = t.Created-100, t.Created-10 })
	}, "the token expired at"},
	{"a token that names a revision its chain lacks", func(c call) forger.TokenFile {
		return c.real(func(t *statement.HostToken) { t.Policy.Revision = 7 })
	}, "a policy revision that is not in its chain"},
	{"the operator's token with one more policy, signed by the broker", func(c call) forger.TokenFile {
		f := c.real(nil)
		f.Chain = append(f.Chain, c.w.SignPolicyAs(c.w.Next(coup), c.w.Broker()))
		return f
	}, "is no steward's"},
	{"the operator's token with a first policy that too few stewards signed", func(c call) forger.TokenFile {
		f := c.real(nil)
		first := f.Chain[0]
		f.Chain = []statement.Proof{{Payload: first.Payload, Signatures: first.Signatures[:1]}}
		return f
	}, "1 of 2 needed stewards signed"},
	{"the operator's request in the place of a token", func(c call) forger.TokenFile {
		f := c.real(nil)
		f.Token = c.w.Ask("dave", "root", c.name, 600, forger.Key(c.w.T), nil)
		return f
	}, "holds no host token"},
}

// enrolment: a machine that is not enrolled takes nothing but the operator's word, one that is takes nothing at all, and a
// copy of one is not it. What `enrol` cannot tell apart is a whole deployment of somebody else's, rightly signed by its own
// operator: that file must be handed to root by hand, and an enrolled host never reads one.
func (s *siege) enrolment(t *testing.T, db1 *ground, fresh string) {
	own := forger.New(t, func(doc *policy.Document) {
		doc.Stewards, doc.Operators = policy.Stewards{Threshold: 1, People: []statement.Person{"mallory"}}, []statement.Person{"mallory"}
		b1 := doc.Brokers["b1"]
		b1.CA = keyOf(t, s.w.CA) // the one CA that hosts already trust
		doc.Brokers["b1"] = b1
		coup(doc)
	})
	own.CA = s.w.CA
	h4 := s.look(t, fresh)
	c := call{s, hostName(fresh), own}
	for _, m := range summonses {
		t.Run(m.sentence, func(t *testing.T) {
			h4.summon(t, m.forge(c).File(t), m.why)
			if left := h4.do(t, "ls /var/lib/pim-ssh/host/enrolment.json /var/lib/pim-ssh/host/policy/* 2>/dev/null"); left != "" {
				t.Errorf("the machine is enrolled all the same:\n%s", left)
			}
		})
	}
	t.Run("a copy of db1's disk on another machine", func(t *testing.T) { h4.copied(t, db1) })
	another := call{s, "db1", own}
	db1.honest(t)
	t.Run("an enrolled host, and the operator's token once more", func(t *testing.T) {
		db1.summon(t, another.real(nil).File(t), "this host is enrolled already")
	})
	t.Run("an enrolled host, and a whole deployment of the attacker's", func(t *testing.T) {
		db1.summon(t, own.TokenBy("mallory", own.People["mallory"], "db1", tier, nil).File(t), "this host is enrolled already")
	})
	t.Run("an enrolled host whose enrolment is replaced by the attacker's", func(t *testing.T) { db1.replaced(t, own) })
	db1.honest(t)
}

// summon wants a token file refused.
func (g *ground) summon(t *testing.T, file []byte, why string) {
	t.Helper()
	g.Put(t, g.host, "/root/summons", 0o600, file)
	if got := g.do(t, "pim-hostd enrol /root/summons; echo exit $?"); !strings.Contains(got, why) || !strings.Contains(got, "exit 1\n") {
		t.Errorf("%s: want %q and exit 1:\n%s", g.host, why, got)
	}
}

// copied puts another host's spool on this machine, identity, live grant and all.
func (g *ground) copied(t *testing.T, from *ground) {
	key := forger.Key(t)
	d := g.w.Granted("erin", "keeper", hostName(from.host), 300, key, "gwen")
	from.show(t, d)
	from.opens(t, d)
	image := from.do(t, "tar -C /var/lib/pim-ssh -cz --exclude=floor host | base64")
	g.Put(t, g.host, "/root/image", 0o600, []byte(image))
	g.do(t, "base64 -d /root/image | tar -C /var/lib/pim-ssh -xz")
	since := g.since(t)
	g.do(t, "systemctl start pim-hostd.socket pim-hostd.service")
	g.said(t, since, "this spool belongs to another machine-id")
	g.nothingStarts(t, d, "erin", "postgres", forger.Offer(t, g.w.Certificate(d, key, nil), key))
	g.do(t, "systemctl stop pim-hostd.socket pim-hostd.service; rm -rf /var/lib/pim-ssh/host")
	from.end(t, d)
}

// replaced: whoever can do this is root there already; the host stops granting all the same, and says so.
func (g *ground) replaced(t *testing.T, own *forger.World) {
	mine := g.Get(t, g.host, "/var/lib/pim-ssh/host/enrolment.json")
	g.put(t, own.TokenBy("mallory", own.People["mallory"], "db1", tier, nil).File(t), "enrolment.json")
	key := forger.Key(t)
	d := with(own.Ask("mallory", "root", hostName(g.host), 600, key, nil))
	since := g.since(t)
	g.show(t, d)
	g.nothingStarts(t, d, "mallory", "root", forger.Offer(t, own.Certificate(d, key, nil), key))
	g.said(t, since, "granting has stopped on this host")
	g.do(t, "rm /var/lib/pim-ssh/host/dossiers/"+string(d.Stem())+".json")
	g.put(t, mine, "enrolment.json")
	since = g.since(t)
	g.do(t, "systemctl reload pim-hostd")
	g.said(t, since, "spool read")
}
