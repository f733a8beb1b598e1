package edge

import (
	"net"
	"net/http"
	"sync"
)

// newcomers are connections that have not asked anything yet. An http.Server that stops waits five seconds for them, and
// clients keep spare ones that never will.
type newcomers struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

// note is told of every connection and every change.
func (n *newcomers) note(conn net.Conn, is http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case is != http.StateNew:
		delete(n.open, conn)
	case n.closed:
		conn.Close()
	case n.open == nil:
		n.open = map[net.Conn]struct{}{conn: {}}
	default:
		n.open[conn] = struct{}{}
	}
}

// close ends them, and every one that comes later.
func (n *newcomers) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for conn := range n.open {
		conn.Close()
	}
}
