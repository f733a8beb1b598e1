//go:build lab

package lab

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// touches are the security keys that policy knows, beside the plain keys of the same people.
type touches struct{ alice, bob, mallory signtest.SecurityKey }

func newTouches() touches {
	return touches{forger.SecurityKey(), forger.SecurityKey(), forger.SecurityKey()}
}

// guard gives policy roles that want more than a plain signature and one yes, all of them alice's on every host.
func guard(t *testing.T, doc *policy.Document, keys touches) {
	t.Helper()
	doc.V = policy.Version
	for person, key := range map[statement.Person]signtest.SecurityKey{"alice": keys.alice, "bob": keys.bob, "mallory": keys.mallory} {
		entry := doc.People[person]
		entry.Keys = append(entry.Keys, keyOf(t, key))
		doc.People[person] = entry
	}
	doc.Groups["sre"], doc.Groups["security"] = []statement.Person{"bob", "carol"}, []statement.Person{"carol", "gwen"}
	role := doc.Roles["db-admin"]
	role.Hosts, role.Eligible = policy.Selector{Any: true}, []policy.Name{"alice"}
	role.Sudo = []policy.SudoRule{{As: "postgres", Commands: []policy.Command{policy.All}}}
	add := func(name statement.RoleName, change func(*policy.Role)) {
		r := role
		change(&r)
		doc.Roles[name] = r
	}
	add("touch", func(r *policy.Role) { r.Factors = policy.Factors{Ask: policy.SecurityKey, Approve: policy.SecurityKey} })
	add("touch-ask", func(r *policy.Role) { r.Factors.Ask = policy.SecurityKey })
	add("glass", func(r *policy.Role) { r.Approvals = policy.Approvals{None: true} })
	add("emergency", func(r *policy.Role) { r.Emergency = true })
	add("both", func(r *policy.Role) {
		r.Approvals.From, r.And = []policy.Name{"sre"}, []policy.Part{{Count: 1, From: []policy.Name{"security"}}}
	})
	add("later", func(r *policy.Role) {
		r.Approvals.From, r.Fallback = []policy.Name{"carol"}, []policy.Fallback{{After: 3600, From: []policy.Name{"gwen"}}}
	})
	add("worded", func(r *policy.Role) { r.ReasonLeast, r.Ticket, r.ApproverReason = 20, "INC-[0-9]+", true })
	dated := func(e policy.Eligibility) func(*policy.Role) {
		e.Who = "alice"
		return func(r *policy.Role) { r.Eligible, r.Dated = []policy.Name{"erin"}, []policy.Eligibility{e} }
	}
	add("not-yet", dated(policy.Eligibility{From: forger.Now() + 3600}))
	add("elsewhere", dated(policy.Eligibility{Hosts: &policy.Selector{Names: []statement.HostName{"db7"}}}))
	add("no-longer", dated(policy.Eligibility{Until: forger.Now() - 60}))
	add("given", func(r *policy.Role) {
		r.Eligible, r.Active = []policy.Name{"erin"}, []policy.Eligibility{{Who: "alice", Hosts: &policy.Selector{Names: []statement.HostName{"db7"}}}}
	})
}

// wish is alice's request for a role on this host, not yet signed.
func (a attempt) wish(role statement.RoleName) statement.Request {
	var body statement.Request
	a.Ask("alice", role, hostName(a.host), 600, a.key, func(r *statement.Request) { body = *r })
	return body
}

// nod is bob's yes to it, not yet signed.
func (a attempt) nod(r statement.Proof) statement.Decision {
	return statement.Decision{Head: a.Head(statement.KindDecision, "bob"), Request: r.Hash(), Verdict: statement.Approve}
}

// asked is alice's wish, signed by her security key with these flags, and approved by bob with his.
func (a attempt) touched(role statement.RoleName, alices, bobs byte) broker.Dossier {
	r := a.Untouched(a.wish(role), a.keys.alice.WithFlags(alices))
	return with(r, a.Untouched(a.nod(r), a.keys.bob.WithFlags(bobs)))
}

const (
	touched  = signtest.Presence
	verified = signtest.Presence | signtest.Verification
)

const unverified = "must be signed by a security key that verified its holder"

// recertified is a grant of alice's under a role that wants a touch, with a certificate statement for the attacker's key.
func (a attempt) recertified(signer ssh.Signer) broker.Dossier {
	body := a.wish("touch-ask")
	body.Keys = []statement.Key{keyOf(a.T, forger.Key(a.T))}
	r := a.SignAs(body, a.keys.alice)
	d := with(r, a.yes(r))
	c := statement.Certificate{Head: a.Head(statement.KindCertificate, "alice"), Grant: string(d.Stem().Grant()), Key: keyOf(a.T, a.key)}
	if key, soft := signer.(signtest.SecurityKey); soft {
		d.Certificates = []statement.Proof{a.Untouched(c, key)}
	} else {
		d.Certificates = []statement.Proof{a.SignAs(c, signer)}
	}
	return d
}

// What a role demands beside a signature and one yes is in the signed bytes, and so the host itself holds dossiers to it:
// the brokers that show these are the attacker's.
var factorForgeries = []forgery{
	{sentence: "a request by alice's plain key where a security key is wanted", wire: true, why: "the request " + unverified, forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "touch", hostName(a.host), 600, a.key, nil)
		return with(r, a.SignAs(a.nod(r), a.keys.bob))
	}},
	{sentence: "a request by alice's security key, which nobody unlocked", wire: true, why: "the request " + unverified, forge: func(a attempt) broker.Dossier {
		return a.touched("touch", touched, verified)
	}},
	{sentence: "a request by alice's security key, which nobody touched", wire: true, why: "made without touching the security key", forge: func(a attempt) broker.Dossier {
		return a.touched("touch", signtest.Verification, verified)
	}},
	{sentence: "a request by alice's security key without any flag", why: "made without touching the security key", forge: func(a attempt) broker.Dossier {
		return a.touched("touch", 0, verified)
	}},
	{sentence: "a request whose flags say verified after it was signed", wire: true, why: "request: signature 1: ", forge: func(a attempt) broker.Dossier {
		r := forger.Flagged(a.T, a.Untouched(a.wish("touch"), a.keys.alice.WithFlags(touched)), verified)
		return with(r, a.SignAs(a.nod(r), a.keys.bob))
	}},
	{sentence: "a request in alice's name by mallory's security key", why: "the request statement names alice but key", forge: func(a attempt) broker.Dossier {
		r := a.SignAs(a.wish("touch"), a.keys.mallory)
		return with(r, a.SignAs(a.nod(r), a.keys.bob))
	}},
	{sentence: "a request by a security key of the broker's own", wire: true, why: "the request statement names alice but key", forge: func(a attempt) broker.Dossier {
		r := a.SignAs(a.wish("touch"), forger.SecurityKey())
		return with(r, a.SignAs(a.nod(r), a.keys.bob))
	}},
	{sentence: "a yes by bob's plain key where a security key is wanted", wire: true, why: "the decision " + unverified, forge: func(a attempt) broker.Dossier {
		r := a.SignAs(a.wish("touch"), a.keys.alice)
		return with(r, a.yes(r))
	}},
	{sentence: "a yes by bob's security key, which nobody unlocked", wire: true, why: "the decision " + unverified, forge: func(a attempt) broker.Dossier {
		return a.touched("touch", verified, touched)
	}},
	{sentence: "a yes by bob's security key, which nobody touched", why: "decision: signature 1: made without touching", forge: func(a attempt) broker.Dossier {
		return a.touched("touch", verified, signtest.Verification)
	}},
	{sentence: "one more certificate, asked by alice's plain key", wire: true, why: "the certificate " + unverified, forge: func(a attempt) broker.Dossier {
		return a.recertified(a.People["alice"])
	}},
	{sentence: "one more certificate, by a security key that nobody unlocked", why: "the certificate " + unverified, forge: func(a attempt) broker.Dossier {
		return a.recertified(a.keys.alice.WithFlags(touched))
	}},
	{sentence: "one more certificate, by a security key that nobody touched", why: "certificate: signature 1: made without touching", forge: func(a attempt) broker.Dossier {
		return a.recertified(a.keys.alice.WithFlags(signtest.Verification))
	}},
	{sentence: "a role without approval, asked by a plain key", wire: true, why: "opens without approval, so it wants a security key's signature", forge: func(a attempt) broker.Dossier {
		return with(a.Ask("alice", "glass", hostName(a.host), 600, a.key, nil))
	}},
	{sentence: "a role without approval, by a security key that nobody touched", why: "made without touching the security key", forge: func(a attempt) broker.Dossier {
		return with(a.Untouched(a.wish("glass"), a.keys.alice.WithFlags(signtest.Verification)))
	}},
	{sentence: "an emergency, asked by a plain key", wire: true, why: "opens without approval, so it wants a security key's signature", forge: func(a attempt) broker.Dossier {
		return with(a.Ask("alice", "emergency", hostName(a.host), 600, a.key, nil))
	}},
	{sentence: "two groups, and a yes of one only", wire: true, why: "1 more approvals needed", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "both", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r))
	}},
	{sentence: "two groups, and one person who is in both", wire: true, why: "1 more approvals needed", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "both", hostName(a.host), 600, a.key, nil)
		return with(r, a.Approve("carol", r, nil))
	}},
	{sentence: "two groups, and one person of both twice", why: "carol approved more than once", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "both", hostName(a.host), 600, a.key, nil)
		return with(r, a.Approve("carol", r, nil), a.Approve("carol", r, nil))
	}},
	{sentence: "two groups, and a yes that was over before the other came", wire: true, why: "1 more approvals needed", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "both", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Created -= 300 })
		early := a.Approve("bob", r, func(d *statement.Decision) { d.Created, d.NotAfter = d.Created-200, d.Created-100 })
		return with(r, early, a.Approve("gwen", r, nil))
	}},
	{sentence: "a stand-in's yes before her time", wire: true, why: "gwen is no approver of later", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "later", hostName(a.host), 600, a.key, nil)
		return with(r, a.Approve("gwen", r, nil))
	}},
	{sentence: "a reason that is too short", why: "role worded wants 20 or more", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "worded", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Reason, r.Ticket = "please", "INC-42" })
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Reason = "yes" }))
	}},
	{sentence: "a ticket that only begins like one", why: "is not such as role worded wants", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "worded", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Reason, r.Ticket = strings.Repeat("long ", 5), "INC-42; x" })
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Reason = "yes" }))
	}},
	{sentence: "a yes without the reason that the role wants", wire: true, why: "bob gave no reason", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "worded", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Reason, r.Ticket = strings.Repeat("long ", 5), "INC-42" })
		return with(r, a.yes(r))
	}},
	{sentence: "an eligibility that has not begun", wire: true, why: "alice is not eligible for role not-yet", forge: func(a attempt) broker.Dossier { return a.plain("not-yet") }},
	{sentence: "an eligibility that is over", wire: true, why: "alice is not eligible for role no-longer", forge: func(a attempt) broker.Dossier { return a.plain("no-longer") }},
	{sentence: "an eligibility for other hosts", wire: true, why: "alice is not eligible for role elsewhere", forge: func(a attempt) broker.Dossier { return a.plain("elsewhere") }},
	{sentence: "a standing assignment on other hosts, asked here without approval", wire: true, why: "1 more approvals needed", forge: func(a attempt) broker.Dossier {
		d := a.plain("given")
		d.Decisions = nil
		return d
	}},
}

// plain is alice's request for a role, approved by bob, both with plain keys.
func (a attempt) plain(role statement.RoleName) broker.Dossier {
	r := a.Ask("alice", role, hostName(a.host), 600, a.key, nil)
	return with(r, a.yes(r))
}

// guarded: each role that a forgery was refused under opens for what people really signed.
func (g *ground) guarded(t *testing.T) {
	for sentence, forge := range map[string]func(a attempt) broker.Dossier{
		"asked and approved by security keys that verified their holders": func(a attempt) broker.Dossier { return a.touched("touch", verified, verified) },
		"one more certificate, by a security key that verified":           func(a attempt) broker.Dossier { return a.recertified(a.keys.alice) },
		"without approval, by a security key that was touched":            func(a attempt) broker.Dossier { return with(a.touched("glass", touched, verified).Request) },
		"an emergency, by a security key that was touched":                func(a attempt) broker.Dossier { return with(a.touched("emergency", touched, verified).Request) },
		"two groups and two people": func(a attempt) broker.Dossier {
			d := a.plain("both")
			return with(d.Request, d.Decisions[0], a.Approve("gwen", d.Request, nil))
		},
		"two groups, and the one of both counted where he is needed": func(a attempt) broker.Dossier {
			d := a.plain("both")
			return with(d.Request, d.Decisions[0], a.Approve("carol", d.Request, nil))
		},
		"a stand-in after the time": func(a attempt) broker.Dossier {
			r := a.Ask("alice", "later", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Created -= 3700 })
			return with(r, a.Approve("gwen", r, nil))
		},
		"with the words that the role wants": func(a attempt) broker.Dossier {
			r := a.Ask("alice", "worded", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Reason, r.Ticket = strings.Repeat("long ", 5), "INC-42" })
			return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Reason = "yes" }))
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			a := attempt{g, g.w, forger.Key(t)}
			d := forge(a)
			since := g.since(t)
			g.show(t, d)
			g.opens(t, d)
			g.entered(t, "postgres", forger.Offer(t, g.w.Certificate(d, a.key, nil), a.key))
			if alarm := strings.Contains(g.read(t)[since:], "A GRANT OPENS THAT NOBODY APPROVED\" grant="+string(d.Stem().Grant())); alarm != (len(d.Decisions) == 0) {
				t.Errorf("rang: %v\n%s", alarm, g.read(t)[since:])
			}
			g.end(t, d)
		})
	}
}

// rings: the host says by itself that a grant opened which nobody approved, whatever the broker that showed it does next:
// takes it back at once, says it never was, or says no more.
func (g *ground) rings(t *testing.T) {
	for sentence, then := range map[string]func(d broker.Dossier){
		"revoked at the moment it opened": func(d broker.Dossier) { g.wire.End(d, broker.EndedByRevoke) },
		"shown again as ended": func(d broker.Dossier) {
			d.Ended = &broker.Ended{How: broker.EndedByWithdraw, At: forger.Now()}
			g.wire.Show(d)
		},
		"silent from then on": func(broker.Dossier) { g.wire.Freeze(true, 0) },
	} {
		t.Run(sentence, func(t *testing.T) {
			a := attempt{g, g.w, forger.Key(t)}
			d := with(a.touched("emergency", touched, verified).Request)
			g.show(t, d)
			g.opens(t, d)
			then(d)
			alerts := g.do(t, "journalctl -q -o cat --no-pager -p alert -u pim-hostd --grep="+string(d.Stem().Grant()))
			if strings.Count(alerts, "level=ALERT") != 1 || !strings.Contains(alerts, "person=alice") {
				t.Errorf("%s: at priority alert the journal says:\n%s", g.host, alerts)
			}
			g.wire.Freeze(false, 0)
			g.end(t, d)
		})
	}
}
