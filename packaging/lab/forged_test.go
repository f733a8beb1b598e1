//go:build lab

package lab

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// TestForgedAccess is promise three: a program that holds the broker's identity key, its CA key and every statement ever
// made tries to open real hosts, by what it puts before them and by what it says down the wire. Every host refuses, says
// why in its journal, and goes on to serve what people really signed.
//
// db1 and web1 call no broker: what is put before them stands in their spool, where only proofs count. h3 listens to a
// broker that the attacker owns. h4 joins late and knows nothing of what was ended before.
func TestForgedAccess(t *testing.T) {
	t.Parallel()
	second, keys := forger.Key(t), newTouches()
	w := forger.New(t, func(doc *policy.Document) {
		besiege(t, doc, second)
		guard(t, doc, keys)
	})
	s := &stage{labtest.Up(t, "--brokers", "0", "--hosts", "4"), w}
	siege := &siege{stage: s, bobs: second, keys: keys, twin: w.Twin(), wire: own(t, s)}
	db1 := siege.ground(t, "db1", "db", deaf)
	t.Run("statements", db1.statements)
	t.Run("what opens where those were refused", db1.guarded)
	t.Run("windows", db1.windows)
	t.Run("certificates", db1.certificates)
	h3 := siege.ground(t, "h3", "db", listening)
	t.Run("an owned broker", h3.owned)
	t.Run("the alarm on an owned broker's wire", h3.rings)
	t.Run("enrolment", func(t *testing.T) { siege.enrolment(t, db1, "h4") })
	t.Run("shown again", func(t *testing.T) { siege.again(t, db1, h3, "h4") })
	web1 := siege.ground(t, "web1", "web", deaf)
	t.Run("policies", web1.policies)
	t.Run("policies of an owned broker", h3.overtaken)
}

// siege is what the attacker holds.
type siege struct {
	*stage
	bobs forgerSigner  // bob's second key
	keys touches       // nobody else's: real security keys of people, which report what the test has them report
	twin *forger.World // another deployment of the same people, keys and brokers
	wire *forger.Broker
}

// besiege gives the lab's policy what the attacks need: two stewards who must both sign, a person with two keys, a role
// for honest controls on every host, and one that depends on a fresh word from a broker.
func besiege(t *testing.T, doc *policy.Document, second forgerSigner) {
	t.Helper()
	b1 := doc.Brokers["b1"]
	b1.Address = labtest.Gateway + ":7443"
	doc.Brokers["b1"] = b1
	doc.Stewards = policy.Stewards{Threshold: 2, People: []statement.Person{"dave", "frank"}}
	key, err := statement.KeyOf(second.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	bob := doc.People["bob"]
	bob.Keys = append(bob.Keys, key)
	doc.People["bob"] = bob
	keeper := doc.Roles["db-admin"]
	keeper.Hosts, keeper.Eligible = policy.Selector{Any: true}, []policy.Name{"erin"}
	keeper.Sudo = []policy.SudoRule{{As: "postgres", Commands: []policy.Command{policy.All}}}
	fresh := keeper
	fresh.Eligible, fresh.Offline = []policy.Name{"erin"}, policy.Offline{Mode: policy.OfflineGrace, Grace: staleAfter}
	doc.Roles["keeper"], doc.Roles["fresh"] = keeper, fresh
}

// own starts the owned broker where policy says that b1 is.
func own(t *testing.T, s *stage) *forger.Broker {
	t.Helper()
	var l net.Listener
	s.Inside(t, func() (err error) {
		l, err = net.Listen("tcp4", labtest.Gateway+":7443")
		return err
	})
	return s.w.Serve(l)
}

// Whether a host hears the owned broker.
type hearing bool

const (
	deaf      hearing = false
	listening hearing = true
)

// ground makes a machine an enforcing host and opens what an attack on it needs.
func (s *siege) ground(t *testing.T, host, tier string, h hearing) *ground {
	t.Helper()
	if h == deaf {
		s.Put(t, host, "/etc/pim-ssh/host.yaml", 0o644, []byte("broker: 127.0.0.1:1\n"))
	}
	s.root(t, host, "for a in deploy breakglass; do id $a >/dev/null 2>&1 || useradd -m -s /bin/bash $a; done").Want(t, 0)
	s.enrol(t, host, map[string]string{"tier": tier})
	s.root(t, host, "pim-hostd enforce").Want(t, 0)
	g := s.look(t, host)
	g.listens = h
	return g
}

// put writes a file of the host's spool, from outside.
func (g *ground) put(t testing.TB, content []byte, name ...string) {
	t.Helper()
	path := filepath.Join(append([]string{g.Tree(t, g.host), "var/lib/pim-ssh/host"}, name...)...)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
