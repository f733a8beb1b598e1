package clustertest

import (
	"fmt"
	"strings"
	"sync"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Did says what an operation of a history is.
type Did string

// The closed set.
const (
	DidRequest     Did = "request"
	DidDecide      Did = "decide"
	DidWithdraw    Did = "withdraw"
	DidReturn      Did = "return"
	DidRevoke      Did = "revoke"
	DidCertificate Did = "certificate"
	DidRead        Did = "read"  // a person read a request
	DidList        Did = "list"  // a host was told a dossier when it began to listen
	DidHear        Did = "hear"  // a host was told an end
	DidStart       Did = "start" // a host let something start
)

// Op is one thing that somebody did, and what they got to hear. Call and Return are places in the one order in which
// things happened in this process.
type Op struct {
	Who    string
	Did    Did
	Wish   wish             // whose requests it is about
	About  statement.Hash   // of the request
	Person statement.Person // who signed, or who read
	Proof  statement.Hash   // of the statement; zero for hosts' and reads
	Body   statement.Body   // of the statement; nil for the others
	Call   int64
	Return int64          // 0: nobody knows what came of it
	Lo, Hi statement.Time // no broker decided it before or after, by its clock
	Told   told
}

// told is the answer, or what was seen.
type told struct {
	kind      broker.Kind // "": taken
	message   string
	index     uint64
	request   broker.RequestID
	grant     broker.GrantID
	state     broker.RequestState
	decisions []statement.Person
	ended     broker.EndedHow
}

// String says the operation in one line.
func (o *Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6d..%6d %s..%s %-10s %-11s r-%.8s", o.Call, o.Return, o.Lo.Std().Format("04:05"), o.Hi.Std().Format("04:05"), o.Who, o.Did, broker.StemOf(o.About))
	switch body := o.Body.(type) {
	case statement.Request:
		fmt.Fprintf(&b, " %s@%v %ds until %s", body.Role, body.Hosts, body.Duration, body.Expires.Std().Format("04:05"))
	case statement.Decision:
		fmt.Fprintf(&b, " %s %v %d", body.Verdict, body.Hosts, body.Duration)
	}
	switch {
	case o.Return == 0:
		b.WriteString(" → nobody knows")
	case o.Told.kind != "":
		fmt.Fprintf(&b, " → %s: %s", o.Told.kind, o.Told.message)
	case o.Did == DidRead || o.Did == DidList || o.Did == DidHear:
		fmt.Fprintf(&b, " → %s %v %s %s", o.Told.state, o.Told.decisions, o.Told.grant, o.Told.ended)
	default:
		fmt.Fprintf(&b, " → event %d %s", o.Told.index, o.Told.grant)
	}
	return b.String()
}

// look is one look at a broker's state that holds everything acknowledged before.
type look struct {
	at           statement.BrokerName
	call, back   int64
	index        uint64
	now          statement.Time
	digest       statement.Hash
	acknowledged uint64 // the largest index anybody had been told when it was asked, plus one
}

// History is everything that people, hosts and onlookers did and heard, in the order in which it happened here.
type History struct {
	mu    sync.Mutex
	tick  int64
	ops   []*Op
	looks []look
	told  uint64 // the largest index anybody was told, plus one

	cluster *Cluster
	clocks  []clockChange
	peak    statement.Time // the latest time that any broker's clock has shown, as far as clocks were set back since
}

// clockChange is how far brokers' clocks were wrong from a moment on.
type clockChange struct {
	at     statement.Time // by the right clock
	behind statement.Seconds
	ahead  statement.Seconds
}

// begin notes that somebody begins something.
func (h *History) begin(op *Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	op.Call = h.tick
	op.Lo = h.cluster.Now()
	h.ops = append(h.ops, op)
}

// end notes what came of it.
func (h *History) end(op *Op, heard told) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	op.Return, op.Told = h.tick, heard
	op.Lo, op.Hi = h.bounds(op.Lo, h.cluster.Now())
	if heard.kind == "" && op.Body != nil {
		h.told = max(h.told, heard.index+1)
	}
}

// clock notes that brokers' clocks changed, and how wrong they are now.
func (h *History) clock(behind, ahead statement.Seconds) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cluster.Now()
	if len(h.clocks) > 0 {
		h.peak = max(h.peak, now.Add(h.clocks[len(h.clocks)-1].ahead))
	}
	h.clocks = append(h.clocks, clockChange{now, behind, ahead})
}

// bounds returns the earliest and the latest time that a broker could have decided by between two moments. The caller
// holds mu.
func (h *History) bounds(from, to statement.Time) (statement.Time, statement.Time) {
	behind, ahead := statement.Seconds(0), statement.Seconds(0)
	for i, change := range h.clocks {
		over := i+1 < len(h.clocks) && h.clocks[i+1].at < from
		if change.at <= to && !over {
			behind, ahead = min(behind, change.behind), max(ahead, change.ahead)
		}
	}
	return from.Add(behind), max(h.peak, to.Add(ahead))
}

// close settles what nobody got to hear.
func (h *History) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if op.Return == 0 {
			op.Lo, op.Hi = h.bounds(op.Lo, h.cluster.Now())
		}
	}
}

// see notes a look.
func (h *History) see(l look) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	l.back = h.tick
	h.looks = append(h.looks, l)
}

// before returns a place in the order, and how much had been acknowledged by then.
func (h *History) before() (int64, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	return h.tick, h.told
}

// text is the whole history, one line each.
func (h *History) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, op := range h.ops {
		fmt.Fprintln(&b, op)
	}
	for _, l := range h.looks {
		fmt.Fprintf(&b, "%6d..%6d look at %s: %d events, %s, %.8s\n", l.call, l.back, l.at, l.index, l.now, l.digest)
	}
	return b.String()
}
