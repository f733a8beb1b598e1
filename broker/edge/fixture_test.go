package edge

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/effect"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/cluster"
	"pim-ssh/packaging/lab/forger"
)

// stage is a whole broker on a real port: raft, TLS, the front, and a deployment whose every private key is at hand.
type stage struct {
	t       testing.TB
	world   *forger.World
	node    *cluster.Node
	server  *Server
	record  *effect.Record // published when a test says so
	front   *Front
	address string
	hosts   map[statement.HostName]ed25519.PrivateKey
	reports map[statement.HostName]uint64
}

// newStage has db1 and web1 enrolled. edit may change the first policy, adjust the server before it serves.
func newStage(t testing.TB, edit func(*policy.Document), adjust func(*Server, *Front)) *stage {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, address: listener.Addr().String(), hosts: map[statement.HostName]ed25519.PrivateKey{}, reports: map[statement.HostName]uint64{}}
	s.world = forger.New(t, func(doc *policy.Document) {
		b1 := doc.Brokers["b1"]
		b1.Address = s.address
		doc.Brokers["b1"] = b1
		if edit != nil {
			edit(doc)
		}
	})
	s.openNode(listener)
	s.record = &effect.Record{Dir: t.TempDir(), Key: s.world.Log, Events: s.node, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s.server = New(Config{Cluster: s.node, CA: s.world.CA, Seeds: s.world.Identity, Record: s.record.Read, Member: alone{s.node}, Now: forger.Now, Random: rand.Reader, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if adjust != nil {
		adjust(s.server, s.front)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.front.Run(ctx) }()
	go func() { ended <- s.server.Serve(ctx, s.front.HTTP()) }()
	t.Cleanup(func() {
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if err := s.node.Close(); err != nil {
			t.Error(err)
		}
	})
	s.enrol("db1", "db")
	s.enrol("web1", "web")
	return s
}

func (s *stage) openNode(listener net.Listener) {
	s.t.Helper()
	own, err := api.SelfSigned(rand.Reader, s.world.Identity)
	s.must(err)
	s.front = NewFront(listener, api.ServerTLS(own, func() []statement.Key {
		return []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	}))
	config := cluster.Config{Name: "b1", Dir: s.t.TempDir(), Now: forger.Now, Log: io.Discard, Wire: cluster.Alone()}
	config.Wire.Listener = s.front.Raft()
	config.Wire.Who = func(net.Conn) (statement.BrokerName, error) { return "b1", nil } // nobody else has a key that enters
	s.must(cluster.Bootstrap(config, s.world.Chain.Proofs()))
	s.node, err = cluster.Open(config)
	s.must(err)
	s.must(s.node.Ready(s.t.Context()))
}

// alone is b1's place in a cluster of its own.
type alone struct{ *cluster.Node }

// Self is what b1 says of itself.
func (a alone) Self() api.PeerStatus {
	said := api.PeerStatus{Name: "b1", Disk: a.Disk(), Rules: broker.Rules, Version: "test", Now: forger.Now()}
	_ = a.Local(func(state *broker.State) { said.Events = state.Index() })
	return said
}

// Seats is b1's.
func (a alone) Seats() []Seat {
	var same []Seat
	for _, seat := range a.Node.Seats() {
		same = append(same, Seat(seat))
	}
	return same
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// reader signs reads as a person.
func (s *stage) reader(person statement.Person) *api.Reader {
	return &api.Reader{Person: person, Deployment: s.world.Chain.Deployment(), Policy: func() statement.PolicyRef { return s.world.Chain.Ref() },
		Signer: s.world.People[person], Now: forger.Now, Random: rand.Reader}
}

// as calls the broker as a person; "" is an outsider.
func (s *stage) as(person statement.Person) *api.Client {
	config := api.Config{Policy: s.world.Chain.Current()}
	if person != "" {
		config.Reader = s.reader(person)
	}
	return s.client(config)
}

// host calls the broker as an enrolled host.
func (s *stage) host(name statement.HostName) *api.Client {
	return s.client(api.Config{Policy: s.world.Chain.Current(), Identity: s.hosts[name]})
}

func (s *stage) client(config api.Config) *api.Client {
	s.t.Helper()
	client, err := api.NewClient(config)
	s.must(err)
	s.t.Cleanup(client.Close)
	return client
}

// submit files a statement that must be taken.
func (s *stage) submit(p statement.Proof) api.Answer {
	s.t.Helper()
	answer, err := s.as("").Submit(s.t.Context(), p)
	s.must(err)
	return answer
}

// refused files a statement that must be refused in this way.
func (s *stage) refused(p statement.Proof, kind broker.Kind) {
	s.t.Helper()
	if _, err := s.as("").Submit(s.t.Context(), p); broker.KindOf(err) != kind {
		s.t.Errorf("got %v, want %s", err, kind)
	}
}

// index is how many events there are.
func (s *stage) index() (index uint64) {
	s.t.Helper()
	s.must(s.node.View(s.t.Context(), func(state *broker.State) { index = state.Index() }))
	return index
}

func (s *stage) enrol(name statement.HostName, tier string) {
	s.t.Helper()
	once := forger.Key(s.t)
	private, identity := forger.PrivateKey(s.t)
	token := s.world.Sign(statement.HostToken{Head: s.world.Head(statement.KindHostToken, "dave"), Name: name, Labels: map[string]string{"tier": tier},
		Addresses: []string{string(name)}, Key: signtest.Public(once), Expires: forger.Now() + 3600}, "dave")
	head := s.world.Head(statement.KindEnrolment, "")
	head.Host = name
	p, err := statement.Sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte(name)), Identity: signtest.Public(identity),
		HostKeys: []statement.Key{signtest.Public(identity)}}, once, identity)
	s.must(err)
	s.submit(p)
	s.hosts[name] = private
}

// report is what a host says of itself.
func (s *stage) report(name statement.HostName, key ed25519.PrivateKey) statement.Proof {
	s.t.Helper()
	signer, err := ssh.NewSignerFromSigner(key)
	s.must(err)
	head := s.world.Head(statement.KindReport, "")
	head.Host = name
	s.reports[name]++
	p, err := statement.Sign(statement.Report{Head: head, Sequence: s.reports[name], What: statement.SessionRefused, Service: "sshd",
		Account: "postgres", At: forger.Now(), Why: "no grant"}, signer)
	s.must(err)
	return p
}

// granted asks as a person and approves as others; it returns the grant's id.
func (s *stage) granted(person statement.Person, role statement.RoleName, host statement.HostName, key ssh.Signer, approvers ...statement.Person) broker.GrantID {
	s.t.Helper()
	ask := s.world.Ask(person, role, host, 3600, key, nil)
	answer := s.submit(ask)
	for _, approver := range approvers {
		answer = s.submit(s.world.Approve(approver, ask, nil))
	}
	if answer.Grant == nil {
		s.t.Fatalf("no grant: %+v", answer)
	}
	return *answer.Grant
}

// end is a person's word that a grant is over.
func (s *stage) end(person statement.Person, grant broker.GrantID, how statement.How) statement.Proof {
	return s.world.Sign(statement.End{Head: s.world.Head(statement.KindEnd, person), Grant: string(grant), How: how}, person)
}

// frames reads n frames of a stream, beats excepted.
func (s *stage) frames(stream *api.Stream, n int) []api.Frame {
	s.t.Helper()
	var frames []api.Frame
	for len(frames) < n {
		frame, err := stream.Next()
		s.must(err)
		if frame.Beat == 0 {
			frames = append(frames, frame)
		}
	}
	return frames
}

// dial opens one TLS connection with a configuration of its own.
func (s *stage) dial(config *tls.Config) (*tls.Conn, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return tls.DialWithDialer(dialer, "tcp", s.address, config)
}
