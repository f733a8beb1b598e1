package broker

import "pim-ssh/broker/statement"

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
