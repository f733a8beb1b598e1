package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Timeouts between brokers. A leader that is silent for longer is no leader.
const (
	peerDialTimeout   = 1 * time.Second
	peerAnswerTimeout = 3 * time.Second
	peerIdle          = 32 // connections kept to one broker
)

// Peers calls other brokers over HTTP, each pinned to the one key that policy lists for it, and shows this broker's own.
// It is safe for concurrent use and keeps connections open until Close.
type Peers struct {
	own *tls.Certificate

	mu sync.Mutex
	by map[statement.Key]*http.Client
}

// NewPeers makes a caller with this broker's own TLS certificate; without one, others tell it nothing.
func NewPeers(own *tls.Certificate) *Peers {
	return &Peers{own: own, by: map[statement.Key]*http.Client{}}
}

// Index asks the broker that leads how many events there are.
func (p *Peers) Index(ctx context.Context, leader policy.Broker) (uint64, error) {
	var answer PeerIndex
	err := p.get(ctx, leader, "/v1/peer/index", &answer)
	return answer.Events, err
}

// Sum asks the broker that leads for the sum of the first so many events.
func (p *Peers) Sum(ctx context.Context, leader policy.Broker, events uint64) (statement.Hash, error) {
	var answer PeerSum
	err := p.get(ctx, leader, "/v1/peer/sum?of="+strconv.FormatUint(events, 10), &answer)
	return answer.Sum, err
}

// Events asks any broker for events from index on. What it says is not yet true.
func (p *Peers) Events(ctx context.Context, from policy.Broker, index uint64) ([][]byte, error) {
	var answer PeerEvents
	err := p.get(ctx, from, "/v1/peer/events?from="+strconv.FormatUint(index, 10), &answer)
	return answer.Events, err
}

// Passed is another broker's whole answer to a request that was passed on.
type Passed struct {
	status int
	header http.Header
	body   []byte
}

// Pass hands a request on as it came and reads the whole answer; whether the other broker has heard it is unknown after an
// error.
func (p *Peers) Pass(ctx context.Context, to policy.Broker, r *http.Request, body []byte) (Passed, error) {
	passed, err := http.NewRequestWithContext(ctx, r.Method, "https://"+to.Address+r.RequestURI, bytes.NewReader(body))
	if err != nil {
		return Passed{}, fmt.Errorf("passing on: %w", err)
	}
	passed.Header = r.Header.Clone()
	passed.Header.Set(HeaderPassed, "1")
	passed.Header.Del(HeaderSource) // what the caller says of itself
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		passed.Header.Set(HeaderSource, from.Addr().Unmap().WithZone("").String())
	}
	answer, err := p.client(to.Identity).Do(passed)
	if err != nil {
		return Passed{}, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return Passed{}, fmt.Errorf("its answer broke off: %w", err)
	}
	return Passed{answer.StatusCode, answer.Header, data}, nil
}

// Status is the answer's HTTP status.
func (a Passed) Status() int { return a.status }

// Write answers with it verbatim.
func (a Passed) Write(w http.ResponseWriter) error {
	for _, name := range []string{"Content-Type", "Cache-Control"} {
		w.Header().Set(name, a.header.Get(name))
	}
	w.WriteHeader(a.status)
	_, err := w.Write(a.body)
	return err
}

// Close drops idle connections.
func (p *Peers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, client := range p.by {
		client.CloseIdleConnections()
	}
}

func (p *Peers) get(ctx context.Context, to policy.Broker, pathAndQuery string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+to.Address+pathAndQuery, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", to.Address, err)
	}
	response, err := p.client(to.Identity).Do(request)
	if err != nil {
		return err
	}
	return readAnswer(response, into)
}

func (p *Peers) client(key statement.Key) *http.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.by[key]; known != nil {
		return known
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: peerDialTimeout}).DialContext,
			TLSClientConfig:       ClientTLS(ProtocolHTTP, []statement.Key{key}, p.own),
			TLSHandshakeTimeout:   peerDialTimeout,
			ResponseHeaderTimeout: peerAnswerTimeout,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConnsPerHost:   peerIdle,
			DisableCompression:    true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	p.by[key] = client
	return client
}
