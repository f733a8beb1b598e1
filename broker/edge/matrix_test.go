package edge

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

var update = flag.Bool("update", false, "write what the broker does into testdata/matrix.txt; then read it")

const matrixFile = "testdata/matrix.txt"

// caller is one identity of the matrix: how it authenticates, and who it says it is when it files.
type caller struct {
	name   string
	client *api.Client
	person statement.Person
	signer ssh.Signer
	host   statement.HostName
	key    ed25519.PrivateKey
	peers  *api.Peers // calls as another broker would, with what TLS key the caller has
}

// TestTheMatrixOfEveryRouteAndEveryIdentity calls every route as everybody and compares with the table checked in. What
// concerns alice is asked for: her grant on db1. A route that is missing from the table fails.
func TestTheMatrixOfEveryRouteAndEveryIdentity(t *testing.T) {
	m := newMatrix(t)
	var got strings.Builder
	names := make([]string, len(m.callers))
	for i, c := range m.callers {
		names[i] = fmt.Sprintf("%-12s", c.name)
	}
	fmt.Fprintf(&got, "%-26s%s\n", "", strings.TrimRight(strings.Join(names, ""), " "))
	for _, route := range api.Routes() {
		cells := make([]string, len(m.callers))
		for i, c := range m.callers {
			cells[i] = fmt.Sprintf("%-12s", m.call(route, c))
		}
		fmt.Fprintf(&got, "%-26s%s\n", route.Method+" "+route.Path, strings.TrimRight(strings.Join(cells, ""), " "))
	}
	if *update {
		m.stage.must(os.WriteFile(matrixFile, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(matrixFile)
	m.stage.must(err)
	if got.String() != string(want) {
		t.Errorf("the broker does\n%s\nbut %s says\n%s", got.String(), matrixFile, want)
	}
}

type matrix struct {
	stage   *stage
	grant   broker.GrantID
	callers []caller
}

func newMatrix(t *testing.T) *matrix {
	old := forger.Key(t)
	m := &matrix{stage: newStage(t, func(doc *policy.Document) {
		erin := doc.People["erin"]
		erin.Keys = append(erin.Keys, signtest.Public(old))
		doc.People["erin"] = erin
		fire := doc.Roles["db-admin"]
		fire.Emergency, fire.PlainKey, fire.Eligible = true, true, []policy.Name{"alice"}
		fire.Dated = []policy.Eligibility{{Who: "erin", Until: forger.Now() + 3600}}
		doc.Roles["fire"] = fire
	}, nil)}
	s := m.stage
	s.granted("alice", "fire", "db1", forger.Key(t))
	s.submit(s.world.Sign(statement.Renewal{Head: s.world.Head(statement.KindRenewal, "erin"), Role: "fire", Until: forger.Now() + 7200, Reason: "matrix"}, "erin"))
	m.grant = s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	s.removeKey("erin", signtest.Public(old))
	gone, goneSigner := forger.PrivateKey(t)
	s.revise(func(doc *policy.Document) {
		doc.Brokers = maps.Clone(doc.Brokers)
		doc.Brokers["b9"] = policy.Broker{Address: "b9:7443", Identity: signtest.Public(goneSigner), CA: signtest.Public(forger.Key(t)), Log: signtest.Public(forger.Key(t))}
	})
	s.revise(func(doc *policy.Document) {
		doc.Brokers = maps.Clone(doc.Brokers)
		delete(doc.Brokers, "b9")
	})
	s.must(s.record.Publish())

	stranger := forger.New(t, nil)
	foreign := s.reader("alice")
	foreign.Signer = stranger.People["alice"]
	removed := s.reader("erin")
	removed.Signer = old
	private, _ := forger.PrivateKey(t)
	m.callers = []caller{
		{name: "outsider", client: s.as("")},
		{name: "stranger", client: s.proving(foreign), person: "alice", signer: foreign.Signer},
		{name: "removed-key", client: s.proving(removed), person: "erin", signer: old},
		m.person("mallory", "mallory"), m.person("alice", "asker"), m.person("erin", "person"), m.person("bob", "approver"), m.person("dave", "operator"),
		m.person("frank", "auditor"),
		{name: "host", client: s.host("db1"), host: "db1", key: s.hosts["db1"]},
		{name: "other-host", client: s.host("web1"), host: "web1", key: s.hosts["web1"]},
		{name: "fake-host", client: s.client(api.Config{Policy: s.world.Chain.Current(), Identity: private}), host: "db1", key: private},
		{name: "broker", client: s.client(api.Config{Policy: s.world.Chain.Current(), Identity: s.world.Identity}), key: s.world.Identity},
		{name: "gone-broker", client: s.client(api.Config{Policy: s.world.Chain.Current(), Identity: gone}), key: gone},
	}
	for i, c := range m.callers {
		m.callers[i].peers = s.calling(c.key)
	}
	return m
}

func (m *matrix) person(person statement.Person, name string) caller {
	return caller{name: name, client: m.stage.as(person), person: person, signer: m.stage.world.People[person]}
}

// calling calls as brokers call each other, with a TLS key or none.
func (s *stage) calling(key ed25519.PrivateKey) *api.Peers {
	s.t.Helper()
	if key == nil {
		return api.NewPeers(nil)
	}
	own, err := api.SelfSigned(rand.Reader, key)
	s.must(err)
	return api.NewPeers(&own)
}

func (s *stage) proving(reader *api.Reader) *api.Client {
	return s.client(api.Config{Policy: s.world.Chain.Current(), Reader: reader})
}

// removeKey has dave sign the next revision, in which the person no longer holds the key.
func (s *stage) removeKey(person statement.Person, key statement.Key) {
	s.t.Helper()
	s.revise(func(doc *policy.Document) {
		entry := doc.People[person]
		entry.Keys = slices.DeleteFunc(slices.Clone(entry.Keys), func(k statement.Key) bool { return k == key })
		doc.People[person] = entry
	})
}

// revise has dave sign the next revision and the broker adopt it.
func (s *stage) revise(edit func(*policy.Document)) {
	s.t.Helper()
	current := s.world.Chain.Current()
	doc := s.world.Chain.Next(*current, current.Expires)
	edit(&doc)
	p := s.world.SignPolicy(doc, "dave")
	s.submit(p)
	chain, err := s.world.Chain.Advance(p)
	s.must(err)
	s.world.Chain = chain
}

// call makes one call and says how it ended: ok, what was seen, or the refusal's kind.
func (m *matrix) call(route api.Route, c caller) string {
	said, err := m.answer(route, c)
	switch {
	case err == nil:
		return said
	case broker.KindOf(err) != "":
		return string(broker.KindOf(err))
	default:
		return err.Error()
	}
}

func (m *matrix) answer(route api.Route, c caller) (string, error) {
	ctx := m.stage.t.Context()
	switch route.Name {
	case api.RoutePolicy:
		all, err := c.client.Policies(ctx, 0)
		return count(len(all)), err
	case api.RouteStatements:
		return m.file(ctx, c)
	case api.RouteWhoami:
		who, err := c.client.Whoami(ctx)
		return string(who.Person), err
	case api.RouteRoles:
		all, err := c.client.Roles(ctx)
		return count(len(all)), err
	case api.RouteRequests:
		all, err := c.client.AllRequests(ctx)
		return count(len(all)), err
	case api.RouteRequest:
		_, err := c.client.Request(ctx, string(m.grant.Stem().Request()))
		return "ok", err
	case api.RouteGrants:
		all, err := c.client.Grants(ctx)
		return count(len(all)), err
	case api.RouteGrant:
		grant, err := c.client.Grant(ctx, string(m.grant))
		return map[int]string{0: "ok", 1: "certificate"}[len(grant.Certificates)], err
	case api.RouteInbox:
		all, err := c.client.Inbox(ctx)
		return count(len(all)), err
	case api.RouteReviews:
		all, err := c.client.Reviews(ctx)
		return count(len(all)), err
	case api.RouteRenewals:
		all, err := c.client.Renewals(ctx)
		return count(len(all)), err
	case api.RouteHosts:
		all, err := c.client.Hosts(ctx)
		return count(len(all)), err
	case api.RouteWatch:
		return m.watch(ctx, c)
	case api.RouteCheckpoint:
		text, err := c.client.Record(ctx)(audit.PathCheckpoint)
		if err == nil {
			_, err = audit.Open(text, m.stage.world.Chain.Deployment(), m.stage.world.Chain.Current().LogKeys())
		}
		return "ok", err
	case api.RouteTile:
		return m.tiles(ctx, c)
	case api.RouteCluster:
		all, err := c.client.Cluster(ctx)
		return count(len(all.Brokers)), err
	case api.RouteHealth:
		return "ok", c.client.Health(ctx)
	case api.RoutePeerIndex:
		_, err := c.peers.Index(ctx, m.stage.world.Chain.Current().Brokers["b1"])
		return "ok", err
	case api.RoutePeerEvents:
		_, err := c.peers.Events(ctx, m.stage.world.Chain.Current().Brokers["b1"], 0)
		return "ok", err
	case api.RoutePeerSum:
		_, err := c.peers.Sum(ctx, m.stage.world.Chain.Current().Brokers["b1"], 1)
		return "ok", err
	case api.RoutePeerStatus:
		status, err := c.peers.Status(ctx, "b1", m.stage.world.Chain.Current().Brokers["b1"], 0)
		return string(status.Name), err
	default:
		return "", fmt.Errorf("no caller for %s", route.Name)
	}
}

// tiles says whether the caller reads the tree, and whether also the entries.
func (m *matrix) tiles(ctx context.Context, c caller) (string, error) {
	source := c.client.Record(ctx)
	if _, err := source("tile/0/000.p/1"); err != nil {
		return "", err
	}
	switch _, err := source("tile/entries/000.p/1"); broker.KindOf(err) {
	case "":
		return "ok:entries", err
	case broker.Denied:
		return "ok:tree", nil
	default:
		return "", err
	}
}

func count(n int) string { return fmt.Sprintf("ok:%d", n) }

// file has everybody file what they would: people a request for a role that needs no approval, hosts a report.
func (m *matrix) file(ctx context.Context, c caller) (string, error) {
	var p statement.Proof
	switch {
	case c.host != "":
		p = m.stage.report(c.host, c.key)
	case c.person != "":
		var err error
		p, err = statement.Sign(statement.Request{Head: m.stage.world.Head(statement.KindRequest, c.person), Role: "web-deploy",
			Hosts: []statement.HostName{"web1"}, Duration: 60, Reason: "matrix", Expires: forger.Now() + 600}, c.signer)
		m.stage.must(err)
	default:
		p = statement.Proof{Payload: []byte("{}"), Signatures: [][]byte{[]byte("none")}}
	}
	_, err := c.client.Submit(ctx, p)
	return "ok", err
}

// watch says what the stream's frames before its first beat are: for hosts policies and dossiers, for people events.
func (m *matrix) watch(ctx context.Context, c caller) (string, error) {
	stream, err := c.client.Watch(ctx, nil)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	policies, dossiers, events := 0, 0, 0
	for {
		frame, err := stream.Next()
		switch {
		case err != nil:
			return "", err
		case frame.Policy != nil:
			policies++
		case frame.Dossier != nil:
			dossiers++
		case frame.Event != nil:
			events++
		case frame.Beat != 0 && c.host != "":
			return fmt.Sprintf("ok:%dp%dd", policies, dossiers), nil
		case frame.Beat != 0:
			return fmt.Sprintf("ok:%de", events), nil
		}
	}
}

// TestEveryRouteIsBoundAndNothingElse walks the table against the handlers.
func TestEveryRouteIsBoundAndNothingElse(t *testing.T) {
	s := New(Config{})
	bound := s.handlers()
	for _, route := range api.Routes() {
		if bound[route.Name] == nil {
			t.Errorf("%s %s has no handler", route.Method, route.Path)
		}
		if route.Who == api.Nobody {
			t.Errorf("%s %s says nobody may call it", route.Method, route.Path)
		}
		if !strings.HasPrefix(route.Path, "/v1/") && route.Path != "/healthz" {
			t.Errorf("%s is outside /v1/", route.Path)
		}
		if (route.MaxBody > 0) != (route.Method == http.MethodPost) {
			t.Errorf("%s %s takes %d bytes", route.Method, route.Path, route.MaxBody)
		}
		delete(bound, route.Name)
	}
	for name := range bound {
		t.Errorf("handler %s has no route", name)
	}
}
