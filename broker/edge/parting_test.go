package edge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"pim-ssh/broker/statement"
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
