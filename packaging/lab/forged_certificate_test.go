//go:build lab

package lab

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/packaging/lab/forger"
)

// A passport is a certificate that an owned CA makes beside a live grant of alice's, to enter an account with.
type passport struct {
	sentence string
	account  string // postgres when empty
	bend     func(*ssh.Certificate)
	ca       func(p papers) ssh.Signer // the real one when nil
	key      func(p papers) ssh.Signer // the one that alice named when nil
	why      string                    // in the host's journal
}

// papers are alice's live grants on the host, and the keys she named in them.
type papers struct {
	*ground
	db, root       broker.Dossier
	dbKey, rootKey ssh.Signer
}

func principals(names ...string) func(*ssh.Certificate) {
	return func(c *ssh.Certificate) { c.ValidPrincipals = names }
}

func option(name, value string) func(*ssh.Certificate) {
	return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} }
}

func extension(name, value string) func(*ssh.Certificate) {
	return func(c *ssh.Certificate) { c.Extensions[name] = value }
}

// unnamed is a key that nobody named in anything.
func unnamed(p papers) ssh.Signer { return forger.Key(p.w.T) }

var passports = []passport{
	{sentence: "for a key that alice never named", key: unnamed, why: "a key its holder never named"},
	{sentence: "for alice's own login key, which she did not name", key: func(p papers) ssh.Signer { return p.w.People["alice"] }, why: "a key its holder never named"},
	{sentence: "for the key of her other grant", key: func(p papers) ssh.Signer { return p.rootKey }, why: "a key its holder never named"},
	{sentence: "with principal root", bend: principals("root"), why: "is no grant's"},
	{sentence: "with principal alice", bend: principals("alice"), why: "is no grant's"},
	{sentence: "with principal breakglass", bend: principals("breakglass"), why: "is no grant's"},
	{sentence: "with principal postgres, the account itself", bend: principals("postgres"), why: "is no grant's"},
	{sentence: "with the grant's principal and root", bend: func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root") }, why: "certificate has 2 principals"},
	{sentence: "with the grant's principal twice", bend: func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, c.ValidPrincipals[0]) }, why: "certificate has 2 principals"},
	{sentence: "with no principal", bend: principals(), why: "certificate has 0 principals"},
	{sentence: "with an empty principal", bend: principals(""), why: "is no grant's"},
	{sentence: "with a list of principals in one", bend: func(c *ssh.Certificate) { c.ValidPrincipals[0] += ",root" }, why: "is no grant's"},
	{sentence: "with a principal of a grant that never was", bend: principals("pim-g-aaaaaaaaaaaaaaaaaaaaaaaaaa"), why: "is not known here"},
	{sentence: "with force-command", bend: option("force-command", "/bin/sh"), why: "carries critical options"},
	{sentence: "with source-address", bend: option("source-address", "10.77.0.0/24"), why: "carries critical options"},
	{sentence: "with verify-required", bend: option("verify-required", ""), why: "carries critical options"},
	{sentence: "with permit-port-forwarding", bend: extension("permit-port-forwarding", ""), why: "carries extensions beyond permit-pty"},
	{sentence: "with permit-agent-forwarding", bend: extension("permit-agent-forwarding", ""), why: "carries extensions beyond permit-pty"},
	{sentence: "with permit-X11-forwarding", bend: extension("permit-X11-forwarding", ""), why: "carries extensions beyond permit-pty"},
	{sentence: "with permit-user-rc", bend: extension("permit-user-rc", ""), why: "carries extensions beyond permit-pty"},
	{sentence: "with no-touch-required", bend: extension("no-touch-required", ""), why: "carries extensions beyond permit-pty"},
	{sentence: "with an extension of its own", bend: extension("sudo@pim-ssh", "ALL"), why: "carries extensions beyond permit-pty"},
	{sentence: "of the host type", bend: func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, why: "want a user certificate"},
	{sentence: "valid beyond the window", bend: func(c *ssh.Certificate) { c.ValidBefore++ }, why: "valid outside the window"},
	{sentence: "valid for ever", bend: func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, why: "valid outside the window"},
	{sentence: "valid from before the window", bend: func(c *ssh.Certificate) { c.ValidAfter-- }, why: "valid outside the window"},
	{sentence: "expired within the window", bend: func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 1 }, why: "certificate: expired at"},
	{sentence: "by a foreign CA", ca: func(p papers) ssh.Signer { return forger.Key(p.w.T) }, why: "Failed publickey for postgres"},
	{sentence: "by the broker's identity key", ca: func(p papers) ssh.Signer { return p.w.Broker() }, why: "Failed publickey for postgres"},
	{sentence: "by the very key it is for", ca: func(p papers) ssh.Signer { return p.dbKey }, why: "Failed publickey for postgres"},
	{sentence: "by a certificate of the CA's", ca: nested, why: "invalid certificate signing key"},
	{sentence: "of db-admin, to enter root", account: "root", why: "does not log in as"},
	{sentence: "with principal root, to enter root", account: "root", bend: principals("root"), why: "is no grant's"},
	{sentence: "for a key that alice never named, to enter root", account: "root", key: unnamed, why: "does not log in as"},
	{sentence: "by a foreign CA, to enter root", account: "root", bend: principals("root"), ca: func(p papers) ssh.Signer { return forger.Key(p.w.T) }, why: "Failed publickey for root"},
}

// nested is a CA that is itself only certified by the real one.
func nested(p papers) ssh.Signer {
	key := forger.Key(p.w.T)
	return forger.Offer(p.w.T, p.w.Certificate(p.db, key, nil), key)
}

// certificates tries each beside two live grants of alice's, whose honest certificates enter before and after.
func (g *ground) certificates(t *testing.T) {
	p := papers{ground: g, dbKey: forger.Key(t), rootKey: forger.Key(t)}
	p.db = g.w.Granted("alice", "db-admin", hostName(g.host), 600, p.dbKey, "bob")
	p.root = g.w.Granted("alice", "root", hostName(g.host), 600, p.rootKey, "bob", "carol")
	for _, d := range []broker.Dossier{p.db, p.root} {
		g.show(t, d)
		g.opens(t, d)
	}
	enter := func() {
		g.entered(t, "postgres", forger.Offer(t, g.w.Certificate(p.db, p.dbKey, nil), p.dbKey))
		g.entered(t, "root", forger.Offer(t, g.w.Certificate(p.root, p.rootKey, nil), p.rootKey))
	}
	enter()
	for _, c := range passports {
		t.Run(c.sentence, func(t *testing.T) { p.try(t, c) })
	}
	t.Run("the plain key that alice named, and no certificate", func(t *testing.T) {
		since := g.since(t)
		g.turnedAway(t, "postgres", p.dbKey)
		g.said(t, since, "Failed publickey for postgres")
	})
	for _, account := range []string{"alice", "breakglass", "mallory"} {
		t.Run("every certificate, to enter "+account+", which no role governs", func(t *testing.T) { p.ungoverned(t, account) })
	}
	enter()
	for _, d := range []broker.Dossier{p.db, p.root} {
		d.Ended = &broker.Ended{How: broker.EndedByRevoke, At: forger.Now()}
		g.show(t, d)
		g.closed(t, d)
	}
}

func (p papers) try(t *testing.T, c passport) {
	key, ca, account := p.dbKey, p.w.CA, c.account
	if c.key != nil {
		key = c.key(p)
	}
	if c.ca != nil {
		ca = c.ca(p)
	}
	if account == "" {
		account = "postgres"
	}
	since := p.since(t)
	p.turnedAway(t, account, forger.Offer(t, p.w.CertificateBy(ca, p.db, key, c.bend), key))
	p.said(t, since, c.why)
}

// ungoverned offers everything the CA can make to an account that does not know the CA: sshd itself refuses, and says
// whose certificate it was and by which CA.
func (p papers) ungoverned(t *testing.T, account string) {
	var offers []ssh.Signer
	for _, bend := range []func(*ssh.Certificate){nil, principals(account), principals("root"), principals("alice", "breakglass"), principals()} {
		offers = append(offers, forger.Offer(t, p.w.CertificateBy(p.w.CA, p.db, p.dbKey, bend), p.dbKey))
	}
	since := p.since(t)
	p.turnedAway(t, account, offers...)
	p.said(t, since, "Failed publickey for "+account)
	ca := keyOf(t, p.w.CA)
	p.said(t, since, "CA ED25519 "+ca.Fingerprint())
	if strings.Contains(p.read(t)[since:], "Accepted") {
		t.Errorf("%s: sshd accepted something:\n%s", p.host, p.journal[since:])
	}
}
