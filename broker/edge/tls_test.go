package edge

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

func TestAClientRefusesABrokerWhoseKeyThePolicyDoesNotList(t *testing.T) {
	s := newStage(t, nil, nil)
	doc := *s.world.Chain.Current()
	b1 := doc.Brokers["b1"]
	b1.Identity = signtest.Public(forger.Key(t))
	doc.Brokers = map[statement.BrokerName]policy.Broker{"b1": b1}
	client := s.client(api.Config{Policy: &doc, Reader: s.reader("alice")})
	if who, err := client.Whoami(t.Context()); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("got %+v, %v; want no broker it believes", who, err)
	}
	if _, err := client.Submit(t.Context(), s.world.Ask("alice", "web-deploy", "web1", 60, forger.Key(t), nil)); err == nil {
		t.Error("a statement went to a broker nobody listed")
	}
}

// TestWhoMayShakeHands tries every wrong way in. TLS 1.3 tells a refused client only after its own Finished, so each
// attempt also reads.
func TestWhoMayShakeHands(t *testing.T) {
	s := newStage(t, nil, nil)
	pins := []statement.Key{s.world.Chain.Current().Brokers["b1"].Identity}
	own := func(name string) *tls.Certificate {
		key := s.hosts["db1"]
		switch name {
		case "broker":
			key = s.world.Identity
		case "stranger":
			key, _ = forger.PrivateKey(t)
		case "":
			return nil
		}
		certificate, err := api.SelfSigned(rand.Reader, key)
		s.must(err)
		return &certificate
	}
	for name, try := range map[string]struct {
		config *tls.Config
		enters bool
	}{
		"a broker's key speaks raft":       {api.ClientTLS(api.ProtocolRaft, pins, own("broker")), true},
		"a host's key never speaks raft":   {api.ClientTLS(api.ProtocolRaft, pins, own("host")), false},
		"a stranger never speaks raft":     {api.ClientTLS(api.ProtocolRaft, pins, own("stranger")), false},
		"nobody speaks raft without a key": {api.ClientTLS(api.ProtocolRaft, pins, nil), false},
		"anybody speaks HTTP":              {api.ClientTLS(api.ProtocolHTTP, pins, nil), true},
		"TLS 1.2 is refused":               {&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{api.ProtocolHTTP}}, false},
		"no protocol is refused":           {&tls.Config{InsecureSkipVerify: true}, false},
		"an unknown protocol is refused":   {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, false},
		"raft is refused beside TLS 1.2":   {&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{api.ProtocolRaft}, Certificates: []tls.Certificate{*own("broker")}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := s.dial(try.config)
			if err == nil {
				defer conn.Close()
				err = settled(conn)
			}
			if entered := err == nil; entered != try.enters {
				t.Errorf("entered: %t, %v", entered, err)
			}
		})
	}
}

// settled waits a moment for the server's refusal: silence means that it waits for us, so we are in.
func settled(conn *tls.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if timeout, is := err.(interface{ Timeout() bool }); is && timeout.Timeout() {
		return nil
	}
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
