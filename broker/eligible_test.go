package broker

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

func dated(entries ...policy.Eligibility) func(*policy.Document, *policy.Role) {
	return func(_ *policy.Document, r *policy.Role) { r.Eligible, r.Dated = []policy.Name{"erin"}, entries }
}

func TestADatedEligibilityHoldsInItsTimeAndOnItsHosts(t *testing.T) {
	onDB1 := &policy.Selector{Names: []statement.HostName{"db1"}}
	onDB := &policy.Selector{Labels: map[string]string{"tier": "db"}}
	soon, later := dawn.Add(600), dawn.Add(1200)
	cases := map[string]struct {
		entries []policy.Eligibility
		hosts   []statement.HostName
		after   statement.Seconds // when alice asks
		at      statement.Seconds // when she wants it to begin; 0: at once
		why     string            // refused; "" opens
		until   map[statement.HostName]statement.Seconds
	}{
		"for ever, on some host":            {[]policy.Eligibility{{Who: "alice", Hosts: onDB1}}, []statement.HostName{"db1"}, 0, 0, "", map[statement.HostName]statement.Seconds{"db1": 1800}},
		"by group":                          {[]policy.Eligibility{{Who: "engineers", Until: dawn.Add(7200)}}, []statement.HostName{"db1"}, 0, 0, "", map[statement.HostName]statement.Seconds{"db1": 1800}},
		"a host it does not name":           {[]policy.Eligibility{{Who: "alice", Hosts: onDB1}}, []statement.HostName{"db1", "db2"}, 0, 0, "not eligible for role db-admin on host db2", nil},
		"a label that the host has":         {[]policy.Eligibility{{Who: "alice", Hosts: onDB}}, []statement.HostName{"db1", "db2"}, 0, 0, "", map[statement.HostName]statement.Seconds{"db1": 1800, "db2": 1800}},
		"it has not begun":                  {[]policy.Eligibility{{Who: "alice", From: later}}, []statement.HostName{"db1"}, 0, 0, "not eligible for role db-admin", nil},
		"asked for a time when it has":      {[]policy.Eligibility{{Who: "alice", From: soon}}, []statement.HostName{"db1"}, 0, 1200, "", map[statement.HostName]statement.Seconds{"db1": 3000}},
		"it is over":                        {[]policy.Eligibility{{Who: "alice", Until: soon}}, []statement.HostName{"db1"}, 660, 0, "not eligible for role db-admin", nil},
		"it ends in the middle":             {[]policy.Eligibility{{Who: "alice", Until: later}}, []statement.HostName{"db1"}, 0, 0, "", map[statement.HostName]statement.Seconds{"db1": 1200}},
		"it ends earlier on one host":       {[]policy.Eligibility{{Who: "alice", Until: soon, Hosts: onDB1}, {Who: "alice", Until: later, Hosts: &policy.Selector{Names: []statement.HostName{"db2"}}}}, []statement.HostName{"db1", "db2"}, 0, 0, "", map[statement.HostName]statement.Seconds{"db1": 600, "db2": 1200}},
		"two of them, the later one counts": {[]policy.Eligibility{{Who: "alice", Until: soon}, {Who: "engineers", Until: later}}, []statement.HostName{"db1"}, 0, 0, "", map[statement.HostName]statement.Seconds{"db1": 1200}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, dated(c.entries...))
			sc.now += statement.Time(c.after)
			r := sc.request("alice", "db-admin", c.hosts...)
			if c.at != 0 {
				r.At = dawn.Add(c.at)
			}
			p := sc.sign(r, key("alice"))
			if c.why != "" {
				refusedFor(t, sc, Missing, p, c.why)
				return
			}
			opened := sc.opens(p, "bob")
			for host, until := range c.until {
				if got := sc.livesUntil(opened, at(host)); got != dawn.Add(until) {
					t.Errorf("on %s it lives until %s, want %s", host, got, dawn.Add(until))
				}
			}
		})
	}
}

func refusedFor(t *testing.T, sc *scene, kind Kind, p statement.Proof, why string, with ...func(*Command)) {
	t.Helper()
	if err := sc.refused(kind, p, with...); !contains(err, why) {
		t.Errorf("refused: %v, want %q", err, why)
	}
}

// An owned broker shows a grant whose eligibility is over, or is for other hosts: the host finds out by itself.
func TestThreatAHostHoldsEligibilityAgainstItsOwnClockAndLabels(t *testing.T) {
	sc := limited(t, dated(policy.Eligibility{Who: "alice", Until: dawn.Add(600), Hosts: &policy.Selector{Labels: map[string]string{"tier": "db"}}}))
	r := sc.opens(sc.asks("alice", "db-admin", "db1"), "bob")
	if _, err := Judge(sc.chain, r.Dossier, at("db1"), dawn.Add(599)); err != nil {
		t.Fatal(err)
	}
	if _, err := Judge(sc.chain, r.Dossier, at("db1"), dawn.Add(600)); err == nil {
		t.Error("it outlives alice's eligibility")
	}
	stripped := Host{Name: "db1", Labels: map[string]string{"tier": "web"}}
	if _, err := Judge(sc.chain, r.Dossier, stripped, dawn); err == nil {
		t.Error("a host without the label opens it")
	}
	late := sc.sign(func() statement.Decision {
		d := sc.decision("carol", statement.Approve, r.Dossier.Request)
		d.Created = dawn.Add(700)
		d.NotAfter = dawn.Add(900)
		return d
	}(), key("carol"))
	d := Dossier{Request: r.Dossier.Request, Decisions: []statement.Proof{late}}
	if _, err := Prove(sc.chain, d); KindOf(err) != Missing {
		t.Errorf("approved after the eligibility's end: %v", err)
	}
}

func TestWhatARoleWantsOfTheWordsOfARequest(t *testing.T) {
	cases := map[string]struct {
		role   func(*policy.Role)
		change func(*statement.Request)
		why    string
	}{
		"a reason that is too short":    {func(r *policy.Role) { r.ReasonLeast = 19 }, func(*statement.Request) {}, "the reason has 18 characters: role db-admin wants 19 or more"},
		"a reason of the least":         {func(r *policy.Role) { r.ReasonLeast = 18 }, func(*statement.Request) {}, ""},
		"letters count, not bytes":      {func(r *policy.Role) { r.ReasonLeast = 5 }, func(r *statement.Request) { r.Reason = "äöüß" }, "the reason has 4 characters"},
		"no ticket":                     {func(r *policy.Role) { r.Ticket = "INC-[0-9]+" }, func(*statement.Request) {}, `ticket "" is not`},
		"no ticket where any would do":  {func(r *policy.Role) { r.Ticket = ".*" }, func(*statement.Request) {}, `ticket "" is not`},
		"a ticket that fits":            {func(r *policy.Role) { r.Ticket = "INC-[0-9]+" }, func(r *statement.Request) { r.Ticket = "INC-42" }, ""},
		"a ticket that only begins so":  {func(r *policy.Role) { r.Ticket = "INC-[0-9]+" }, func(r *statement.Request) { r.Ticket = "INC-42x" }, `ticket "INC-42x"`},
		"a ticket that only ends so":    {func(r *policy.Role) { r.Ticket = "A|INC-[0-9]+" }, func(r *statement.Request) { r.Ticket = "xINC-42" }, `ticket "xINC-42"`},
		"the first of two alternatives": {func(r *policy.Role) { r.Ticket = "A|INC-[0-9]+" }, func(r *statement.Request) { r.Ticket = "A" }, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sc := limited(t, func(_ *policy.Document, r *policy.Role) { c.role(r) })
			p := sc.with(c.change)
			if c.why == "" {
				sc.must(p)
				return
			}
			refusedFor(t, sc, Denied, p, c.why)
			bob := sc.approves("bob", p) // and no judge takes it, whoever shows it
			if _, err := Prove(sc.chain, Dossier{Request: p, Decisions: []statement.Proof{bob}}); !contains(err, c.why) {
				t.Errorf("a host says %v", err)
			}
		})
	}
}

// Each flag wrong once, in each place that a security key's signature is wanted.
func TestThreatMFAASecurityKeyIsTouchedAndVerifiesItsHolder(t *testing.T) {
	keys := map[statement.Person]signtest.SecurityKey{"alice": signtest.SecurityEd25519("alice sk"), "bob": signtest.SecurityECDSA("bob sk"), "carol": signtest.SecurityEd25519("carol sk")}
	begin := func(t *testing.T) *scene {
		return limited(t, func(doc *policy.Document, r *policy.Role) {
			for person, sk := range keys {
				entry := doc.People[person]
				entry.Keys = append(append([]statement.Key{}, entry.Keys...), signtest.Public(sk))
				doc.People[person] = entry
			}
			r.Factors = policy.Factors{Ask: policy.SecurityKey, Approve: policy.SecurityKey}
		})
	}
	sound := func(sc *scene) (request, yes statement.Proof) {
		request = sc.sign(sc.request("alice", "db-admin", "db1"), keys["alice"])
		return request, sc.sign(sc.decision("bob", statement.Approve, request), keys["bob"])
	}
	sc := begin(t)
	request, yes := sound(sc)
	sc.must(request)
	sc.must(yes)
	dossier := sc.find(request).Dossier
	for name, signer := range map[string]ssh.Signer{
		"a plain key":             key("alice"),
		"a touch and no verified": keys["alice"].WithFlags(signtest.Presence),
	} {
		t.Run("the request by "+name, func(t *testing.T) {
			sc := begin(t)
			p := sc.sign(sc.request("alice", "db-admin", "db1"), signer)
			refusedFor(t, sc, Denied, p, "must be signed by a security key that verified its holder")
			yes := sc.sign(sc.decision("bob", statement.Approve, p), keys["bob"])
			if _, err := Prove(sc.chain, Dossier{Request: p, Decisions: []statement.Proof{yes}}); KindOf(err) != Denied {
				t.Errorf("a host says %v", err)
			}
		})
		t.Run("one more key by "+name, func(t *testing.T) {
			c := statement.Certificate{Head: sc.head(statement.KindCertificate, "alice"), Grant: string(sc.find(request).Grant.ID), Key: publicKeyOf("thief")}
			refusedFor(t, sc, Denied, sc.sign(c, signer), "must be signed by a security key")
			d := dossier
			d.Certificates = []statement.Proof{sc.sign(c, signer)}
			if _, err := Prove(sc.chain, d); KindOf(err) != Denied {
				t.Errorf("a host says %v", err)
			}
		})
	}
	for name, signer := range map[string]ssh.Signer{"a plain key": key("bob"), "a touch and no verified": keys["bob"].WithFlags(signtest.Presence)} {
		t.Run("the approval by "+name, func(t *testing.T) {
			sc := begin(t)
			request, _ := sound(sc)
			sc.must(request)
			weak := sc.sign(sc.decision("bob", statement.Approve, request), signer)
			refusedFor(t, sc, Denied, weak, "must be signed by a security key")
			if _, err := Prove(sc.chain, Dossier{Request: request, Decisions: []statement.Proof{weak}}); KindOf(err) != Denied {
				t.Errorf("a host says %v", err)
			}
			sc.must(sc.sign(sc.decision("bob", statement.Deny, request), key("bob"))) // taking away needs no second factor
		})
	}
	if _, err := statement.Sign(sc.request("alice", "db-admin", "db1"), keys["alice"].WithFlags(signtest.Verification)); err == nil {
		t.Error("a signature without touch is a signature")
	}
}

func TestThreatARoleWithoutApprovalWantsATouch(t *testing.T) {
	sk := signtest.SecurityEd25519("alice sk")
	sc := limited(t, func(doc *policy.Document, _ *policy.Role) {
		entry := doc.People["alice"]
		entry.Keys = append(append([]statement.Key{}, entry.Keys...), signtest.Public(sk))
		doc.People["alice"], doc.V = entry, 2
		changeRole("web-deploy", func(r *policy.Role) { r.PlainKey = false })(doc)
	})
	plain := sc.asks("alice", "web-deploy", "web1")
	refusedFor(t, sc, Denied, plain, "opens without approval, so it wants a security key's signature")
	if _, err := Judge(sc.chain, Dossier{Request: plain}, at("web1"), sc.now); KindOf(err) != Denied {
		t.Errorf("a host says %v", err)
	}
	touched := sc.sign(sc.request("alice", "web-deploy", "web1"), sk.WithFlags(signtest.Presence))
	sc.must(touched)
	g, err := Judge(sc.chain, sc.find(touched).Dossier, at("web1"), sc.now)
	if err != nil || !g.Alarm {
		t.Errorf("%+v: %v", g, err)
	}
}

// What the stewards approved beforehand needs nobody else, and nothing more than it says.
func TestAnActiveAssignmentNeedsNobodyElse(t *testing.T) {
	sc := limited(t, func(_ *policy.Document, r *policy.Role) {
		r.Active = []policy.Eligibility{{Who: "alice", Until: dawn.Add(3600), Hosts: &policy.Selector{Names: []statement.HostName{"db1"}}}}
		r.Factors = policy.Factors{Ask: policy.TOTP}
	})
	p := sc.asks("alice", "db-admin", "db1")
	sc.must(p)
	if r := sc.find(p); r.Grant == nil || !r.Grant.Alarm {
		t.Fatalf("%+v", r.Grant)
	}
	if r := sc.find(p); sc.livesUntil(r, at("db1")) != sc.now.Add(1800) {
		t.Error("it is not as long as she asked")
	}
	sc.now = dawn.Add(3000)
	late := sc.asks("alice", "db-admin", "db1")
	sc.must(late) // she is eligible for longer, but nobody approved that
	if until := sc.livesUntil(sc.find(late), at("db1")); until != dawn.Add(3600) {
		t.Errorf("it outlives the assignment: until %s", until)
	}
	refusedFor(t, sc, Denied, sc.asks("alice", "db-admin", "db1", "db2"), "enrolled no second factor") // not all of it was approved beforehand
	refusedFor(t, sc, Denied, sc.asks("erin", "db-admin", "db1"), "enrolled no second factor")
	sc.now = dawn.Add(3601)
	refusedFor(t, sc, Denied, sc.asks("alice", "db-admin", "db1"), "enrolled no second factor") // eligible, and no longer active
}

func contains(err error, why string) bool {
	return err != nil && strings.Contains(err.Error(), why)
}
