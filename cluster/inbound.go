package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// transport is raft's transport. What goes out is raft's own network transport. What comes in has one of those for each
// connection, so that the name in every message can be held to the broker at the other end: raft itself believes it, and a
// broker without a vote could stand for election in the name of one that has it.
type transport struct {
	*raft.NetworkTransport // outbound; it accepts nothing

	reach     outbound
	door      *door
	out       io.Writer
	incoming  chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]
	clocks    *clocks
	ctx       context.Context // ends with stop
	stop      context.CancelFunc
	running   sync.WaitGroup
	beating   sync.WaitGroup // heartbeats being answered

	mu   sync.Mutex
	open map[net.Conn]struct{} // nil once closed
}

func newTransport(config Config, door *door, clocks *clocks) *transport {
	t := &transport{reach: outbound{Wire: config.Wire, door: door, mute: newMute()}, door: door, clocks: clocks, out: config.Log,
		incoming: make(chan raft.RPC), open: map[net.Conn]struct{}{}}
	t.NetworkTransport = raft.NewNetworkTransport(t.reach, wirePool, wireTimeout, config.Log)
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// Consumer gives raft what other brokers ask.
func (t *transport) Consumer() <-chan raft.RPC { return t.incoming }

// SetHeartbeatHandler says who answers heartbeats past raft's main loop.
func (t *transport) SetHeartbeatHandler(by func(raft.RPC)) { t.heartbeat.Store(&by) }

// start begins to listen; before, nobody is heard.
func (t *transport) start() { t.running.Go(t.listen) }

// prompt has raft stand for election at once: where nobody else votes there is no silence to wait for.
func (t *transport) prompt() {
	t.hand(&raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}})
}

// hand gives raft a message that nobody sent, and does not wait for the answer.
func (t *transport) hand(message any) {
	rpc := raft.RPC{RespChan: make(chan raft.RPCResponse, 1), Command: message}
	t.running.Go(func() {
		select {
		case t.incoming <- rpc:
		case <-t.ctx.Done():
		}
	})
}

// listen accepts connections until the listener is closed.
func (t *transport) listen() {
	for {
		conn, err := t.reach.Listener.Accept()
		if err != nil {
			return
		}
		t.take(conn)
	}
}

// take serves a connection, and remembers it to close it at the end.
func (t *transport) take(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		conn.Close()
		return
	}
	t.open[conn] = struct{}{}
	t.running.Go(func() { t.serve(conn) })
}

func (t *transport) drop(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, conn)
	conn.Close()
}

// serve speaks with one broker until either side closes.
func (t *transport) serve(conn net.Conn) {
	defer t.drop(conn)
	name, denied := t.reach.Who(conn)
	if name == "" {
		return
	}
	id, err := t.door.welcome(name, denied, conn)
	if err != nil {
		return
	}
	one := &single{Conn: conn, closed: make(chan struct{}), over: make(chan struct{})}
	inner := raft.NewNetworkTransport(one, 0, wireTimeout, t.out)
	defer func() {
		inner.Close()
		close(one.over)
	}()
	inner.SetHeartbeatHandler(func(rpc raft.RPC) {
		if t.admits(id, rpc, one) {
			t.beat(rpc)
		}
	})
	for t.forward(id, inner, one) {
	}
}

// beat has raft answer a heartbeat, which may write to the disk: Close waits for it.
func (t *transport) beat(rpc raft.RPC) {
	t.mu.Lock()
	by := t.heartbeat.Load()
	if t.open == nil || by == nil {
		t.mu.Unlock()
		return
	}
	t.beating.Add(1)
	t.mu.Unlock()
	defer t.beating.Done()
	(*by)(rpc)
}

// forward hands one message to raft. It reports false at the end of the connection.
func (t *transport) forward(id raft.ServerID, inner *raft.NetworkTransport, from *single) bool {
	var rpc raft.RPC
	select {
	case rpc = <-inner.Consumer():
	case <-from.closed:
		return false
	case <-t.ctx.Done():
		return false
	}
	if !t.admits(id, rpc, from) {
		return true
	}
	select {
	case t.incoming <- rpc:
		return true
	case <-from.closed:
		return false
	case <-t.ctx.Done():
		return false
	}
}

// admits holds a message to the member that sends it and, where it was stamped, to the clocks.
func (t *transport) admits(id raft.ServerID, rpc raft.RPC, from net.Conn) bool {
	ahead, err := t.clocks.allow(id, rpc.Command)
	if !speaksForItself(id, rpc.Command) {
		err = fmt.Errorf("it sends a %T in another's name", rpc.Command)
		t.door.complain(seatOf(id).Name, err)
	} else if err == nil && asksForVote(rpc.Command) && !t.door.mayVote() {
		err = errNoVote
	} else if ahead != 0 {
		t.running.Go(func() { t.clocks.compare(t.ctx, id, ahead) })
	}
	if err == nil {
		return true
	}
	rpc.Respond(nil, err)
	if _, more := rpc.Command.(*raft.InstallSnapshotRequest); more || !errors.Is(err, errAhead) && !errors.Is(err, errNoVote) {
		from.Close()
	}
	return false
}

func asksForVote(sent any) bool {
	switch sent.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		return true
	default:
		return false
	}
}

// speaksForItself reports whether a message names its sender.
func speaksForItself(id raft.ServerID, sent any) bool {
	says, has := sent.(raft.WithRPCHeader)
	if !has {
		return false
	}
	header := says.GetRPCHeader()
	return raft.ServerID(header.ID) == id && string(header.Addr) == string(seatOf(id).Name)
}

// Close stops listening and ends every connection.
func (t *transport) Close() error {
	t.mu.Lock()
	open := t.open
	t.open = nil
	t.mu.Unlock()
	if open == nil {
		return nil
	}
	t.stop()
	err := errors.Join(t.NetworkTransport.Close(), t.reach.Listener.Close())
	for conn := range open {
		conn.Close()
	}
	t.running.Wait()
	t.beating.Wait()
	return err
}

// single is the listener of one connection, already accepted.
type single struct {
	net.Conn
	given  atomic.Bool
	once   sync.Once
	closed chan struct{} // the connection is
	over   chan struct{} // whoever accepts is
}

// Accept returns the connection, once.
func (s *single) Accept() (net.Conn, error) {
	if !s.given.Swap(true) {
		return s, nil
	}
	<-s.over
	return nil, net.ErrClosed
}

// Close ends the connection and Accept.
func (s *single) Close() (err error) {
	s.once.Do(func() {
		close(s.closed)
		err = s.Conn.Close()
	})
	return err
}

// Addr names nobody: nothing dials it.
func (s *single) Addr() net.Addr { return s.LocalAddr() }

// Dial reaches nobody.
func (s *single) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return nil, net.ErrClosed }
