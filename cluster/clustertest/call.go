package clustertest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// How long the callers wait; as api's client and brokers' calls to each other do.
const (
	callPatience   = 6 * time.Second
	leaderPatience = 2 * time.Second
	leaderEvery    = 20 * time.Millisecond
	passPatience   = 3 * time.Second
)

// answer is what a caller got to hear of a broker.
type answer struct {
	status int
	body   []byte
}

// errUnheard says that no answer came: what was asked may have happened.
var errUnheard = errors.New("no answer")

// call asks a broker as a client does, over a network that takes its time and now and then loses the answer.
func (c *Cluster) call(ctx context.Context, to statement.BrokerName, way float64, request *http.Request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	d, _ := c.Wires.late("", to)
	if err := pause(ctx, d); err != nil {
		return answer{}, errUnheard
	}
	l := c.brokers[to].current()
	if l == nil {
		return answer{}, errRefused
	}
	got, err := l.serve(ctx, request)
	if err != nil {
		return answer{}, err
	}
	d, _ = c.Wires.late(to, "")
	if err := pause(ctx, d); err != nil || way < c.Wires.of(to, "").loss {
		return answer{}, errUnheard
	}
	return got, nil
}

// serve has a broker answer. It passes statements on to the broker that leads, as edge does in pim-brokerd.
func (l *life) serve(ctx context.Context, request *http.Request) (answer, error) {
	wires := l.broker.cluster.Wires
	if err := wires.thawed(ctx, l.broker.Name); err != nil {
		return answer{}, errUnheard
	}
	got, err := l.passOrHandle(ctx, request)
	if err != nil || l.gone.Load() {
		return answer{}, errUnheard
	}
	if err := wires.thawed(ctx, l.broker.Name); err != nil || l.gone.Load() {
		return answer{}, errUnheard
	}
	return got, nil
}

func (l *life) passOrHandle(ctx context.Context, request *http.Request) (answer, error) {
	if request.Method != http.MethodPost {
		return l.handle(ctx, request), nil
	}
	leader := l.leader(ctx)
	if leader == "" || leader == l.broker.Name {
		return l.handle(ctx, request), nil
	}
	ctx, cancel := context.WithTimeout(ctx, passPatience)
	defer cancel()
	var got answer
	err := l.ask(ctx, leader, func(there *life) error {
		got = there.handle(ctx, request)
		return nil
	})
	return got, err
}

// leader waits a moment for somebody to lead.
func (l *life) leader(ctx context.Context) statement.BrokerName {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for {
		if leader := l.node.Leader(); leader != "" {
			return leader
		}
		if pause(ctx, leaderEvery) != nil {
			return ""
		}
	}
}

// handle is the broker's own edge. A process that dies answers nothing more, and neither does one that hangs.
func (l *life) handle(ctx context.Context, request *http.Request) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(l.ctx, cancel)
	defer stop()
	recorder := httptest.NewRecorder()
	again := request.Clone(ctx)
	if request.GetBody != nil {
		again.Body, _ = request.GetBody() // of bytes: it cannot fail
	}
	l.edge.ServeHTTP(recorder, again)
	return answer{recorder.Code, recorder.Body.Bytes()}
}

// post is a statement on its way.
func post(proof statement.Proof) *http.Request {
	body, err := json.Marshal(proof)
	if err != nil {
		panic(err)
	}
	request := httptest.NewRequest(http.MethodPost, "/v1/statements", bytes.NewReader(body))
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	request.Header.Set("Content-Type", "application/json")
	return request
}

// problem is the refusal in an answer; Unavailable when it is none.
func (a answer) problem() *broker.Error {
	var told api.Problem
	if err := json.Unmarshal(a.body, &told); err != nil || told.Kind == "" {
		return &broker.Error{Kind: broker.Unavailable, Msg: string(a.body)}
	}
	return &broker.Error{Kind: broker.Kind(told.Kind), Msg: told.Message}
}

// watch opens a host's stream at a broker. Frames arrive until the broker or the caller ends it; then the channel closes.
func (c *Cluster) watch(ctx context.Context, at statement.BrokerName, key ed25519.PublicKey, path string) (<-chan api.Frame, error) {
	l := c.brokers[at].current()
	if l == nil {
		return nil, errRefused
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(l.ctx, cancel)
	request := httptest.NewRequest(http.MethodGet, path, nil).WithContext(ctx)
	request.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{PublicKey: key}}}
	out := &feed{life: l, ctx: ctx, lines: make(chan []byte, 64)}
	frames := make(chan api.Frame, 64)
	go func() {
		defer cancel()
		defer close(out.lines)
		l.edge.ServeHTTP(out, request)
	}()
	go func() {
		defer cancel()
		defer close(frames)
		for line := range out.lines {
			var frame api.Frame
			if err := statement.DecodeStrict(line, &frame); err != nil {
				return // it was an answer, and a refusal
			}
			select {
			case frames <- frame:
			case <-ctx.Done():
			}
		}
	}()
	return frames, nil
}

// feed is the broker's end of a stream.
type feed struct {
	life  *life
	ctx   context.Context
	lines chan []byte
	mu    sync.Mutex
	head  http.Header
}

// Header is what nobody reads here.
func (f *feed) Header() http.Header {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.head == nil {
		f.head = http.Header{}
	}
	return f.head
}

// WriteHeader changes nothing: a refusal is no frame.
func (f *feed) WriteHeader(int) {}

// Write sends one line, unless its broker is dead.
func (f *feed) Write(p []byte) (int, error) {
	if err := f.life.broker.cluster.Wires.thawed(f.ctx, f.life.broker.Name); err != nil || f.life.gone.Load() {
		return 0, errReset
	}
	select {
	case f.lines <- bytes.TrimSuffix(bytes.Clone(p), []byte("\n")):
		return len(p), nil
	case <-f.ctx.Done():
		return 0, errReset
	}
}

// Flush has nothing to do.
func (f *feed) Flush() {}

// SetReadDeadline and SetWriteDeadline are the stream's own business here: ctx ends it.
func (f *feed) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is as SetReadDeadline.
func (f *feed) SetWriteDeadline(time.Time) error { return nil }
