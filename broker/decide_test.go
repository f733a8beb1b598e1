package broker

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// refusal is one case of a statement that Decide refuses. Recorded ones leave a StatementRefused and nothing else.
type refusal struct {
	file     func(sc *scene) statement.Proof
	kind     Kind
	why      string
	recorded bool
}

func (c refusal) run(t *testing.T) {
	sc := newScene(t)
	p := c.file(sc)
	requests := sc.s.Requests()
	d, err := sc.file(p)
	refused, ok := err.(*Error)
	if !ok || refused.Kind != c.kind || !strings.Contains(refused.Msg, c.why) {
		t.Fatalf("got %v (%s), want %s: %s", err, KindOf(err), c.kind, c.why)
	}
	if !c.recorded {
		wantKinds(t, d.Events)
		return
	}
	wantKinds(t, d.Events, "StatementRefused")
	if diff := cmp.Diff(requests, sc.s.Requests(), cmp.AllowUnexported(Request{}, decided{})); diff != "" {
		t.Fatalf("a refused statement changed requests: %s", diff)
	}
	again, repeated := sc.file(p)
	if diff := cmp.Diff(refused, repeated); diff != "" || len(again.Events) != 0 || again.Outcome != d.Outcome {
		t.Fatalf("repeated: %v, %v, %+v want %+v", kinds(again.Events), diff, again.Outcome, d.Outcome)
	}
}

func asking(change func(*statement.Request)) func(sc *scene) statement.Proof {
	return func(sc *scene) statement.Proof {
		return sc.requests(key("alice"), sc.request("alice", "db-admin", "db1"), change)
	}
}

func TestARequestIsRefused(t *testing.T) {
	cases := map[string]refusal{
		"for a role that does not exist": {asking(func(r *statement.Request) { r.Role = "db-owner" }), Missing, "no role", true},
		"by somebody not eligible": {func(sc *scene) statement.Proof { return sc.asks("mallory", "db-admin", "db1") },
			Missing, "not eligible", true},
		"for a host that is not enrolled": {asking(func(r *statement.Request) { r.Hosts = []statement.HostName{"db9"} }), Missing, "no host db9", true},
		"for a host the role does not reach": {asking(func(r *statement.Request) { r.Hosts = []statement.HostName{"db1", "web1"} }),
			Denied, "does not reach host web1", true},
		"for longer than the role allows":       {asking(func(r *statement.Request) { r.Duration = 4*3600 + 1 }), Denied, "4h0m0s, the longest", true},
		"that would stay open too long":         {asking(func(r *statement.Request) { r.Expires = r.Created.Add(statement.Day + 1) }), Denied, "stay open", true},
		"that has expired":                      {asking(func(r *statement.Request) { r.Created -= 30; r.Expires = r.Created + 30 }), Expired, "expired at", true},
		"that names another person's key":       {asking(func(r *statement.Request) { r.Keys = []statement.Key{publicKeyOf("erin")} }), Denied, "belongs to erin", true},
		"under a foreign policy":                {asking(func(r *statement.Request) { r.Policy.Hash = statement.HashOf(nil) }), Denied, "foreign", true},
		"under a policy nobody here has seen":   {asking(func(r *statement.Request) { r.Policy.Revision = 2 }), Unavailable, "behind", false},
		"of another deployment":                 {asking(func(r *statement.Request) { r.Deployment = statement.HashOf(nil) }), Denied, "another deployment", false},
		"made more than a minute ago":           {asking(func(r *statement.Request) { r.Created -= 61 }), Expired, "too old", false},
		"made more than a minute in the future": {asking(func(r *statement.Request) { r.Created += 61; r.NotAfter += 61 }), Denied, "in the future", false},
		"after its own not_after":               {asking(func(r *statement.Request) { r.Created -= 30; r.NotAfter = r.Created + 29 }), Expired, "too old", false},
		"signed by another person": {func(sc *scene) statement.Proof {
			return sc.sign(sc.request("alice", "db-admin", "db1"), key("erin"))
		}, Denied, "not theirs", false},
		"signed by nobody we know": {func(sc *scene) statement.Proof {
			return sc.sign(sc.request("alice", "db-admin", "db1"), key("stranger"))
		}, Denied, "not theirs", false},
		"while the same one is pending": {func(sc *scene) statement.Proof {
			sc.must(sc.asks("alice", "db-admin", "db1"))
			return sc.asks("alice", "db-admin", "db1")
		}, Conflict, "still pending", true},
		"after the policy expired": {func(sc *scene) statement.Proof {
			sc.now += statement.Time(90 * statement.Day)
			return sc.asks("alice", "db-admin", "db1")
		}, Denied, "policy expired", true},
		"while the policy is forked": {func(sc *scene) statement.Proof {
			sc.fork()
			return sc.asks("alice", "db-admin", "db1")
		}, Denied, "signed twice", true},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

// fork has two policies of one number signed and shown.
func (sc *scene) fork() {
	sc.t.Helper()
	one := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7200 }))
	two := sc.revises(changeRole("root", func(r *policy.Role) { r.Longest = 7201 }))
	sc.must(one)
	sc.refused(Conflict, two)
}

// deciding files a decision on alice's request for root on db1, which needs two.
func deciding(file func(sc *scene, request statement.Proof) statement.Proof) func(sc *scene) statement.Proof {
	return func(sc *scene) statement.Proof {
		p := sc.asks("alice", "root", "db1")
		sc.must(p)
		return file(sc, p)
	}
}

func TestADecisionIsRefused(t *testing.T) {
	cases := map[string]refusal{
		"on a request nobody filed": {func(sc *scene) statement.Proof { return sc.approves("bob", sc.asks("alice", "root", "db1")) },
			Missing, "no request", true},
		"by the asker": {func(sc *scene) statement.Proof {
			p := sc.asks("bob", "root", "db1")
			sc.must(p)
			return sc.approves("bob", p)
		}, Denied, "of their own", true},
		"by the asker with a second key": {func(sc *scene) statement.Proof {
			p := sc.asks("bob", "root", "db1")
			sc.must(p)
			return sc.sign(sc.decision("bob", statement.Approve, p), key("bob 2"))
		}, Denied, "of their own", true},
		"by nobody in particular":                {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.approves("mallory", p) }), Missing, "no request", true},
		"as a denial by nobody in particular":    {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.denies("mallory", p) }), Missing, "no request", true},
		"by an operator who approves nothing":    {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.approves("dave", p) }), Denied, "no approver", true},
		"as a denial by an auditor we never ask": {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.denies("frank", p) }), Denied, "no approver", true},
		"by the same person again": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.approves("bob", p))
			return sc.approves("bob", p)
		}), Conflict, "bob decided", true},
		"by the same person with a second key": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.approves("bob", p))
			return sc.sign(sc.decision("bob", statement.Approve, p), key("bob 2"))
		}), Conflict, "bob decided", true},
		"as a denial after the same person's approval": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.approves("bob", p))
			return sc.denies("bob", p)
		}), Conflict, "bob decided", true},
		"in another's name": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			return sc.sign(sc.decision("bob", statement.Approve, p), key("mallory"))
		}), Denied, "not theirs", false},
		"after the request expired": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.now += 3601
			return sc.approves("bob", p)
		}), Expired, "expired at", true},
		"after a denial": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.denies("bob", p))
			return sc.approves("carol", p)
		}), Conflict, "already denied", true},
		"after a withdrawal": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.ends("alice", statement.Withdraw, p))
			return sc.approves("carol", p)
		}), Conflict, "already withdrawn", true},
		"after the quorum": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.approves("bob", p))
			sc.must(sc.approves("carol", p))
			return sc.approves("gwen", p)
		}), Conflict, "already approved", true},
		"that names more hosts": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			return sc.decides(key("bob"), sc.decision("bob", statement.Approve, p), func(d *statement.Decision) { d.Hosts = []statement.HostName{"db2"} })
		}), Invalid, "does not name", true},
		"that leaves no host with the others": {func(sc *scene) statement.Proof {
			p := sc.asks("alice", "root", "db1", "db2")
			sc.must(p)
			sc.must(sc.decides(key("bob"), sc.decision("bob", statement.Approve, p), func(d *statement.Decision) { d.Hosts = []statement.HostName{"db1"} }))
			return sc.decides(key("carol"), sc.decision("carol", statement.Approve, p), func(d *statement.Decision) { d.Hosts = []statement.HostName{"db2"} })
		}, Denied, "no host", true},
		"whose window would be over": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.approves("bob", p))
			late := sc.decides(key("carol"), sc.decision("carol", statement.Approve, p), func(d *statement.Decision) { d.Duration = 10 })
			sc.now += 10
			return late
		}), Expired, "was over", true},
		"once the asker lost eligibility": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.revises(changeRole("root", func(r *policy.Role) { r.Eligible = []policy.Name{"bob"} })))
			return sc.approves("bob", p)
		}), Missing, "not eligible", true},
		"once the approver was removed": {deciding(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.revises(func(doc *policy.Document) { doc.Groups["approvers"] = []statement.Person{"carol", "erin", "gwen"} }))
			return sc.approves("bob", p)
		}), Missing, "no request", true},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

func TestAnEndIsRefused(t *testing.T) {
	after := func(file func(sc *scene, p statement.Proof) statement.Proof) func(sc *scene) statement.Proof {
		return func(sc *scene) statement.Proof { return file(sc, sc.granted()) }
	}
	by := func(person statement.Person, how statement.How) func(sc *scene) statement.Proof {
		return after(func(sc *scene, p statement.Proof) statement.Proof { return sc.ends(person, how, p) })
	}
	cases := map[string]refusal{
		"a withdrawal by another": {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.ends("erin", statement.Withdraw, p) }),
			Missing, "no request", true},
		"a withdrawal by an approver": {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.ends("bob", statement.Withdraw, p) }),
			Denied, "only alice", true},
		"a withdrawal after the grant":         {by("alice", statement.Withdraw), Conflict, "already approved", true},
		"a return by another":                  {by("erin", statement.Return), Missing, "no grant", true},
		"a return by an operator":              {by("dave", statement.Return), Denied, "only alice", true},
		"a revocation by nobody in particular": {by("mallory", statement.Revoke), Missing, "no grant", true},
		"a revocation by an auditor":           {by("frank", statement.Revoke), Denied, "may not revoke", true},
		"a revocation by another engineer":     {by("erin", statement.Revoke), Missing, "no grant", true},
		"a revocation of what was returned": {after(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.ends("alice", statement.Return, p))
			return sc.ends("bob", statement.Revoke, p)
		}), Conflict, "was returned", true},
		"a return of what was revoked": {after(func(sc *scene, p statement.Proof) statement.Proof {
			sc.must(sc.ends("bob", statement.Revoke, p))
			return sc.ends("alice", statement.Return, p)
		}), Conflict, "was revoked", true},
		"a return after the window": {after(func(sc *scene, p statement.Proof) statement.Proof {
			sc.now += 1800
			return sc.ends("alice", statement.Return, p)
		}), Expired, "lapsed at", true},
		"of a grant that is none": {deciding(func(sc *scene, p statement.Proof) statement.Proof { return sc.ends("bob", statement.Revoke, p) }),
			Missing, "no grant", true},
		"of what nobody filed": {func(sc *scene) statement.Proof {
			return sc.ends("bob", statement.Revoke, sc.asks("alice", "root", "db1"))
		},
			Missing, "no grant", true},
	}
	for name, c := range cases {
		t.Run(name, c.run)
	}
}

func TestWhoMayEndAGrant(t *testing.T) {
	for person, how := range map[statement.Person]statement.How{
		"alice": statement.Return, "bob": statement.Revoke, "gwen": statement.Revoke, "dave": statement.Revoke,
	} {
		sc := newScene(t)
		p := sc.granted()
		sc.must(sc.ends(person, how, p))
		r := sc.find(p)
		if r.Dossier.Ended == nil || string(r.Dossier.Ended.How) != string(how) || r.EndedBy != person {
			t.Errorf("%s: ended %v by %q", how, r.Dossier.Ended, r.EndedBy)
		}
		if _, err := Prove(sc.chain, r.Dossier); KindOf(err) != Denied {
			t.Errorf("%s by %s: the dossier still proves a grant: %v", how, person, err)
		}
		sc.now += 3600
		wantKinds(t, sc.tick().Events)
	}
}

func TestEndsAndDenialsAreTakenWhilePolicyIsExpiredOrForked(t *testing.T) {
	trouble := map[string]func(sc *scene){
		"expired": func(sc *scene) { sc.now = dawn.Add(90 * statement.Day) },
		"forked":  func(sc *scene) { sc.fork() },
	}
	for name, strike := range trouble {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			sc.now = dawn.Add(90*statement.Day - 600)
			grant, pending, other := sc.granted(), sc.asks("alice", "root", "db1"), sc.asks("bob", "root", "db1")
			sc.must(pending)
			sc.must(other)
			strike(sc)
			sc.refused(Denied, sc.approves("bob", pending))
			sc.refused(Denied, sc.certifies("alice", grant, "alice desk"))
			sc.must(sc.denies("carol", pending))
			sc.must(sc.ends("bob", statement.Withdraw, other))
			sc.must(sc.ends("carol", statement.Revoke, grant))
			sc.must(sc.reports("db1", 1))
		})
	}
}
