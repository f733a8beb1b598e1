package edge

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/edge/judge"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Cluster is what edge needs of the cluster. Every method may be called from many goroutines.
type Cluster interface {
	// Propose has the cluster decide a command, which it stamps with its own time. Refusals are *broker.Error;
	// Unavailable means that the outcome is unknown and that proposing the same again is harmless.
	Propose(ctx context.Context, command broker.Command) (broker.Outcome, error)
	// View lets fn look at a state that holds everything acknowledged before the call, or fails with Unavailable. fn must
	// not keep the state.
	View(ctx context.Context, fn func(*broker.State)) error
	// Events returns at most limit committed events from index on, as their leaf bytes, and a channel that is closed once
	// there are more than there were.
	Events(index uint64, limit int) ([][]byte, <-chan struct{}, error)
	// Sum returns the end of the chain over the first so many events, which there must be.
	Sum(events uint64) (statement.Hash, error)
}

// Peer is what edge needs to be one broker among several.
type Peer interface {
	// Leader returns where the broker that leads is and which key it has; own reports that it is this one. With no
	// leader in sight it waits a moment for one, then fails with Unavailable.
	Leader(ctx context.Context) (leader policy.Broker, own bool, err error)
	// Lead is Cluster's View on the broker that leads, and broker.ErrNotLeader on any other.
	Lead(ctx context.Context, fn func(*broker.State)) error
}

// Deadlines and caps: what one caller may cost.
const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 15 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 5 * time.Second
	finishTimeout   = 500 * time.Millisecond // of requests in hand at a stop; then they are told to ask another broker
	maxHeader       = 40 << 10               // two proofs in base64
	maxFiling       = 64                     // statements being verified and decided at once
	maxLarge        = 4                      // policies too large for any other statement being read and decided at once
)

// Config is what a server needs from outside.
type Config struct {
	Cluster Cluster
	Peer    Peer       // nil: this broker is alone
	Peers   *api.Peers // calls other brokers; nil with Peer
	Member  Member
	CA      ssh.Signer
	Seeds   ed25519.PrivateKey // this broker's identity, which opens seeds; nil: it opens none
	Record  audit.Source       // this broker's record: its newest checkpoint and its tiles
	Now     func() statement.Time
	Random  io.Reader
	Log     *slog.Logger
}

// Server answers every route of package api.
type Server struct {
	cluster  Cluster
	peer     Peer
	peers    *api.Peers
	member   Member
	ca       ssh.Signer
	identity ed25519.PrivateKey // opens seeds
	hooks    *judge.Hooks
	record   audit.Source
	now      func() statement.Time
	random   io.Reader
	log      *slog.Logger
	mux      *http.ServeMux
	filing   chan struct{} // one slot for each statement in hand
	large    chan struct{} // one slot for each large one
	slotWait time.Duration // how long a statement waits for its slot
	rubbish  atomic.Uint64
	watchers watchers
	recent   recent
	spelled  spelled
	pace     pace // of people's and hosts' keys
	strange  pace // of all others: whoever makes keys shares with those who do, and with nobody else
	seen     sightings
	habits   habits
	patience time.Duration // how long a watcher may take for one frame
	stopping chan struct{} // closed when Serve ends: streams end too
}

// New makes a server with the table of routes bound.
func New(config Config) *Server {
	s := &Server{
		cluster: config.Cluster, peer: config.Peer, peers: config.Peers, member: config.Member, ca: config.CA, identity: config.Seeds, hooks: judge.NewHooks(config.Random), record: config.Record, now: config.Now,
		random: config.Random, log: config.Log, mux: http.NewServeMux(), filing: make(chan struct{}, maxFiling), large: make(chan struct{}, maxLarge),
		pace: pace{members: true}, slotWait: headerTimeout, patience: frameTimeout, stopping: make(chan struct{}),
	}
	bound := s.handlers()
	for _, route := range api.Routes() {
		s.mux.Handle(route.Method+" "+route.Path, guarded{s, route, bound[route.Name]})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answerError(w, errNoRoute) })
	return s
}

// handler answers one request: what it returns is encoded as JSON, an error as a Problem. A handler that has answered by
// itself returns nil, nil.
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

// handlers binds the names of api's routes. What has no handler is refused.
func (s *Server) handlers() map[api.RouteName]handler {
	return map[api.RouteName]handler{
		api.RoutePolicy:     s.policy,
		api.RouteStatements: s.statements,
		api.RouteWhoami:     s.read(whoami),
		api.RouteRoles:      s.read(roles),
		api.RouteRequests:   s.requests(requests),
		api.RouteRequest:    s.request,
		api.RouteGrants:     s.read(grants),
		api.RouteGrant:      s.grant,
		api.RouteInbox:      s.requests(inbox),
		api.RouteReviews:    s.read(reviews),
		api.RouteRenewals:   s.read(renewals),
		api.RouteHosts:      s.read(s.hosts),
		api.RouteWatch:      s.watch,
		api.RouteCheckpoint: s.recordFile,
		api.RouteTile:       s.recordFile,
		api.RouteCluster:    s.clusterStatus,
		api.RouteHealth:     s.health,
		api.RoutePeerIndex:  s.peerIndex,
		api.RoutePeerEvents: s.peerEvents,
		api.RoutePeerSum:    s.peerSum,
		api.RoutePeerStatus: s.peerStatus,
	}
}

// view has the state looked at, and returns why it could not be or what ask refuses.
func (s *Server) view(ctx context.Context, ask func(*broker.State) error) error {
	var refused error
	err := s.cluster.View(ctx, func(state *broker.State) { refused = ask(state) })
	return cmp.Or(err, refused)
}

// Rubbish returns how many bodies and headers were no well-signed statement. They are counted and leave nothing else.
func (s *Server) Rubbish() uint64 { return s.rubbish.Load() }

// ServeHTTP answers requests whose path has only one spelling; every other is refused before it is routed.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked, _, _ := strings.Cut(r.RequestURI, "?")
	if asked != r.URL.Path || !strings.HasPrefix(asked, "/") || path.Clean(asked) != asked {
		answerError(w, errNoRoute)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Serve answers on a listener of TLS connections until ctx ends, then lets requests in hand finish.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var spare newcomers
	inHand, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	server := &http.Server{
		Handler: s, BaseContext: func(net.Listener) context.Context { return inHand }, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ConnContext: withPlace, ConnState: func(conn net.Conn, is http.ConnState) {
			spare.note(conn, is)
			if c := placeOf(conn); c != nil {
				c.used()
			}
		},
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		close(s.stopping)
		return err
	case <-ctx.Done():
	}
	close(s.stopping)
	spare.close()
	defer time.AfterFunc(finishTimeout, abandon).Stop() // one that waits for a leader may not hear of the next here
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		s.log.Warn("stopping with requests in hand", "error", err)
		return server.Close()
	}
	return nil
}

// health says whether this broker can answer.
func (s *Server) health(_ http.ResponseWriter, r *http.Request) (any, error) {
	err := s.cluster.View(r.Context(), func(*broker.State) {})
	return api.Health{Ready: err == nil}, nil
}
