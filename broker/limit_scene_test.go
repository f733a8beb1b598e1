package broker

import (
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// newest is a grown scene under the newest rules.
func newest(t tester) *scene {
	sc := grown(t)
	sc.must(sc.raises("dave", 3))
	return sc
}

// asksWith asks with a code.
func (sc *scene) asksWith(person statement.Person, role statement.RoleName, code string, hosts ...statement.HostName) statement.Proof {
	sc.t.Helper()
	r := sc.request(person, role, hosts...)
	r.Code = code
	return sc.sign(r, key(string(person)))
}

// enrolsFactor has a person take a seed: nothing in this package reads it.
func (sc *scene) enrolsFactor(person statement.Person, first, old string) statement.Proof {
	sc.t.Helper()
	return sc.sign(statement.Factor{
		Head: sc.head(statement.KindFactor, person), Action: statement.EnrolFactor, Sealed: []byte("sealed to brokers"), First: first, Code: old,
	}, key(string(person)))
}

func (sc *scene) resetsFactor(operator, of statement.Person) statement.Proof {
	sc.t.Helper()
	return sc.sign(statement.Factor{
		Head: sc.head(statement.KindFactor, operator), Action: statement.ResetFactor, Of: of, Reason: "lost the phone",
	}, key(string(operator)))
}

func (sc *scene) reviews(person statement.Person, request statement.Proof) statement.Proof {
	sc.t.Helper()
	return sc.sign(statement.Review{
		Head: sc.head(statement.KindReview, person), Grant: string(StemOf(request.Hash()).Grant()), Reason: "looked at what was done",
	}, key(string(person)))
}

func (sc *scene) renews(person statement.Person, role statement.RoleName, until statement.Time) statement.Proof {
	sc.t.Helper()
	return sc.sign(statement.Renewal{
		Head: sc.head(statement.KindRenewal, person), Role: role, Until: until, Reason: "the migration goes on",
	}, key(string(person)))
}

// limited is a newest scene whose role db-admin, and policy, are changed; no role opens without approval unless it says so.
func limited(t tester, change func(doc *policy.Document, r *policy.Role)) *scene {
	t.Helper()
	sc := newest(t)
	sc.must(sc.revises(func(doc *policy.Document) {
		changeRole("web-deploy", func(r *policy.Role) { r.PlainKey = true })(doc)
		changeRole("db-admin", func(r *policy.Role) { change(doc, r) })(doc)
	}))
	if v := sc.s.Chain().Current().V; v != 2 {
		t.Fatalf("a document of version %d", v)
	}
	return sc
}

// with changes a request before alice signs it.
func (sc *scene) with(change func(r *statement.Request)) statement.Proof {
	sc.t.Helper()
	r := sc.request("alice", "db-admin", "db1")
	change(&r)
	return sc.sign(r, key("alice"))
}

// opens files a request and whichever approvals it is given, and returns what became of it.
func (sc *scene) opens(p statement.Proof, approvers ...statement.Person) Request {
	sc.t.Helper()
	sc.must(p)
	for _, person := range approvers {
		sc.must(sc.approves(person, p))
	}
	return sc.find(p)
}

// at is one of the scene's hosts as it knows itself.
func at(name statement.HostName) Host {
	tier := "db"
	if name == "web1" {
		tier = "web"
	}
	return Host{Name: name, Labels: map[string]string{"tier": tier}}
}

// livesUntil says when a dossier stops being a live grant on a host, by asking at every moment near those that may matter.
func (sc *scene) livesUntil(r Request, h Host) statement.Time {
	sc.t.Helper()
	last := statement.Time(0)
	for now := sc.now; now <= sc.now.Add(5*3600); now += 60 {
		if _, err := Judge(sc.chain, r.Dossier, h, now); err == nil {
			last = now + 60
		}
	}
	return last
}
