package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// TestAnAuditorsWatchResumesExactly cuts the stream at every index while the log grows, and wants each event once.
func TestAnAuditorsWatchResumesExactly(t *testing.T) {
	s := newStage(t, nil, nil)
	s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	s.granted("erin", "web-deploy", "web1", forger.Key(t))
	total := s.index()
	var position *uint64
	for index := range total {
		stream, err := s.as("frank").Watch(t.Context(), position)
		s.must(err)
		frame := s.frames(stream, 1)[0]
		leaf, err := broker.EncodeEvent(s.event(index))
		s.must(err)
		if *frame.Index != index || string(frame.Event) != string(leaf) {
			t.Fatalf("got event %d %s, want %d %s", *frame.Index, frame.Event, index, leaf)
		}
		position = stream.Position()
		stream.Close()
		if index%4 == 0 {
			s.as("").Submit(t.Context(), s.world.Ask("mallory", "root", "db1", 60, forger.Key(t), nil))
		}
	}
	stream, err := s.as("frank").Watch(t.Context(), position)
	s.must(err)
	if frame := s.frames(stream, 1)[0]; *frame.Index != total {
		t.Errorf("then event %d, want %d", *frame.Index, total)
	}
}

// TestAPersonWatchesWhatIsTheirs holds alice's and mallory's streams against the whole log, from every start.
func TestAPersonWatchesWhatIsTheirs(t *testing.T) {
	s := newStage(t, nil, nil)
	grant := s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	s.granted("erin", "web-deploy", "web1", forger.Key(t))
	s.submit(s.end("dave", grant, statement.Revoke))
	s.refused(s.world.Ask("mallory", "root", "db1", 60, forger.Key(t), nil), broker.Missing)
	kinds := func(person statement.Person, after *uint64) (kinds []broker.EventKind) {
		stream, err := s.as(person).Watch(t.Context(), after)
		s.must(err)
		defer stream.Close()
		for {
			frame, err := stream.Next()
			s.must(err)
			if frame.Beat != 0 {
				return kinds
			}
			event, err := broker.DecodeEvent(frame.Event)
			s.must(err)
			kinds = append(kinds, event.Head().Kind)
		}
	}
	alices := []broker.EventKind{"RequestFiled", "DecisionFiled", "RequestApproved", "GrantOpened", "CertificateIssued", "GrantRevoked"}
	if diff := cmp.Diff(alices, kinds("alice", nil)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]broker.EventKind{"StatementRefused"}, kinds("mallory", nil)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]broker.EventKind{"DecisionFiled"}, kinds("bob", nil)); diff != "" {
		t.Error(diff)
	}
	late := s.index() - 3 // the revocation and mallory's refusal are still to come
	if diff := cmp.Diff([]broker.EventKind{"GrantRevoked"}, kinds("alice", &late)); diff != "" {
		t.Error(diff)
	}
}

// TestAHostWatchesWhatItNeedsToJudge follows db1 through grant, one more certificate, revocation and policy, and has it
// start over as a host that lost its disk.
func TestAHostWatchesWhatItNeedsToJudge(t *testing.T) {
	s := newStage(t, nil, nil)
	stream, err := s.host("db1").Watch(t.Context(), nil)
	s.must(err)
	opening := s.frames(stream, 1)[0]
	if opening.Policy == nil || opening.Policy.Hash() != s.world.Chain.Deployment() || opening.Index != nil {
		t.Fatalf("it starts with %+v, want the first policy and no index", opening)
	}
	grant := s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	s.granted("alice", "web-deploy", "web1", forger.Key(t))
	opened := s.frames(stream, 1)[0]
	if opened.Dossier == nil || opened.Dossier.Stem() != grant.Stem() {
		t.Fatalf("got %+v, want the dossier of %s", opened, grant)
	}
	if _, err := broker.Judge(s.world.Chain, *opened.Dossier, broker.Host{Name: "db1", Labels: map[string]string{"tier": "db"}}, forger.Now()); err != nil {
		t.Errorf("the host cannot judge it: %v", err)
	}
	s.submit(s.end("bob", grant, statement.Revoke))
	ended := s.frames(stream, 1)[0]
	if ended.Ended == nil || ended.Ended.How != broker.EndedByRevoke || broker.StemOf(ended.Ended.Request) != grant.Stem() {
		t.Fatalf("got %+v, want the end of %s", ended, grant)
	}
	ask := s.world.Ask("alice", "db-admin", "db1", 60, forger.Key(t), nil)
	withdrawn := s.submit(ask)
	s.submit(s.world.Sign(statement.End{Head: s.world.Head(statement.KindEnd, "alice"), Request: string(withdrawn.Request), How: statement.Withdraw}, "alice"))
	if frame := s.frames(stream, 1)[0]; frame.Ended == nil || frame.Ended.How != broker.EndedByWithdraw || frame.Ended.Request != ask.Hash() {
		t.Fatalf("got %+v, want the withdrawal", frame)
	}
	s.removeKey("mallory", "none of hers")
	if frame := s.frames(stream, 1)[0]; frame.Policy == nil || frame.Policy.Hash() != s.world.Chain.Ref().Hash {
		t.Fatalf("got %+v, want the new policy", frame)
	}

	unknown := s.index() + 7
	again, err := s.host("db1").Watch(t.Context(), &unknown)
	s.must(err)
	whole := s.frames(again, 4)
	if whole[0].Policy == nil || whole[1].Policy == nil || whole[2].Dossier == nil || whole[2].Dossier.Ended == nil || whole[3].Ended == nil {
		t.Errorf("starting over: %+v, want both policies, the ended dossier and the withdrawal", whole)
	}
	beat, err := again.Next()
	s.must(err)
	if beat.Beat == 0 || *beat.Index != s.index()-1 {
		t.Errorf("then %+v, want a beat at %d", beat, s.index()-1)
	}
}

// TestAHostsWatchResumesExactly cuts after every frame.
func TestAHostsWatchResumesExactly(t *testing.T) {
	s := newStage(t, nil, nil)
	start := s.index() - 1
	var want []broker.Stem
	for range 5 {
		grant := s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
		want = append(want, grant.Stem())
		s.submit(s.end("alice", grant, statement.Return))
	}
	position := &start
	for i, stem := range want {
		for _, what := range []string{"dossier", "end"} {
			stream, err := s.host("db1").Watch(t.Context(), position)
			s.must(err)
			frame := s.frames(stream, 1)[0]
			got := broker.Stem("")
			switch {
			case frame.Dossier != nil && what == "dossier":
				got = frame.Dossier.Stem()
			case frame.Ended != nil && what == "end":
				got = broker.StemOf(frame.Ended.Request)
			}
			if got != stem {
				t.Fatalf("frame %d: got %+v, want the %s of %s", i, frame, what, stem)
			}
			position = stream.Position()
			stream.Close()
		}
	}
}

// TestAWatchEndsWithTheRightToIt takes erin's key away while she watches.
func TestAWatchEndsWithTheRightToIt(t *testing.T) {
	s := newStage(t, nil, nil)
	stream, err := s.as("erin").Watch(t.Context(), nil)
	s.must(err)
	if frame, err := stream.Next(); err != nil || frame.Beat == 0 {
		t.Fatalf("%+v, %v", frame, err)
	}
	hers := signtest.Public(s.world.People["erin"])
	s.world.People["erin"] = forger.Key(t)
	s.revise(func(d *policy.Document) {
		entry := d.People["erin"]
		entry.Keys = []statement.Key{signtest.Public(s.world.People["erin"])}
		d.People["erin"] = entry
	})
	if frame, err := stream.Next(); err == nil {
		t.Errorf("the stream of %s goes on: %+v", hers.Fingerprint(), frame)
	}
}

// TestOneReaderHoldsOnlySoManyStreams opens one too many.
func TestOneReaderHoldsOnlySoManyStreams(t *testing.T) {
	s := newStage(t, nil, nil)
	client := s.as("alice")
	for range watchersPerName {
		stream, err := client.Watch(t.Context(), nil)
		s.must(err)
		defer stream.Close()
	}
	if _, err := client.Watch(t.Context(), nil); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("one more: %v", err)
	}
	stream, err := s.as("bob").Watch(t.Context(), nil)
	s.must(err)
	stream.Close()
}

// TestASlowReaderIsCut opens a stream and reads nothing while the log outgrows every buffer on the way.
func TestASlowReaderIsCut(t *testing.T) {
	t.Parallel() // it waits
	s := newStage(t, nil, func(server *Server, front *Front) {
		server.patience = 300 * time.Millisecond
		front.inner = narrow{front.inner}
	})
	conn := s.rawWatch("frank")
	defer conn.Close()
	long := make([]byte, 900)
	for i := range long {
		long[i] = 'x'
	}
	deadline := time.After(60 * time.Second)
	for s.open() > 0 {
		select {
		case <-deadline:
			t.Fatal("the stream is still open")
		default:
		}
		for range 40 {
			ask := s.world.Ask("mallory", "root", "db1", 60, forger.Key(t), func(r *statement.Request) { r.Reason = string(long) })
			s.as("").Submit(t.Context(), ask)
		}
	}
}

// narrow accepts connections that hold little on their way out.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if tcp, is := conn.(*net.TCPConn); is && err == nil {
		err = tcp.SetWriteBuffer(4 << 10)
	}
	return conn, err
}

// open is how many streams are open.
func (s *stage) open() int {
	s.server.watchers.mu.Lock()
	defer s.server.watchers.mu.Unlock()
	return s.server.watchers.total
}

// rawWatch opens a person's watch on a connection with small buffers, reads the answer's first line, and then nothing.
func (s *stage) rawWatch(person statement.Person) *tls.Conn {
	s.t.Helper()
	pins := []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	conn, err := s.dial(api.ClientTLS(api.ProtocolHTTP, pins, nil))
	s.must(err)
	s.must(conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10))
	header, err := s.reader(person).Sign(http.MethodGet, "/v1/watch")
	s.must(err)
	fmt.Fprintf(conn, "GET /v1/watch HTTP/1.1\r\nHost: b1\r\n%s: %s\r\n\r\n", api.HeaderProof, header.Get(api.HeaderProof))
	line, err := bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
	if err != nil || line != "HTTP/1.1 200 OK\r\n" {
		s.t.Fatalf("%q, %v", line, err)
	}
	return conn
}

// spied tells of every view while it is open.
type spied struct {
	Cluster
	during func()
}

func (c spied) View(ctx context.Context, fn func(*broker.State)) error {
	return c.Cluster.View(ctx, func(state *broker.State) {
		c.during()
		fn(state)
	})
}

// TestThreatAStrangerTakesNobodysStreams watches as alice with mallory's key: as long as it is not known whose word that is,
// none of alice's few places may be taken.
func TestThreatAStrangerTakesNobodysStreams(t *testing.T) {
	taken := 0
	s := newStage(t, nil, func(server *Server, _ *Front) {
		server.cluster = spied{server.cluster, func() {
			server.watchers.mu.Lock()
			defer server.watchers.mu.Unlock()
			taken += server.watchers.total
		}}
	})
	forged := s.reader("alice")
	forged.Signer = s.world.People["mallory"]
	client := s.client(api.Config{Policy: s.world.Chain.Current(), Reader: forged})
	if _, err := client.Watch(t.Context(), nil); broker.KindOf(err) != broker.Denied {
		t.Errorf("mallory as alice: %v", err)
	}
	if taken != 0 {
		t.Errorf("%d places were taken meanwhile", taken)
	}
}

// TestABeatIsNoNewerThanWhatWasSeen stops the broker for a minute right after it has looked at the state, as SIGSTOP may: the beat
// that follows must not call that look fresh.
func TestABeatIsNoNewerThanWhatWasSeen(t *testing.T) {
	var frozen atomic.Int64
	s := newStage(t, nil, func(server *Server, _ *Front) {
		server.now = func() statement.Time { return forger.Now() + statement.Time(frozen.Load()) }
		server.cluster = spied{server.cluster, func() { frozen.Add(60) }}
	})
	before := forger.Now() + statement.Time(frozen.Load())
	stream, err := s.host("db1").Watch(t.Context(), nil)
	s.must(err)
	defer stream.Close()
	for {
		frame, err := stream.Next()
		s.must(err)
		if frame.Beat == 0 {
			continue
		}
		// One look to let the host in, and a second one for the beat, which began after the first.
		if newest := before + 60 + 5; frame.Beat > newest {
			t.Errorf("the beat says %s, %d s after what it speaks of was seen", frame.Beat, frame.Beat-newest)
		}
		return
	}
}

// late shows fewer events than the state holds for a while, as a broker does that is catching up.
type late struct {
	Cluster
	hides atomic.Int32 // how often still
}

func (c *late) Events(index uint64, limit int) ([][]byte, <-chan struct{}, error) {
	if c.hides.Add(-1) >= 0 {
		grown := make(chan struct{})
		close(grown)
		return nil, grown, nil
	}
	return c.Cluster.Events(index, limit)
}

// TestABeatFollowsWhatWasAcknowledged watches at a broker that is catching up: its beat would tell the host that nothing has ended.
func TestABeatFollowsWhatWasAcknowledged(t *testing.T) {
	behind := &late{}
	s := newStage(t, nil, func(server *Server, _ *Front) {
		behind.Cluster, server.cluster = server.cluster, behind
	})
	grant := s.granted("alice", "web-deploy", "web1", s.world.People["alice"])
	before := s.index() - 1
	s.submit(s.world.Sign(statement.End{Head: s.world.Head(statement.KindEnd, "dave"), Grant: string(grant), How: statement.Revoke}, "dave"))
	behind.hides.Store(3)
	stream, err := s.host("web1").Watch(t.Context(), &before)
	s.must(err)
	defer stream.Close()
	frame, err := stream.Next()
	s.must(err)
	if frame.Ended == nil {
		t.Errorf("the revocation was acknowledged, and the host hears first: %+v", frame)
	}
}
