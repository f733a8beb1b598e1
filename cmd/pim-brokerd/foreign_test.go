package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// TestOnlyABrokersKeySpeaksRaft knocks at a real broker of three with every kind of key; raft's own first bytes follow, so
// that whoever is let in is answered or waited for.
func TestOnlyABrokersKeySpeaksRaft(t *testing.T) {
	r := newTrio(t)
	follower := r.follower()
	address, pins := r.all[follower].address, []statement.Key{r.world.Chain.Current().Brokers[follower].Identity}
	broker := func(name statement.BrokerName) ed25519.PrivateKey {
		private, _, err := readIdentity(filepath.Join(r.all[name].dir, identityFile))
		r.must(err)
		return private
	}
	person, _ := forger.PrivateKey(t)
	for name, try := range map[string]struct {
		key    ed25519.PrivateKey
		enters bool
	}{
		"another broker's key":   {broker(r.leader()), true},
		"an enrolled host's key": {r.host, false},
		"a person's key":         {person, false},
		"no key":                 {nil, false},
	} {
		var own *tls.Certificate
		if try.key != nil {
			certificate, err := api.SelfSigned(rand.Reader, try.key)
			r.must(err)
			own = &certificate
		}
		if entered := enters(address, api.ClientTLS(api.ProtocolRaft, pins, own)); entered != try.enters {
			t.Errorf("%s: entered is %t", name, entered)
		}
	}
}

// enters reports whether the other side waits for us to speak on, instead of closing.
func enters(address string, config *tls.Config) bool {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, config)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	timeout, is := err.(interface{ Timeout() bool })
	return is && timeout.Timeout()
}

// TestNobodySpeaksRaftOrTakesWritesInABrokersPlace puts a server with a key that the policy does not list where a dead
// broker was: the others connect to it and say nothing.
func TestNobodySpeaksRaftOrTakesWritesInABrokersPlace(t *testing.T) {
	r := newTrio(t)
	victim := r.follower()
	r.kill(victim)
	private, _ := forger.PrivateKey(t)
	own, err := api.SelfSigned(rand.Reader, private)
	r.must(err)
	listener, err := net.Listen("tcp", r.all[victim].address)
	r.must(err)
	defer listener.Close()
	var came, spoke atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			go func() {
				defer conn.Close()
				secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{api.ProtocolRaft, api.ProtocolHTTP}, MinVersion: tls.VersionTLS13})
				if n, _ := secure.Read(make([]byte, 100)); n > 0 {
					spoke.Add(1)
				}
			}()
		}
	}()
	for range 5 {
		_, err := r.as("alice").Submit(t.Context(), r.ask("alice"))
		r.must(err)
	}
	r.within(10*time.Second, "the others try the false broker", func() bool { return came.Load() > 3 })
	if spoke.Load() != 0 {
		t.Errorf("%d of %d connections said something to a false broker", spoke.Load(), came.Load())
	}
}

// TestARemovedBrokerIsOut has the stewards drop a broker: its key is refused from then on, and its logs shown to it no more.
func TestARemovedBrokerIsOut(t *testing.T) {
	r := newTrio(t)
	gone := r.follower()
	calls := r.ownTLS(gone)
	leader := r.world.Chain.Current().Brokers[r.leader()]
	if _, err := calls.Events(t.Context(), leader, 0); err != nil {
		t.Fatalf("before: %v", err)
	}
	doc := r.world.Chain.Next(*r.world.Chain.Current(), r.world.Chain.Current().Expires)
	doc.Brokers = map[statement.BrokerName]policy.Broker{}
	for name, listed := range r.world.Chain.Current().Brokers {
		if name != gone {
			doc.Brokers[name] = listed
		}
	}
	_, err := r.as("dave").Submit(t.Context(), r.world.SignPolicy(doc, "dave"))
	r.must(err)
	if events, err := calls.Events(t.Context(), leader, 0); err == nil {
		t.Errorf("it was shown %d events", len(events))
	}
	private, _, err := readIdentity(filepath.Join(r.all[gone].dir, identityFile))
	r.must(err)
	own, err := api.SelfSigned(rand.Reader, private)
	r.must(err)
	if said := answered(t, leader.Address, api.ClientTLS(api.ProtocolRaft, []statement.Key{leader.Identity}, &own), string(gone)); !strings.HasPrefix(said, "policy 2 lists no broker "+string(gone)) {
		t.Errorf("greeting again, it hears %q", said)
	}
}

// answered greets as a broker would, and returns the sentence of the refusal; "" when it is spoken to.
func answered(t *testing.T, address string, config *tls.Config, id string) string {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said := append(bytes.Repeat([]byte{1}, 32), strings.Repeat("7", 32)...)
	if _, err := conn.Write(append(append(said, byte(len(id))), id...)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || len(answer) < 65 || !bytes.Equal(answer[:32], make([]byte, 32)) {
		return ""
	}
	return string(answer[65:])
}

// TestSlowHugeAndIdleClientsStopNobody has every broker of three besieged while people file.
func TestSlowHugeAndIdleClientsStopNobody(t *testing.T) {
	r := newTrio(t)
	var besieging []net.Conn
	var pins []statement.Key
	for _, listed := range r.world.Chain.Current().Brokers {
		pins = append(pins, listed.Identity)
	}
	secure := api.ClientTLS(api.ProtocolHTTP, pins, nil)
	for _, name := range r.names {
		for i := range 300 {
			conn, err := net.Dial("tcp", r.all[name].address)
			r.must(err)
			besieging = append(besieging, conn)
			if i%3 == 0 { // the rest never begin the handshake
				slow := tls.Client(conn, secure)
				r.must(slow.Handshake())
				_, err = io.WriteString(slow, "POST /v1/statements HTTP/1.1\r\nHost: b\r\nContent-Length: 90000\r\n\r\n{")
				r.must(err)
			}
		}
	}
	defer func() {
		for _, conn := range besieging {
			conn.Close()
		}
	}()
	huge := &http.Client{Transport: &http.Transport{TLSClientConfig: secure}, Timeout: 10 * time.Second}
	for _, name := range r.names {
		response, err := huge.Post("https://"+r.all[name].address+"/v1/statements", "application/json", strings.NewReader(strings.Repeat("x", 1<<20)))
		if err == nil && response.StatusCode < 400 {
			t.Errorf("%s took a megabyte: %d", name, response.StatusCode)
		}
	}
	took := r.filing(t, 30)
	t.Logf("besieged by %d slow and idle connections: a write takes p50 %s, max %s", len(besieging), took[len(took)/2], took[len(took)-1])
	if most := took[len(took)-1]; most > 2*time.Second {
		t.Errorf("a write took %s", most)
	}
	for _, name := range r.names {
		if kilobytes := resident(t, r.all[name].cmd.Process.Pid); kilobytes > 200<<10 {
			t.Errorf("%s uses %d KB", name, kilobytes)
		}
	}
}

// filing files n requests and returns how long each took, sorted.
func (r *trio) filing(t *testing.T, n int) []time.Duration {
	t.Helper()
	client := r.as("erin")
	var took []time.Duration
	for range n {
		start := time.Now()
		_, err := client.Submit(t.Context(), r.ask("erin"))
		r.must(err)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took
}

// resident is how much memory a process holds, in KB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	first, _, _ := strings.Cut(rest, "kB")
	kilobytes, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes
}
