package statement_test

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// One day in the life of a deployment: a body of every kind, each keeping every rule.

const (
	day     statement.Time = 1795420800 // 2026-11-23T08:00:00Z
	grantID                = "g-7k2m4abcdefghijklmnopqrstu"
	sentID                 = "r-7k2m4abcdefghijklmnopqrstu"
	diskID                 = "1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e"
)

var deployment = statement.HashOf([]byte("first policy"))

func head(kind statement.Kind) statement.Head {
	return statement.Head{
		V: statement.Version, Kind: kind, Deployment: deployment,
		Policy: statement.PolicyRef{Revision: 3, Hash: statement.HashOf([]byte("third policy"))},
		Person: "alice", Nonce: strings.Repeat("0a", 16), Created: day, NotAfter: day.Add(60),
	}
}

func hostHead(kind statement.Kind) statement.Head {
	h := head(kind)
	h.Person, h.Host = "", "db1"
	return h
}

func sign(t testing.TB, b statement.Body, signers ...ssh.Signer) statement.Proof {
	t.Helper()
	p, err := statement.Sign(b, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request() statement.Request {
	return statement.Request{
		Head: head(statement.KindRequest), Role: "db-admin", Hosts: []statement.HostName{"db1", "db2.example.org"},
		Duration: 3600, Reason: "INC-42 réplica \"lag\" <ß>", Expires: day.Add(3600),
	}
}

func token() statement.HostToken {
	return statement.HostToken{
		Head: head(statement.KindHostToken), Name: "db1", Labels: map[string]string{"tier": "db", "site": "Bern-1"},
		Addresses: []string{"10.0.0.1", "[fd00::1]:2222", "db1"}, Key: signtest.Public(signtest.Ed25519("token")), Expires: day.Add(900),
	}
}

func enrolment(t testing.TB) statement.Enrolment {
	return statement.Enrolment{
		Head: hostHead(statement.KindEnrolment), Token: sign(t, token(), signtest.Ed25519("alice")),
		MachineID: statement.HashOf([]byte("machine")), Identity: signtest.Public(signtest.Ed25519("db1")),
		HostKeys: []statement.Key{signtest.Public(signtest.ECDSA("db1")), signtest.Public(signtest.Ed25519("db1 ssh"))},
	}
}

// bodies returns one body of every kind but policy.
func bodies(t testing.TB) []statement.Body {
	full := request()
	full.Ticket, full.At, full.Keys = "INC-42", day.Add(600), []statement.Key{signtest.Public(signtest.Ed25519("laptop"))}
	return []statement.Body{
		full,
		statement.Decision{Head: head(statement.KindDecision), Request: statement.HashOf([]byte("request")),
			Verdict: statement.Approve, Reason: "ok", Hosts: []statement.HostName{"db1"}, Duration: 1800},
		statement.Certificate{Head: head(statement.KindCertificate), Grant: grantID, Key: signtest.Public(signtest.Ed25519("laptop"))},
		statement.End{Head: head(statement.KindEnd), Grant: grantID, How: statement.Revoke, Reason: "stolen laptop"},
		statement.Session{Head: head(statement.KindSession), Key: signtest.Public(signtest.Ed25519("session")), Until: day.Add(12 * 3600)},
		statement.Read{Head: head(statement.KindRead), Method: "GET", PathAndQuery: "/v1/watch?after=7",
			BodySHA256: statement.HashOf(nil)},
		token(),
		enrolment(t),
		statement.Report{Head: hostHead(statement.KindReport), Sequence: 1, What: statement.SessionOpened, Grant: grantID,
			Session: "c1", Service: "sshd", Account: "postgres", At: day, Why: "granted"},
		statement.Restore{Head: head(statement.KindRestore), Epoch: 1, Size: 900, Root: statement.HashOf([]byte("root")), Why: "all disks burnt",
			Despite: "the newest backup is of 8 o'clock"},
		statement.Cluster{Head: head(statement.KindCluster), Action: statement.Add, Broker: "b4", Disk: diskID, Watching: true, Reason: "third room"},
	}
}

// signers returns who signs a kind in these tests: enrolments need the token's key and the identity.
func signers(kind statement.Kind, other ssh.Signer) []ssh.Signer {
	if kind == statement.KindEnrolment {
		return []ssh.Signer{signtest.Ed25519("token"), signtest.Ed25519("db1")}
	}
	return []ssh.Signer{other}
}
