package api

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// What is spoken on the one port, told apart by ALPN.
const (
	ProtocolHTTP = "http/1.1"
	ProtocolRaft = "pim-raft/1" // between brokers only
)

// SelfSigned wraps an ed25519 identity in a certificate for TLS. Nothing in it is believed but its key, which the
// other side has pinned from policy or enrolment, so its dates are all of time and its name says nothing.
func SelfSigned(random io.Reader, identity ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "pim-ssh"},
		NotBefore:    time.Unix(0, 0).UTC(),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280: no expiry
	}
	der, err := x509.CreateCertificate(random, template, template, identity.Public(), identity)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: identity}, nil
}

// PeerKey returns the ed25519 key that the other side of the connection proved it holds, and whether it showed one.
func PeerKey(state tls.ConnectionState) (statement.Key, bool) {
	if len(state.PeerCertificates) == 0 {
		return "", false
	}
	raw, isEd25519 := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !isEd25519 {
		return "", false
	}
	public, err := ssh.NewPublicKey(raw)
	if err != nil {
		return "", false
	}
	key, err := statement.KeyOf(public)
	return key, err == nil
}

// ClientTLS dials a broker that must hold one of the pinned keys and speak the protocol. Our own certificate may be
// nil: people show none.
func ClientTLS(protocol string, pins []statement.Key, own *tls.Certificate) *tls.Config {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		InsecureSkipVerify:     true, // names and authorities mean nothing here: VerifyConnection pins the key instead
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return checkPeer(state, protocol, pins)
		},
	}
	if own != nil {
		config.Certificates = []tls.Certificate{*own}
	}
	return config
}

// errWrongBroker is what a client says of a broker whose key the policy does not list.
var errWrongBroker = errors.New("the broker's key is not in the policy")

func checkPeer(state tls.ConnectionState, protocol string, pins []statement.Key) error {
	if state.NegotiatedProtocol != protocol {
		return fmt.Errorf("the other side does not speak %s", protocol)
	}
	key, shown := PeerKey(state)
	if !shown || !slices.Contains(pins, key) {
		return errWrongBroker
	}
	return nil
}

// ServerTLS serves both protocols over one identity. Whoever asks for raft must hold one of the keys that brokers
// returns at that moment; an HTTP caller may show a key or not, and edge looks it up.
func ServerTLS(own tls.Certificate, brokers func() []statement.Key) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ProtocolHTTP, ProtocolRaft},
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			switch state.NegotiatedProtocol {
			case ProtocolHTTP:
				return nil
			case ProtocolRaft:
				return checkPeer(state, ProtocolRaft, brokers())
			default:
				return errors.New("no protocol agreed")
			}
		},
	}
}
