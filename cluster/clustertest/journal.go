package clustertest

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"pim-ssh/broker/statement"
)

// journal keeps what brokers say, and what was done to them.
type journal struct {
	mu  sync.Mutex
	all bytes.Buffer
}

const journalMax = 8 << 20

func newJournal() *journal { return &journal{} }

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(&j.all, "%s "+format+"\n", append([]any{time.Now().UTC().Format("15:04:05.000")}, args...)...)
}

func (j *journal) of(name statement.BrokerName) io.Writer { return voice{j, name} }

// voice is one broker's log.
type voice struct {
	to   *journal
	name statement.BrokerName
}

// Write keeps a line.
func (v voice) Write(p []byte) (int, error) {
	v.to.mu.Lock()
	defer v.to.mu.Unlock()
	if v.to.all.Len() < journalMax {
		fmt.Fprintf(&v.to.all, "%s %s: %s", time.Now().UTC().Format("15:04:05.000"), v.name, p)
	}
	return len(p), nil
}
