package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// idler is somebody who opens connections to a broker, says what it says, and waits to be cut off.
type idler struct {
	name   string
	secure bool
	says   string
}

// idlers are mostly those whom a broker lets stay for a minute.
var idlers = append(slices.Repeat([]idler{{"one question, and no more", true, "GET /v1/policy HTTP/1.1\r\nHost: b1\r\n\r\n"}}, 15),
	idler{"nothing at all", false, ""},
	idler{"half a handshake", false, "\x16\x03\x01\x02"},
	idler{"a handshake and silence", true, ""},
	idler{"half a header", true, "GET /v1/policy HTTP/1.1\r\nHost: b1\r\n"},
	idler{"a body that never comes", true, "POST /v1/statements HTTP/1.1\r\nHost: b1\r\nContent-Length: 90000\r\n\r\n{"})

// idleCrowd keeps so many connections open, from eight addresses, until ctx ends: who is cut comes again.
type idleCrowd struct {
	address string
	config  *tls.Config
	coming  chan struct{} // one place for each that is shaking hands: this machine does both sides' work
	open    atomic.Int64
	most    atomic.Int64
	came    atomic.Int64
}

func (c *idleCrowd) run(ctx context.Context, size int) (wait func()) {
	var all sync.WaitGroup
	for i := range size {
		all.Go(func() {
			dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%8))}, Timeout: 10 * time.Second}
			for ctx.Err() == nil {
				if conn := c.come(ctx, dialer, idlers[i%len(idlers)]); conn != nil {
					c.stay(ctx, conn)
				}
			}
		})
	}
	return all.Wait
}

// come is one more connection, on which everything is said.
func (c *idleCrowd) come(ctx context.Context, dialer *net.Dialer, who idler) net.Conn {
	select {
	case c.coming <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-c.coming }()
	conn, err := dialer.DialContext(ctx, "tcp4", c.address)
	if err != nil {
		return nil
	}
	c.came.Add(1)
	if who.secure {
		conn = tls.Client(conn, c.config)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err == nil {
		_, _ = io.WriteString(conn, who.says) // the other side may have cut it by now
	}
	return conn
}

// stay waits until the connection is cut.
func (c *idleCrowd) stay(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	now := c.open.Add(1)
	defer c.open.Add(-1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	if err := conn.SetDeadline(time.Time{}); err == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

func pause(ctx context.Context, long time.Duration) {
	select {
	case <-time.After(long):
	case <-ctx.Done():
	}
}

// memory is what a process has in memory now, and had at most, in MB.
func memory(t *testing.T, pid int) (now, most int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var kb int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			now = kb >> 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			most = kb >> 10
		}
	}
	return now, most
}

// TestTenThousandIdleClientsShutNobodyOut has a real broker under ten thousand connections that do nothing, or next to it,
// while people work with it.
func TestTenThousandIdleClientsShutNobodyOut(t *testing.T) {
	size, lasts := 10_000, 15*time.Second
	if testing.Short() {
		size, lasts = 1_500, 5*time.Second
	}
	p := newProcess(t)
	p.start()
	b1 := p.chain.Current().Brokers[devName]
	before, _ := memory(t, p.cmd.Process.Pid)
	stream, err := p.as("frank").Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	crowd := &idleCrowd{address: b1.Address, config: api.ClientTLS(api.ProtocolHTTP, []statement.Key{b1.Identity}, nil), coming: make(chan struct{}, 16)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := crowd.run(ctx, size)
	for end := time.Now().Add(2 * time.Minute); crowd.open.Load() < int64(size)*9/10; pause(ctx, 100*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d of %d came", crowd.open.Load(), size)
		}
	}
	took := p.works(t, lasts)
	there := crowd.open.Load()
	_, most := memory(t, p.cmd.Process.Pid)
	cancel()
	wait()
	slices.Sort(took)
	t.Logf("%d idle clients (%d at once, %d in all): memory %d MB, at most %d MB; a request and a read by people: p50 %s, max %s, %d times",
		there, crowd.most.Load(), crowd.came.Load(), before, most, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), len(took))
	if most > before+size*64/1024+64 {
		t.Errorf("%d MB for %d idle clients", most-before, size)
	}
	for { // the auditor's stream went on
		frame, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if frame.Beat != 0 {
			break
		}
	}
}

// works files requests and reads for so long, and returns how long each pair took.
func (p *process) works(t *testing.T, lasts time.Duration) (took []time.Duration) {
	client, reader, failed := p.as("alice"), p.as("erin"), 0
	for end := time.Now().Add(lasts); time.Now().Before(end); pause(t.Context(), 200*time.Millisecond) {
		proof, err := p.ask("alice")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = client.Submit(t.Context(), proof)
		if err == nil {
			_, err = reader.Whoami(t.Context())
		}
		took = append(took, time.Since(start))
		if err != nil {
			failed++
			t.Logf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
		}
	}
	if failed > len(took)/10 {
		t.Errorf("people were not answered %d of %d times", failed, len(took))
	}
	return took
}
