package broker

import (
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Judge decides whether a dossier is a live grant on this host at this moment, and returns the grant, as it is there, when
// it is.
func Judge(c policy.Chain, d Dossier, h Host, now statement.Time) (Grant, error) {
	g, err := Prove(c, d)
	if err != nil {
		return Grant{}, err
	}
	g = g.On(h)
	if err := g.LiveOn(h, now); err != nil {
		return Grant{}, err
	}
	return g, nil
}

// Prove decides everything about a dossier that depends on neither host nor clock, under the chain's current policy:
// every signature; that each key belongs to the person it speaks for; eligibility; a quorum of distinct current
// approvers, never the asker; that nobody denied it and nothing ended it; limits, hosts, keys and the window. It
// refuses with Unavailable when a statement has seen a newer policy than this chain holds: catch up, then ask again.
//
// The window only ever shrinks: another statement in the dossier or another revision in the chain may move its end
// nearer, never further away.
func Prove(c policy.Chain, d Dossier) (Grant, error) {
	w, err := weigh(c, d)
	if err != nil {
		return Grant{}, err
	}
	if w.missing() > 0 {
		return Grant{}, w.unmet()
	}
	return w.grant(c, d.Certificates)
}

// asked is a request that was opened and whose signer speaks for the asker.
type asked struct {
	statement.Request
	hash   statement.Hash
	signer statement.Signer
}

func (a asked) stem() Stem { return StemOf(a.hash) }

// weighed is a dossier that breaks no rule; whether its quorum is full is still open.
type weighed struct {
	tally
	asked   asked
	role    policy.Role
	longest statement.Seconds
}

// weigh holds a dossier to every rule that does not ask for a full quorum.
func weigh(c policy.Chain, d Dossier) (weighed, error) {
	if d.Ended != nil {
		return weighed{}, Refuse(Denied, "", "%s was ended by %s at %s", d.Stem().Request(), d.Ended.How, d.Ended.At)
	}
	a, err := openRequest(c, d.Request)
	if err != nil {
		return weighed{}, err
	}
	return weighAsked(c, a, d.Decisions)
}

// maxDecisions is how many decisions one dossier may hold: judging it takes a bounded time, whoever made it.
const maxDecisions = 1000

// weighAsked is weigh for a request that was opened and not ended.
func weighAsked(c policy.Chain, a asked, decisions []statement.Proof) (weighed, error) {
	if len(decisions) > maxDecisions {
		return weighed{}, Refuse(Invalid, "", "%s has %d decisions: at most %d", a.stem().Request(), len(decisions), maxDecisions)
	}
	role, err := standing(c.Current(), a)
	if err != nil {
		return weighed{}, err
	}
	longest, err := longestSince(c, a)
	if err != nil {
		return weighed{}, err
	}
	if err := worded(c.Current(), role, a); err != nil {
		return weighed{}, err
	}
	t, err := count(c, a, role, decisions)
	if err != nil {
		return weighed{}, err
	}
	return weighed{tally: t, asked: a, role: role, longest: longest}, nil
}

// openStatement opens a proof as one kind of statement and holds it to deployment and policy chain. Whose key signed
// it is the next question: speaks.
func openStatement[B statement.Body](c policy.Chain, p statement.Proof) (B, statement.Opened, error) {
	var none B
	o, err := statement.Open(p)
	if err != nil {
		return none, o, Refuse(Invalid, "", "%w", err)
	}
	body, fits := o.Body.(B)
	if !fits {
		return none, o, Refuse(Invalid, "", "a %s statement stands where another kind belongs", o.Body.Header().Kind)
	}
	return body, o, follows(c, body.Header())
}

// follows holds a statement to this deployment and to a policy revision this chain can place.
func follows(c policy.Chain, h statement.Head) error {
	if h.Deployment != c.Deployment() {
		return Refuse(Denied, "pim-ssh join", "the %s statement is for another deployment", h.Kind)
	}
	switch c.Place(h.Policy) {
	case policy.Known:
		return nil
	case policy.Ahead:
		return Refuse(Unavailable, "try again in a moment", "behind: the %s statement was made under policy revision %d, newest here is %d",
			h.Kind, h.Policy.Revision, c.Ref().Revision)
	default:
		return Refuse(Denied, "pim-ssh policy log", "the %s statement names a foreign policy revision %d", h.Kind, h.Policy.Revision)
	}
}

// speaks reports why a statement is not the word of the person in its head, under this policy.
func speaks(doc *policy.Document, o statement.Opened) error {
	h := o.Body.Header()
	key := o.Signers[0].Key
	if h.Person == "" || !doc.HoldsKey(h.Person, key) {
		return Refuse(Denied, "pim-ssh whoami", "the %s statement names %s but key %s is not theirs", h.Kind, h.Person, key.Fingerprint())
	}
	return nil
}

func openRequest(c policy.Chain, p statement.Proof) (asked, error) {
	body, o, err := openStatement[statement.Request](c, p)
	if err != nil {
		return asked{}, err
	}
	if err := speaks(c.Current(), o); err != nil {
		return asked{}, err
	}
	return asked{Request: body, hash: o.Hash, signer: o.Signers[0]}, nil
}

// standing reports whether the asker may ask for this today, and returns the role.
func standing(doc *policy.Document, a asked) (policy.Role, error) {
	role, known := doc.Roles[a.Role]
	if !known {
		return role, Refuse(Missing, "pim-ssh roles", "no role %s", a.Role)
	}
	if !doc.Eligible(a.Person, a.Role) {
		return role, Refuse(Missing, "pim-ssh roles", "%s is not eligible for role %s", a.Person, a.Role)
	}
	return role, foreignKey(doc, a.Person, a.Keys...)
}

// foreignKey refuses keys that policy says are somebody else's.
func foreignKey(doc *policy.Document, holder statement.Person, keys ...statement.Key) error {
	for _, key := range keys {
		if owner, owned := doc.KeyOwner(key); owned && owner != holder {
			return Refuse(Denied, "name a key of your own", "key %s belongs to %s, not to %s", key.Fingerprint(), owner, holder)
		}
	}
	return nil
}

// longestSince is the least longest the role had in any revision from the one the asker saw to the current one, so
// that no later policy prolongs a window that people signed under an earlier one.
func longestSince(c policy.Chain, a asked) (statement.Seconds, error) {
	longest := c.Current().Roles[a.Role].Longest
	for revision := a.Policy.Revision; revision < c.Ref().Revision; revision++ {
		doc, _ := c.At(revision)
		role, known := doc.Roles[a.Role]
		if !known {
			return 0, Refuse(Denied, "pim-ssh request "+string(a.Role), "policy revision %d has no role %s", revision, a.Role)
		}
		longest = min(longest, role.Longest)
	}
	return longest, nil
}

// grant computes what a dossier with a full quorum confers.
func (w weighed) grant(c policy.Chain, certificates []statement.Proof) (Grant, error) {
	from := max(w.asked.begins(), w.filled())
	until := from.Add(min(w.asked.Duration, w.duration, w.longest))
	entries, last := eligibleAt(c.Current(), w.asked, from)
	earlier, before := eligibleSince(c, w.asked, from)
	until = min(until, last, before)
	switch {
	case len(entries) == 0:
		return Grant{}, Refuse(Missing, "pim-ssh roles", "%s is not eligible for role %s at %s", w.asked.Person, w.asked.Role, from)
	case len(w.hosts) == 0:
		return Grant{}, Refuse(Denied, "", "the approvals of %s leave no host", w.asked.stem().Request())
	case until <= from:
		return Grant{}, Refuse(Denied, "", "the window of %s is empty", w.asked.stem().Request())
	}
	doc := c.Current()
	g := Grant{
		ID: w.asked.stem().Grant(), Stem: w.asked.stem(), Request: w.asked.hash,
		Person: w.asked.Person, Account: doc.People[w.asked.Person].Account, Role: w.asked.Role,
		Hosts: w.hosts, From: from, Until: until, Keys: slices.Clone(w.asked.Keys),
		Accounts: w.role.Accounts, Sudo: w.role.Sudo, Offline: w.role.Offline, Reach: w.role.Hosts,
		Eligible: bounded(entries), Earlier: earlier, Extends: GrantID(w.asked.Extends), Alarm: doc.V > 1 && w.unapproved(),
		Newest: max(w.asked.Created, w.newest), Expires: doc.Expires, Asked: w.asked.Created,
	}
	if len(certificates) > maxCertificates {
		return Grant{}, Refuse(Denied, "pim-ssh return "+string(g.ID), "%s has %d certificates: at most %d", g.ID, len(certificates), maxCertificates)
	}
	for _, p := range certificates {
		if err := g.addKey(c, w.asked, p); err != nil {
			return Grant{}, err
		}
	}
	return g, nil
}

// addKey takes the holder's statement that one more key may be certified.
func (g *Grant) addKey(c policy.Chain, a asked, p statement.Proof) error {
	body, o, err := openStatement[statement.Certificate](c, p)
	if err != nil {
		return err
	}
	if err := speaks(c.Current(), o); err != nil {
		return err
	}
	if err := certified(c.Current(), a, o); err != nil {
		return err
	}
	switch {
	case body.Person != g.Person:
		return Refuse(Denied, "", "%s asks for a certificate under %s, which is %s's", body.Person, g.ID, g.Person)
	case body.Grant != string(g.ID):
		return Refuse(Denied, "", "the certificate statement is for %s, not for %s", body.Grant, g.ID)
	case body.Created >= g.Until:
		return Refuse(Expired, "pim-ssh request "+string(g.Role), "grant %s lapsed at %s", g.ID, g.Until)
	}
	if err := foreignKey(c.Current(), g.Person, body.Key); err != nil {
		return err
	}
	if at, held := slices.BinarySearch(g.Keys, body.Key); !held {
		g.Keys = slices.Insert(g.Keys, at, body.Key)
	}
	g.Newest = max(g.Newest, body.Created)
	return nil
}
