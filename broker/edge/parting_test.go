package edge

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
	"pim-ssh/packaging/lab/forger"
)

// TestAConnectionThatAskedNothingHoldsUpNoStop: clients keep a spare connection that never carried a request. It is no reason
// to wait, or to end with an error.
func TestAConnectionThatAskedNothingHoldsUpNoStop(t *testing.T) {
	s := New(Config{Now: func() statement.Time { return 1 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	for range 3 {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	asked, err := net.Dial("tcp", listener.Addr().String()) // accepted after the others, and answered
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	if _, err := io.WriteString(asked, "GET /nothing HTTP/1.1\r\nHost: b1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(asked, make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	stop()
	begun := time.Now()
	select {
	case err := <-ended:
		if took := time.Since(begun); err != nil || took > time.Second {
			t.Errorf("it took %s to stop: %v", took, err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it never stopped")
	}
}

// looked says when the state is asked for.
type looked struct {
	*cluster.Node
	looks chan struct{}
}

func (l looked) View(ctx context.Context, look func(*broker.State)) error {
	l.looks <- struct{}{}
	return l.Node.View(ctx, look)
}

// TestARequestThatWaitsForALeaderHoldsUpNoStop: a broker that stops may not hear who leads next. What waits for that is told
// to ask another broker.
func TestARequestThatWaitsForALeaderHoldsUpNoStop(t *testing.T) {
	t.Parallel() // it waits
	fresh := func() statement.Key {
		key, err := statement.KeyOf(forger.Key(t).PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	world := forger.New(t, func(doc *policy.Document) {
		doc.Brokers["b2"] = policy.Broker{Address: "127.0.0.1:1", Identity: fresh(), CA: fresh(), Log: fresh()}
	})
	config := cluster.Config{Name: "b1", Dir: t.TempDir(), Now: forger.Now, Log: io.Discard, Wire: cluster.Alone()}
	if err := cluster.Bootstrap(config, world.Chain.Proofs()); err != nil {
		t.Fatal(err)
	}
	node, err := cluster.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	looks := make(chan struct{}, 2)
	s := New(Config{Cluster: looked{node, looks}, Now: forger.Now, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	asked, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	if _, err := io.WriteString(asked, "GET /healthz HTTP/1.1\r\nHost: b1\r\n\r\nGET /v1/policy HTTP/1.1\r\nHost: b1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	answers := bufio.NewReader(asked)
	first, err := http.ReadResponse(answers, nil) // it took a while to say that it cannot answer; the next waits now
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first.Body); err != nil {
		t.Fatal(err)
	}
	waited := time.Since(begun)
	<-looks
	<-looks
	stop()
	begun = time.Now()
	second, err := http.ReadResponse(answers, nil)
	if err != nil || second.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v %v", second, err)
	}
	if err := <-ended; err != nil || time.Since(begun) > waited/2 {
		t.Errorf("it took %s to stop, where a question without a leader takes %s: %v", time.Since(begun), waited, err)
	}
}
