package broker

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

var db1 = Host{Name: "db1", Labels: map[string]string{"tier": "db"}}

// attacker is whoever holds every broker key, the whole log, and every statement people ever signed.
type attacker struct {
	*scene
	request statement.Proof // alice asks for db-admin on db1 and db2, 30 minutes; nobody but the case has decided
	yes     statement.Proof // bob's approval of it
}

func (sc *scene) dossier(request statement.Proof, decisions ...statement.Proof) Dossier {
	return Dossier{Request: request, Decisions: decisions}
}

// decides signs a changed decision with any key.
func (sc *scene) decides(signer ssh.Signer, d statement.Decision, change func(*statement.Decision)) statement.Proof {
	sc.t.Helper()
	change(&d)
	return sc.sign(d, signer)
}

// requests signs a changed request with any key.
func (sc *scene) requests(signer ssh.Signer, r statement.Request, change func(*statement.Request)) statement.Proof {
	sc.t.Helper()
	change(&r)
	return sc.sign(r, signer)
}

func TestProveRefusesForgedDossiers(t *testing.T) {
	cases := map[string]struct {
		forge func(a attacker) Dossier
		kind  Kind
		why   string
	}{
		"an invented grant: a request and no approval": {
			func(a attacker) Dossier { return a.dossier(a.request) }, Denied, "1 more approvals needed"},
		"an invented grant: nothing at all": {
			func(attacker) Dossier { return Dossier{} }, Invalid, "payload"},
		"an invented request: alice's name, mallory's key": {
			func(a attacker) Dossier {
				p := a.sign(a.scene.request("alice", "db-admin", "db1"), key("mallory"))
				return a.dossier(p, a.approves("bob", p))
			}, Denied, "not theirs"},
		"a request of somebody who is not eligible": {
			func(a attacker) Dossier {
				p := a.asks("mallory", "db-admin", "db1")
				return a.dossier(p, a.approves("bob", p))
			}, Missing, "not eligible"},
		"a request for a role that does not exist": {
			func(a attacker) Dossier {
				p := a.asks("alice", "db-owner", "db1")
				return a.dossier(p, a.approves("bob", p))
			}, Missing, "no role"},
		"a request changed after approval": {
			func(a attacker) Dossier {
				wider := a.requests(key("alice"), a.scene.request("alice", "db-admin", "db1"), func(r *statement.Request) { r.Duration = 7200 })
				return a.dossier(wider, a.yes)
			}, Denied, "bob decided"},
		"a request whose bytes were changed": {
			func(a attacker) Dossier {
				p := a.request
				p.Payload = []byte(strings.Replace(string(p.Payload), `"duration":1800`, `"duration":1801`, 1))
				return a.dossier(p, a.yes)
			}, Invalid, "signature"},
		"a forged approval: bob's name, mallory's key": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.sign(a.decision("bob", statement.Approve, a.request), key("mallory")))
			}, Denied, "not theirs"},
		"a forged approval: bob's name, alice's key": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.sign(a.decision("bob", statement.Approve, a.request), key("alice")))
			}, Denied, "not theirs"},
		"a forged approval: bob's signature under other bytes": {
			func(a attacker) Dossier {
				p := a.yes
				p.Payload = []byte(strings.Replace(string(p.Payload), `"person":"bob"`, `"person":"gwen"`, 1))
				return a.dossier(a.request, p)
			}, Invalid, "signature"},
		"a denial turned into an approval": {
			func(a attacker) Dossier {
				p := a.denies("bob", a.request)
				p.Payload = []byte(strings.Replace(string(p.Payload), `"verdict":"deny"`, `"verdict":"approve"`, 1))
				return a.dossier(a.request, p)
			}, Invalid, "signature"},
		"an approval of another request": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.approves("bob", a.asks("alice", "db-admin", "db1")))
			}, Denied, "bob decided"},
		"an unknown approver": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.sign(a.decision("nobody", statement.Approve, a.request), key("nobody")))
			}, Denied, "not theirs"},
		"a known person who is no approver": {
			func(a attacker) Dossier { return a.dossier(a.request, a.approves("mallory", a.request)) }, Denied, "no approver"},
		"a steward, who is no approver": {
			func(a attacker) Dossier { return a.dossier(a.request, a.approves("dave", a.request)) }, Denied, "no approver"},
		"the asker as approver": {
			func(a attacker) Dossier {
				p := a.asks("bob", "root", "db1")
				return a.dossier(p, a.approves("bob", p), a.approves("carol", p))
			}, Denied, "of their own"},
		"the asker as approver with a second key": {
			func(a attacker) Dossier {
				p := a.asks("bob", "root", "db1")
				return a.dossier(p, a.sign(a.decision("bob", statement.Approve, p), key("bob 2")), a.approves("carol", p))
			}, Denied, "of their own"},
		"one person with two keys": {
			func(a attacker) Dossier {
				p := a.asks("alice", "root", "db1")
				return a.dossier(p, a.approves("bob", p), a.sign(a.decision("bob", statement.Approve, p), key("bob 2")))
			}, Denied, "more than once"},
		"one approval twice": {
			func(a attacker) Dossier {
				p := a.asks("alice", "root", "db1")
				yes := a.approves("bob", p)
				return a.dossier(p, yes, yes)
			}, Denied, "more than once"},
		"wider hosts than were asked": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.decides(key("bob"), a.decision("bob", statement.Approve, a.request), func(d *statement.Decision) {
					d.Hosts = []statement.HostName{"db1", "db3"}
				}))
			}, Invalid, "does not name"},
		"a longer window than was asked": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.decides(key("bob"), a.decision("bob", statement.Approve, a.request), func(d *statement.Decision) {
					d.Duration = 1801
				}))
			}, Invalid, "were asked"},
		"an approval made after the request expired": {
			func(a attacker) Dossier {
				a.now += 3601
				return a.dossier(a.request, a.approves("bob", a.request))
			}, Expired, "after it expired"},
		"approvals that leave no host": {
			func(a attacker) Dossier {
				p := a.asks("alice", "root", "db1", "db2")
				only := func(person statement.Person, host statement.HostName) statement.Proof {
					return a.decides(key(string(person)), a.decision(person, statement.Approve, p), func(d *statement.Decision) { d.Hosts = []statement.HostName{host} })
				}
				return a.dossier(p, only("bob", "db1"), only("carol", "db2"))
			}, Denied, "no host"},
		"a denial beside a full quorum": {
			func(a attacker) Dossier { return a.dossier(a.request, a.yes, a.denies("carol", a.request)) }, Denied, "carol denied"},
		"a denial before the approval": {
			func(a attacker) Dossier { return a.dossier(a.request, a.denies("carol", a.request), a.yes) }, Denied, "carol denied"},
		"a revoked grant shown again": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Ended = &Ended{How: EndedByRevoke, At: a.now}
				return d
			}, Denied, "ended by revoke"},
		"a returned grant shown again": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Ended = &Ended{How: EndedByReturn, At: a.now}
				return d
			}, Denied, "ended by return"},
		"an end in words nobody knows": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Ended = &Ended{}
				return d
			}, Denied, "ended by"},
		"a certificate statement by another person": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Certificates = []statement.Proof{a.certifies("mallory", a.request, "mallory laptop")}
				return d
			}, Denied, "mallory asks for a certificate"},
		"a certificate statement in alice's name by another": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Certificates = []statement.Proof{a.sign(statement.Certificate{
					Head: a.head(statement.KindCertificate, "alice"), Grant: string(d.Stem().Grant()), Key: publicKeyOf("mallory laptop"),
				}, key("mallory"))}
				return d
			}, Denied, "not theirs"},
		"a certificate statement for another grant": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Certificates = []statement.Proof{a.certifies("alice", a.yes, "alice desk")}
				return d
			}, Denied, "not for"},
		"a certificate statement made after the window": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				a.now += 1800
				d.Certificates = []statement.Proof{a.certifies("alice", a.request, "alice desk")}
				return d
			}, Expired, "lapsed"},
		"a certificate for the key of another person": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Certificates = []statement.Proof{a.certifies("alice", a.request, "mallory")}
				return d
			}, Denied, "belongs to mallory"},
		"a request that names the key of another person": {
			func(a attacker) Dossier {
				p := a.requests(key("alice"), a.scene.request("alice", "db-admin", "db1"), func(r *statement.Request) { r.Keys = []statement.Key{publicKeyOf("mallory")} })
				return a.dossier(p, a.approves("bob", p))
			}, Denied, "belongs to mallory"},
		"an approval where the request belongs": {
			func(a attacker) Dossier { return a.dossier(a.yes, a.yes) }, Invalid, "another kind"},
		"a request where an approval belongs": {
			func(a attacker) Dossier { return a.dossier(a.request, a.request) }, Invalid, "another kind"},
		"an approval where a certificate statement belongs": {
			func(a attacker) Dossier {
				d := a.dossier(a.request, a.yes)
				d.Certificates = []statement.Proof{a.yes}
				return d
			}, Invalid, "another kind"},
		"a request of another deployment": {
			func(a attacker) Dossier {
				p := a.requests(key("alice"), a.scene.request("alice", "db-admin", "db1"), func(r *statement.Request) { r.Deployment = statement.HashOf([]byte("x")) })
				return a.dossier(p, a.approves("bob", p))
			}, Denied, "another deployment"},
		"an approval of another deployment": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.decides(key("bob"), a.decision("bob", statement.Approve, a.request), func(d *statement.Decision) {
					d.Deployment = statement.HashOf([]byte("x"))
				}))
			}, Denied, "another deployment"},
		"a request under a foreign policy": {
			func(a attacker) Dossier {
				p := a.requests(key("alice"), a.scene.request("alice", "db-admin", "db1"), func(r *statement.Request) { r.Policy.Hash = statement.HashOf([]byte("x")) })
				return a.dossier(p, a.approves("bob", p))
			}, Denied, "foreign"},
		"a judge who is behind the approver's policy": {
			func(a attacker) Dossier {
				return a.dossier(a.request, a.decides(key("bob"), a.decision("bob", statement.Approve, a.request), func(d *statement.Decision) {
					d.Policy.Revision = 2
				}))
			}, Unavailable, "behind"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			a := attacker{scene: sc, request: sc.asks("alice", "db-admin", "db1", "db2")}
			a.yes = a.approves("bob", a.request)
			g, err := Prove(sc.chain, c.forge(a))
			if KindOf(err) != c.kind || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v (%s), want %s: %s", err, KindOf(err), c.kind, c.why)
			}
			if g.ID != "" || g.LiveOn(db1, sc.now) == nil {
				t.Errorf("a refused dossier left a grant: %+v", g)
			}
		})
	}
}

func TestJudgeRefusesARealGrantWhereOrWhenItDoesNotHold(t *testing.T) {
	cases := map[string]struct {
		host Host
		at   statement.Seconds // after the approval
		kind Kind
		why  string
	}{
		"inside its window on its host":            {db1, 0, "", ""},
		"in the window's last second":              {db1, 1799, "", ""},
		"later window: at its end":                 {db1, 1800, Expired, "lapsed"},
		"later window: a day later":                {db1, 86400, Expired, "lapsed"},
		"a second before it was approved":          {db1, -1, Denied, "starts at"},
		"on a clock more than a minute behind":     {db1, -61, Denied, "in the future"},
		"on a clock at 1970":                       {db1, -statement.Seconds(dawn), Denied, "in the future"},
		"after the policy expired":                 {db1, 90 * statement.Day, Denied, "policy expired"},
		"wider hosts: one it does not name":        {Host{Name: "web1", Labels: db1.Labels}, 0, Denied, "does not name"},
		"another host with the same labels":        {Host{Name: "db9", Labels: db1.Labels}, 0, Denied, "does not name"},
		"its host with labels that do not match":   {Host{Name: "db1", Labels: map[string]string{"tier": "web"}}, 0, Denied, "does not reach"},
		"its host without labels":                  {Host{Name: "db1"}, 0, Denied, "does not reach"},
		"a host without a name":                    {Host{Labels: db1.Labels}, 0, Denied, "does not name"},
		"its host by a name of the same beginning": {Host{Name: "db", Labels: db1.Labels}, 0, Denied, "does not name"},
	}
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	d := sc.dossier(p, sc.approves("bob", p))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Judge(sc.chain, d, c.host, sc.now.Add(c.at))
			if KindOf(err) != c.kind || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v (%s), want %q: %s", err, KindOf(err), c.kind, c.why)
			}
		})
	}
}

func TestTheZeroValuesDeny(t *testing.T) {
	sc := newScene(t)
	p := sc.asks("alice", "db-admin", "db1")
	d := sc.dossier(p, sc.approves("bob", p))
	if _, err := Prove(policy.Chain{}, d); KindOf(err) != Denied {
		t.Errorf("a chain without policy: %v", err)
	}
	if err := (Grant{}).LiveOn(Host{}, 0); err == nil {
		t.Error("the zero grant is live")
	}
	if err := (Grant{}).LiveOn(db1, sc.now); err == nil {
		t.Error("the zero grant is live on db1")
	}
	if phase := (Grant{}).Phase(sc.now); phase != PhaseLapsed {
		t.Errorf("the zero grant is %s", phase)
	}
	if Kind("").HTTPStatus() != 500 || Kind("").ExitCode() != 1 {
		t.Error("the zero kind is no fault")
	}
}

// The window is a pure function of signed bytes: FORMATS.md.
func TestTheWindowFollowsFromSignedBytes(t *testing.T) {
	type yes struct {
		person   statement.Person
		after    statement.Seconds
		duration statement.Seconds
		hosts    []statement.HostName
	}
	cases := map[string]struct {
		role        statement.RoleName
		at          statement.Seconds
		approvals   []yes
		from, until statement.Seconds // after the request's created
		hosts       []statement.HostName
	}{
		"from the approval":              {"db-admin", 0, []yes{{"bob", 60, 0, nil}}, 60, 60 + 1800, []statement.HostName{"db1", "db2"}},
		"from the last of two approvals": {"root", 0, []yes{{"bob", 60, 0, nil}, {"carol", 90, 0, nil}}, 90, 90 + 1800, []statement.HostName{"db1", "db2"}},
		"from the earliest full set, whatever comes after": {"db-admin", 0, []yes{{"bob", 60, 0, nil}, {"carol", 90, 0, nil}},
			60, 60 + 1800, []statement.HostName{"db1", "db2"}},
		"from the scheduled start":                             {"db-admin", 600, []yes{{"bob", 60, 0, nil}}, 600, 600 + 1800, []statement.HostName{"db1", "db2"}},
		"from an approval after the scheduled start":           {"db-admin", 600, []yes{{"bob", 660, 0, nil}}, 660, 660 + 1800, []statement.HostName{"db1", "db2"}},
		"from the request when the approver's clock is behind": {"db-admin", 0, []yes{{"bob", -30, 0, nil}}, 0, 1800, []statement.HostName{"db1", "db2"}},
		"as short as the shortest narrowing":                   {"root", 0, []yes{{"bob", 0, 1200, nil}, {"carol", 0, 600, nil}}, 0, 600, []statement.HostName{"db1", "db2"}},
		"on the hosts every approver left":                     {"root", 0, []yes{{"bob", 0, 0, []statement.HostName{"db2"}}, {"carol", 0, 0, nil}}, 0, 1800, []statement.HostName{"db2"}},
		"narrowed by an approval that does not count": {"db-admin", 0, []yes{{"bob", 0, 0, nil}, {"mallory", 0, 300, []statement.HostName{"db1"}}},
			0, 300, []statement.HostName{"db1"}},
		"from a role that needs nobody": {"web-deploy", 0, nil, 0, 1800, []statement.HostName{"db1", "db2"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			start := sc.now
			p := sc.requests(key("alice"), sc.request("alice", c.role, "db1", "db2"), func(r *statement.Request) {
				if c.at != 0 {
					r.At = start.Add(c.at)
				}
			})
			d := sc.dossier(p)
			for _, a := range c.approvals {
				sc.now = start.Add(a.after)
				d.Decisions = append(d.Decisions, sc.decides(key(string(a.person)), sc.decision(a.person, statement.Approve, p), func(d *statement.Decision) {
					d.Duration, d.Hosts = a.duration, a.hosts
				}))
			}
			for range 2 {
				g, err := Prove(sc.chain, d)
				if err != nil {
					t.Fatal(err)
				}
				if g.From != start.Add(c.from) || g.Until != start.Add(c.until) || !slices.Equal(g.Hosts, c.hosts) {
					t.Errorf("window [%s, %s) on %v, want [%s, %s) on %v", g.From, g.Until, g.Hosts, start.Add(c.from), start.Add(c.until), c.hosts)
				}
				slices.Reverse(d.Decisions) // the order in which they arrived means nothing
			}
		})
	}
}
