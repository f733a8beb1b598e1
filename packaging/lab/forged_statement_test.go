//go:build lab

package lab

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// forgery is a dossier that an attacker with every broker key can make, and the words in which hosts refuse it.
type forgery struct {
	sentence string
	forge    func(a attempt) broker.Dossier
	why      string           // in the journal when the dossier is read
	login    string           // in the journal when a certificate for it is tried; why when empty
	person   statement.Person // whose sudo is tried; alice when empty
	account  string           // whose login is tried; postgres when empty
	wire     bool             // also said by an owned broker
}

// attempt is what one forgery is made from.
type attempt struct {
	*ground
	*forger.World
	key ssh.Signer // the attacker's, for the certificate
}

// ask is alice's own request for db-admin on this host.
func (a attempt) ask(bend func(*statement.Request)) statement.Proof {
	return a.Ask("alice", "db-admin", hostName(a.host), 600, a.key, bend)
}

// with is a dossier of these proofs.
func with(request statement.Proof, decisions ...statement.Proof) broker.Dossier {
	return broker.Dossier{Request: request, Decisions: decisions}
}

// yes is bob's real approval.
func (a attempt) yes(request statement.Proof) statement.Proof { return a.Approve("bob", request, nil) }

var forgeries = []forgery{
	{sentence: "a request signed by the broker in alice's name", wire: true, why: "the request statement names alice but key", forge: func(a attempt) broker.Dossier {
		r := a.AskAs("alice", a.Broker(), "db-admin", hostName(a.host), a.key)
		return with(r, a.yes(r))
	}},
	{sentence: "a request signed by the CA in alice's name", why: "the request statement names alice but key", forge: func(a attempt) broker.Dossier {
		r := a.AskAs("alice", a.CA, "db-admin", hostName(a.host), a.key)
		return with(r, a.yes(r))
	}},
	{sentence: "a request signed by nobody known in alice's name", why: "the request statement names alice but key", forge: func(a attempt) broker.Dossier {
		r := a.AskAs("alice", forger.Key(a.T), "db-admin", hostName(a.host), a.key)
		return with(r, a.yes(r))
	}},
	{sentence: "a request signed by mallory in alice's name", why: "the request statement names alice but key", forge: func(a attempt) broker.Dossier {
		r := a.AskAs("alice", a.People["mallory"], "db-admin", hostName(a.host), a.key)
		return with(r, a.yes(r))
	}},
	{sentence: "mallory's own request, who is eligible for nothing", person: "mallory", wire: true, why: "mallory is not eligible for role db-admin", forge: func(a attempt) broker.Dossier {
		r := a.Ask("mallory", "db-admin", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r))
	}},
	{sentence: "a request by somebody policy does not know", person: "mallory", why: "the request statement names zed but key", forge: func(a attempt) broker.Dossier {
		r := a.SignAs(statement.Request{Head: a.Head(statement.KindRequest, "zed"), Role: "db-admin", Hosts: []statement.HostName{hostName(a.host)},
			Duration: 600, Reason: "mine", Expires: forger.Now() + 600, Keys: []statement.Key{keyOf(a.T, a.key)}}, a.key)
		return with(r, a.yes(r))
	}},
	{sentence: "a request for a role that policy does not have", why: "no role superuser", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "superuser", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r))
	}},
	{sentence: "a request whose duration was changed after alice signed it", wire: true, why: "request: signature 1: ", forge: func(a attempt) broker.Dossier {
		r := forger.Edited(a.T, a.ask(nil), `"duration":600`, `"duration":900`)
		return with(r, a.yes(r))
	}},
	{sentence: "a request whose host was changed after alice signed it", why: "request: signature 1: ", forge: func(a attempt) broker.Dossier {
		signed := a.ask(func(r *statement.Request) { r.Hosts = []statement.HostName{"other"} })
		r := forger.Edited(a.T, signed, `"hosts":["other"]`, `"hosts":["`+a.host+`"]`)
		return with(r, a.yes(r))
	}},
	{sentence: "a request that names a key of mallory's for alice", why: "belongs to mallory, not to alice", forge: func(a attempt) broker.Dossier {
		a.key = a.People["mallory"]
		r := a.ask(nil)
		return with(r, a.yes(r))
	}},
	{sentence: "a request that nobody approved", wire: true, why: "1 more approvals needed", forge: func(a attempt) broker.Dossier {
		return with(a.ask(nil))
	}},
	{sentence: "an approval signed by the broker in bob's name", wire: true, why: "the decision statement names bob but key", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.ApproveAs("bob", a.Broker(), r))
	}},
	{sentence: "an approval with bob's signature from another statement", why: "decision: signature 1: ", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		forged, real := a.ApproveAs("bob", a.Broker(), r), a.yes(a.ask(nil))
		forged.Signatures = real.Signatures
		return with(r, forged)
	}},
	{sentence: "bob's denial, changed into an approval", why: "decision: signature 1: ", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		no := a.Approve("bob", r, func(d *statement.Decision) { d.Verdict = statement.Deny })
		return with(r, forger.Edited(a.T, no, `"verdict":"deny"`, `"verdict":"approve"`))
	}},
	{sentence: "bob's approval of another request", wire: true, why: "bob decided r-", forge: func(a attempt) broker.Dossier {
		return with(a.ask(nil), a.yes(a.ask(nil)))
	}},
	{sentence: "bob's approval of another request, changed to name this one", why: "decision: signature 1: ", forge: func(a attempt) broker.Dossier {
		r, other := a.ask(nil), a.ask(nil)
		return with(r, forger.Edited(a.T, a.yes(other), other.Hash().String(), r.Hash().String()))
	}},
	{sentence: "an approval by somebody policy does not know", why: "the decision statement names zed but key", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.ApproveAs("zed", forger.Key(a.T), r))
	}},
	{sentence: "an approval by dave, who is steward and operator but no approver", wire: true, why: "dave is no approver of db-admin", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Approve("dave", r, nil))
	}},
	{sentence: "an approval by alice of her own request", why: "nobody decides a request of their own", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Approve("alice", r, nil))
	}},
	{sentence: "bob, an approver, as one of two approvers of his own request", person: "bob", account: "root", wire: true, why: "nobody decides a request of their own", forge: func(a attempt) broker.Dossier {
		r := a.Ask("bob", "root", hostName(a.host), 600, a.key, nil)
		return with(r, a.Approve("carol", r, nil), a.yes(r))
	}},
	{sentence: "bob's two keys as two approvers", account: "root", wire: true, why: "bob approved more than once", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "root", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r), a.ApproveAs("bob", a.bobs, r))
	}},
	{sentence: "bob's approval twice, signed anew", account: "root", why: "bob approved more than once", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "root", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r), a.yes(r))
	}},
	{sentence: "the same bytes of one approval twice", account: "root", why: "bob approved more than once", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "root", hostName(a.host), 600, a.key, nil)
		yes := a.yes(r)
		return with(r, yes, yes)
	}},
	{sentence: "one approver beside one whose key the broker made up", account: "root", why: "the decision statement names carol but key", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "root", hostName(a.host), 600, a.key, nil)
		return with(r, a.yes(r), a.ApproveAs("carol", a.Broker(), r))
	}},
	{sentence: "an approval beside carol's denial", wire: true, why: "carol denied r-", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.yes(r), a.Approve("carol", r, func(d *statement.Decision) { d.Verdict = statement.Deny }))
	}},
	{sentence: "a request for other hosts, shown here", wire: true, why: "does not name host", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Hosts = []statement.HostName{"db7"} })
		return with(r, a.yes(r))
	}},
	{sentence: "a request whose approver left this host out", wire: true, why: "does not name host", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Hosts = append(r.Hosts, "db7") })
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Hosts = []statement.HostName{"db7"} }))
	}},
	{sentence: "two approvers who leave no host in common", account: "root", why: "leave no host", forge: func(a attempt) broker.Dossier {
		r := a.Ask("alice", "root", hostName(a.host), 600, a.key, func(r *statement.Request) { r.Hosts = append(r.Hosts, "db7") })
		only := func(h statement.HostName) func(*statement.Decision) {
			return func(d *statement.Decision) { d.Hosts = []statement.HostName{h} }
		}
		return with(r, a.Approve("bob", r, only("db7")), a.Approve("carol", r, only(hostName(a.host))))
	}},
	{sentence: "an approval that adds this host", why: "which the request does not name", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Hosts = []statement.HostName{"db7"} })
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Hosts = []statement.HostName{hostName(a.host)} }))
	}},
	{sentence: "a role that does not reach this host's labels", login: "does not log in as", why: "role web-deploy does not reach host", forge: func(a attempt) broker.Dossier {
		return with(a.Ask("alice", "web-deploy", hostName(a.host), 600, a.key, nil))
	}},
	{sentence: "an approval for longer than was asked", why: "bob approved 900 s, but 600 s were asked", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Duration = 900 }))
	}},
	{sentence: "an approval after the request had expired", wire: true, why: "after it expired", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) {
			r.Created, r.NotAfter, r.Expires = r.Created-60, r.NotAfter-60, r.Created-10
		})
		return with(r, a.yes(r))
	}},
	{sentence: "an approval dated ahead, to open the window later", wire: true, login: "not valid before", why: "which is in the future", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Created += 900 }))
	}},
	{sentence: "a window that has not begun", login: "not valid before", why: "starts at", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.At = r.Created + 900 })
		return with(r, a.yes(r))
	}},
	{sentence: "a window that is over", wire: true, login: "is over: lapse", why: "lapsed at", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Created -= 700 })
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Created -= 690 }))
	}},
	{sentence: "real statements of another deployment", wire: true, why: "is for another deployment", forge: func(a attempt) broker.Dossier {
		return a.twin.Granted("alice", "db-admin", hostName(a.host), 600, a.key, "bob")
	}},
	{sentence: "another deployment's approval of a request of this one", why: "is for another deployment", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.twin.Approve("bob", r, nil))
	}},
	{sentence: "a request that alice signed under another namespace", why: "made for namespace", forge: func(a attempt) broker.Dossier {
		r := a.Misfiled(a.ask(nil), statement.KindDecision, a.People["alice"])
		return with(r, a.yes(r))
	}},
	{sentence: "an approval that bob signed as a read", why: "made for namespace", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Misfiled(a.yes(r), statement.KindRead, a.People["bob"]))
	}},
	{sentence: "an approval where a request belongs", why: "a decision statement stands where another kind belongs", forge: func(a attempt) broker.Dossier {
		yes := a.yes(a.ask(nil))
		return with(yes, yes)
	}},
	{sentence: "a request made under a policy revision that never was", wire: true, why: "foreign policy revision 1", forge: func(a attempt) broker.Dossier {
		r := a.ask(func(r *statement.Request) { r.Policy.Hash = a.twin.Chain.Deployment() })
		return with(r, a.yes(r))
	}},
	{sentence: "an approval by one who has seen a newer policy than this host", wire: true, why: "behind: the decision statement was made under policy revision 9", forge: func(a attempt) broker.Dossier {
		r := a.ask(nil)
		return with(r, a.Approve("bob", r, func(d *statement.Decision) { d.Policy.Revision = 9 }))
	}},
	{sentence: "a certificate statement by the broker in alice's name", why: "the certificate statement names alice but key", forge: func(a attempt) broker.Dossier {
		return a.certified("alice", a.Broker(), "")
	}},
	{sentence: "a certificate statement by erin for alice's grant", wire: true, why: "erin asks for a certificate under", forge: func(a attempt) broker.Dossier {
		return a.certified("erin", a.People["erin"], "")
	}},
	{sentence: "alice's certificate statement for another grant", why: "the certificate statement is for g-aaaaaaaaaaaaaaaaaaaaaaaaaa", forge: func(a attempt) broker.Dossier {
		return a.certified("alice", a.People["alice"], "g-aaaaaaaaaaaaaaaaaaaaaaaaaa")
	}},
}

// certified is an honest grant of alice's for a key she named, with one more certificate statement for the attacker's.
func (a attempt) certified(p statement.Person, signer ssh.Signer, grant string) broker.Dossier {
	d := a.Granted("alice", "db-admin", hostName(a.host), 600, forger.Key(a.T), "bob")
	if grant == "" {
		grant = string(d.Stem().Grant())
	}
	d.Certificates = append(d.Certificates, a.SignAs(statement.Certificate{Head: a.Head(statement.KindCertificate, p), Grant: grant, Key: keyOf(a.T, a.key)}, signer))
	return d
}

func keyOf(t testing.TB, signer ssh.Signer) statement.Key {
	t.Helper()
	key, err := statement.KeyOf(signer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// statements puts every forged dossier before the host.
func (g *ground) statements(t *testing.T) {
	g.honest(t)
	for _, f := range slices.Concat(forgeries, factorForgeries) {
		t.Run(f.sentence, func(t *testing.T) { g.try(t, f) })
	}
	t.Run("a dossier file that says more than a dossier may", func(t *testing.T) {
		g.unreadable(t, func(text string) string { return strings.Replace(text, "{", `{"until":"2099-01-01T00:00:00Z",`, 1) }, "unknown")
	})
	t.Run("a dossier file that says its request twice", func(t *testing.T) {
		g.unreadable(t, func(text string) string { return strings.Replace(text, "{", `{"request":null,`, 1) }, "duplicate")
	})
	g.honest(t)
}

// try shows one forgery to the host and tries every door with it.
func (g *ground) try(t *testing.T, f forgery) {
	key := forger.Key(t)
	d := f.forge(attempt{g, g.w, key})
	if f.person == "" {
		f.person = "alice"
	}
	if f.account == "" {
		f.account = "postgres"
	}
	since := g.since(t)
	g.show(t, d)
	g.said(t, since, "dossier opens nothing")
	g.said(t, since, f.why)
	since = g.since(t)
	g.nothingStarts(t, d, f.person, f.account, forger.Offer(t, g.w.Certificate(d, key, nil), key))
	g.said(t, since, "certificate refused")
	if f.login == "" {
		f.login = f.why
	}
	g.said(t, since, f.login)
}

// unreadable puts a file in place of an honest dossier's.
func (g *ground) unreadable(t *testing.T, spoil func(string) string, why string) {
	key := forger.Key(t)
	d := g.w.Granted("alice", "db-admin", hostName(g.host), 300, key, "bob")
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	since := g.since(t)
	g.put(t, []byte(spoil(string(text))), "dossiers", string(d.Stem())+".json")
	g.do(t, "systemctl reload pim-hostd")
	g.said(t, since, "spool file refused and set aside")
	g.said(t, since, why)
	since = g.since(t)
	g.nothingStarts(t, d, "alice", "postgres", forger.Offer(t, g.w.Certificate(d, key, nil), key))
	g.said(t, since, "is not known here")
}
