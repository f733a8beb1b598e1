package api

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Timeouts of a client: what a person would still wait for.
const (
	dialTimeout   = 3 * time.Second
	answerTimeout = 15 * time.Second
)

// Timeouts of a client that can ask another broker instead.
const (
	nextDialTimeout   = 1 * time.Second
	nextAnswerTimeout = 6 * time.Second // longer than a broker that is well takes to say that it is unavailable
	electing          = 6 * time.Second // brokers replace a dead leader within three
	firstPause        = 50 * time.Millisecond
	lastPause         = 400 * time.Millisecond
)

// maxAnswer is the largest answer in bytes that a client reads.
const maxAnswer = 64 << 20

// Config says whom to call, and as whom.
type Config struct {
	Policy   *policy.Document   // its brokers' addresses and identity keys: the pins
	Address  string             // dial only this host:port instead (PIM_SSH_BROKER); the pins stay
	Reader   *Reader            // signs a person's reads; nil can only read what anyone may
	Identity ed25519.PrivateKey // a host's TLS key; nil for people
	Skip     int                // begin so many brokers later: a host was not content with those before

	// Dial makes the connections below TLS; nil dials from here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client calls the brokers of one deployment, one after the other until one answers. It is safe for concurrent use and
// keeps connections open until Close. Every error it returns is a *broker.Error or wraps one.
type Client struct {
	addresses []string
	first     *atomic.Int32 // which of them to ask first: the one that answered last
	patience  time.Duration // with one of them
	reader    *Reader
	http      *http.Client
	transport *http.Transport
}

// NewClient makes a client that believes only brokers of the given policy.
func NewClient(config Config) (*Client, error) {
	if config.Policy == nil || len(config.Policy.Brokers) == 0 {
		return nil, &broker.Error{Kind: broker.Invalid, Msg: "no brokers are known", Hint: "join a deployment: pim-ssh join CHAINFILE"}
	}
	pins := make([]statement.Key, 0, len(config.Policy.Brokers))
	addresses := make([]string, 0, len(config.Policy.Brokers))
	for _, name := range slices.Sorted(maps.Keys(config.Policy.Brokers)) {
		pins = append(pins, config.Policy.Brokers[name].Identity)
		addresses = append(addresses, config.Policy.Brokers[name].Address)
	}
	if config.Address != "" {
		addresses = []string{config.Address}
	}
	var own *tls.Certificate
	if config.Identity != nil {
		certificate, err := SelfSigned(rand.Reader, config.Identity)
		if err != nil {
			return nil, err
		}
		own = &certificate
	}
	dial, answer := dialTimeout, answerTimeout
	if len(addresses) > 1 {
		dial, answer = nextDialTimeout, nextAnswerTimeout
	}
	connect := config.Dial
	if connect == nil {
		connect = (&net.Dialer{Timeout: dial}).DialContext
	}
	transport := &http.Transport{
		DialContext:           connect,
		TLSClientConfig:       ClientTLS(ProtocolHTTP, pins, own),
		TLSHandshakeTimeout:   dial,
		ResponseHeaderTimeout: answer,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true,
	}
	following := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("brokers never redirect")
	}}
	c := &Client{addresses: addresses, first: new(atomic.Int32), patience: answer, reader: config.Reader, http: following, transport: transport}
	c.first.Store(int32((int(begin(config.Identity, len(addresses))) + config.Skip) % len(addresses)))
	return c, nil
}

// begin spreads hosts over the brokers by their keys; people begin with the first.
func begin(identity ed25519.PrivateKey, brokers int) int32 {
	if identity == nil {
		return 0
	}
	sum := sha256.Sum256(identity.Public().(ed25519.PublicKey))
	return int32(int(sum[0]) % brokers)
}

// As returns the same client reading as somebody: it shares connections, and the memory of which broker answered.
func (c *Client) As(reader *Reader) *Client {
	reading := *c
	reading.reader = reader
	return &reading
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Policies returns the policy revisions greater than after, in order, unverified: walk them with policy.Chain.
func (c *Client) Policies(ctx context.Context, after uint64) ([]statement.Proof, error) {
	var answer Policies
	err := c.get(ctx, "/v1/policy?after="+strconv.FormatUint(after, 10), &answer)
	return answer.Policies, err
}

// Submit files one signed statement. Filing the same statement again is harmless and gives the first answer, so an
// unavailable error (whose outcome is unknown) is answered by calling Submit again.
func (c *Client) Submit(ctx context.Context, proof statement.Proof) (Answer, error) {
	var answer Answer
	err := c.post(ctx, "/v1/statements", proof, &answer)
	return answer, err
}

// Whoami returns who the caller is in the broker's current policy.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	var answer Whoami
	err := c.get(ctx, "/v1/whoami", &answer)
	return answer, err
}

// Roles returns every role.
func (c *Client) Roles(ctx context.Context) ([]RoleView, error) {
	var answer Roles
	err := c.get(ctx, "/v1/roles", &answer)
	return answer.Roles, err
}

// Requests returns the pending requests that concern the caller.
func (c *Client) Requests(ctx context.Context) ([]RequestView, error) {
	var answer Requests
	err := c.get(ctx, "/v1/requests", &answer)
	return answer.Requests, err
}

// AllRequests returns the requests that concern the caller, terminal ones that brokers still hold included.
func (c *Client) AllRequests(ctx context.Context) ([]RequestView, error) {
	var answer Requests
	err := c.get(ctx, "/v1/requests?all=true", &answer)
	return answer.Requests, err
}

// Request returns one request by any unambiguous prefix of its id or of its grant's.
func (c *Client) Request(ctx context.Context, id string) (RequestView, error) {
	var answer RequestView
	err := c.get(ctx, "/v1/requests/"+url.PathEscape(id), &answer)
	return answer, err
}

// Grants returns the waiting and active grants that concern the caller.
func (c *Client) Grants(ctx context.Context) ([]GrantView, error) {
	var answer Grants
	err := c.get(ctx, "/v1/grants", &answer)
	return answer.Grants, err
}

// Grant returns one grant by any unambiguous prefix of its id or of its request's, with certificates for its holder.
func (c *Client) Grant(ctx context.Context, id string) (GrantView, error) {
	var answer GrantView
	err := c.get(ctx, "/v1/grants/"+url.PathEscape(id), &answer)
	return answer, err
}

// Inbox returns the requests that the caller can decide now.
func (c *Client) Inbox(ctx context.Context) ([]RequestView, error) {
	var answer Requests
	err := c.get(ctx, "/v1/inbox", &answer)
	return answer.Requests, err
}

// Reviews returns the emergency grants whose review the caller may close, or, to an auditor, all.
func (c *Client) Reviews(ctx context.Context) ([]broker.Review, error) {
	var answer Reviews
	err := c.get(ctx, "/v1/reviews", &answer)
	return answer.Reviews, err
}

// Renewals returns the caller's own open wishes for more time, or, to a steward, everybody's.
func (c *Client) Renewals(ctx context.Context) ([]broker.Renewal, error) {
	var answer Renewals
	err := c.get(ctx, "/v1/renewals", &answer)
	return answer.Renewals, err
}

// Hosts returns the enrolled hosts.
func (c *Client) Hosts(ctx context.Context) ([]HostView, error) {
	var answer Hosts
	err := c.get(ctx, "/v1/hosts", &answer)
	return answer.Hosts, err
}

// Record reads a broker's record, for auditors; hosts may read all of it but the entries. What is not there is also
// fs.ErrNotExist.
func (c *Client) Record(ctx context.Context) audit.Source {
	return func(path string) ([]byte, error) {
		var data []byte
		err := c.get(ctx, "/v1/"+path, &data)
		if broker.KindOf(err) == broker.Missing {
			err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
		}
		return data, err
	}
}

// ErrNotReady says that a broker was reached, and cannot answer for the cluster.
var ErrNotReady = errors.New("the broker is not ready")

// Health asks each broker in turn and returns nil when one is ready.
func (c *Client) Health(ctx context.Context) error {
	var answer Health
	if err := c.get(ctx, "/healthz", &answer); err != nil {
		return err
	}
	if !answer.Ready {
		return &broker.Error{Kind: broker.Unavailable, Msg: ErrNotReady.Error(), Hint: "try again in a moment", Err: ErrNotReady}
	}
	return nil
}

// unreachable is the error when no broker gave an answer.
func (c *Client) unreachable(causes []error) error {
	return &broker.Error{
		Kind: broker.Unavailable,
		Msg:  fmt.Sprintf("no broker answered: %s", brief(causes)),
		Hint: "check the network, or set PIM_SSH_BROKER=HOST:PORT",
		Err:  errors.Join(causes...),
	}
}
