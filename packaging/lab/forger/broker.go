package forger

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// Broker is a broker process in an attacker's hands: it holds a real identity key, speaks the routes that hosts use, and
// says whatever it is told to say.
type Broker struct {
	server *http.Server
	done   chan struct{} // closed when the server has ended

	mu      sync.Mutex
	key     ed25519.PrivateKey
	chain   []statement.Proof           // what it says the policy is
	shown   []api.Frame                 // what every new stream hears first, after the chain
	streams map[chan []byte]bool        // lines to hosts that listen now
	posted  []statement.Proof           // what hosts have filed
	skew    statement.Seconds           // of the clock in its beats
	frozen  bool                        // says no beats
	instead http.HandlerFunc            // answers every call, when set
	conns   map[net.Conn]http.ConnState // to hang up on
}

// beatEvery is faster than an honest broker's, so that tests need not wait.
const beatEvery = time.Second

// Serve runs an owned broker on a listener until the test ends.
func (w *World) Serve(l net.Listener) *Broker {
	w.T.Helper()
	b := &Broker{done: make(chan struct{}), key: w.Identity, chain: w.Chain.Proofs(), streams: map[chan []byte]bool{}, conns: map[net.Conn]http.ConnState{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/watch", b.watch)
	mux.HandleFunc("POST /v1/statements", b.take)
	b.server = &http.Server{Handler: b.orInstead(mux), ConnState: b.track, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{api.ProtocolHTTP}, ClientAuth: tls.RequestClientCert,
			SessionTicketsDisabled: true, GetCertificate: b.certificate}}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer close(b.done)
		_ = b.server.ServeTLS(l, "", "")
	}()
	go b.beat(ctx)
	w.T.Cleanup(func() {
		stop()
		_ = b.server.Close()
		<-b.done
	})
	return b
}

func (b *Broker) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own, err := api.SelfSigned(rand.Reader, b.key)
	return &own, err
}

func (b *Broker) orInstead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		instead := b.instead
		b.mu.Unlock()
		if instead != nil {
			instead(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Become makes the broker's process show another identity key and answer calls by instead (nil: as a broker does), and
// hangs up on every host, which then calls again.
func (b *Broker) Become(key ed25519.PrivateKey, instead http.HandlerFunc) {
	b.mu.Lock()
	b.key, b.instead = key, instead
	conns := b.conns
	b.conns = map[net.Conn]http.ConnState{}
	b.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
}

func (b *Broker) track(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(b.conns, c)
		return
	}
	b.conns[c] = state
}

// take accepts every statement a host files.
func (b *Broker) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, api.MaxStatementBody))
	if err != nil {
		return
	}
	proof, err := statement.ParseProof(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.posted = append(b.posted, proof)
	b.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"index":1,"grant":null}`)
}

// Posted is what hosts have filed so far.
func (b *Broker) Posted() []statement.Proof {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.posted)
}

// watch says the chain, everything shown so far and a beat, and then what comes.
func (b *Broker) watch(w http.ResponseWriter, r *http.Request) {
	lines := make(chan []byte, 1024)
	b.mu.Lock()
	for _, p := range b.chain {
		lines <- line(api.Frame{Policy: &p})
	}
	for _, f := range b.shown {
		lines <- line(f)
	}
	if !b.frozen {
		lines <- b.beatLine()
	}
	b.streams[lines] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.streams, lines)
		b.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	for {
		select {
		case <-r.Context().Done():
			return
		case l := <-lines:
			if _, err := w.Write(l); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
	}
}

// Pretend makes the broker say, to whoever calls from now on, that the policy is this.
func (b *Broker) Pretend(chain []statement.Proof) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chain = chain
}

// Forget drops what was shown so far, for whoever calls from now on.
func (b *Broker) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shown = nil
}

// Show shows a dossier to every host that listens, now and later.
func (b *Broker) Show(d broker.Dossier) { b.say(api.Frame{Dossier: &d}, true) }

// ShowPolicy shows a policy revision to every host that listens, now and later.
func (b *Broker) ShowPolicy(p statement.Proof) { b.say(api.Frame{Policy: &p}, true) }

// End says that a request's grant is over.
func (b *Broker) End(d broker.Dossier, how broker.EndedHow) {
	b.say(api.Frame{Ended: &api.EndedFrame{Request: d.Request.Hash(), How: how, At: Now()}}, false)
}

func (b *Broker) say(f api.Frame, again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if again {
		b.shown = append(b.shown, f)
	}
	b.send(line(f))
}

// Say sends bytes as they are down every open stream.
func (b *Broker) Say(bytes []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.send(bytes)
}

// send drops what a host that does not read cannot take. The caller holds mu.
func (b *Broker) send(bytes []byte) {
	for lines := range b.streams {
		select {
		case lines <- bytes:
		default:
		}
	}
}

// Freeze stops the beats, or starts them again with a clock that is wrong by skew.
func (b *Broker) Freeze(frozen bool, skew statement.Seconds) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen, b.skew = frozen, skew
	if !frozen {
		b.send(b.beatLine())
	}
}

// Listeners is how many hosts listen at this moment.
func (b *Broker) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.streams)
}

func (b *Broker) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		if !b.frozen {
			b.send(b.beatLine())
		}
		b.mu.Unlock()
	}
}

func (b *Broker) beatLine() []byte { return line(api.Frame{Beat: Now().Add(b.skew)}) }

func line(f api.Frame) []byte {
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // a frame of ours always encodes
	}
	return append(data, '\n')
}
