package edge

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// habits is who had which role when for the first time, by the whole log: the state forgets what was over an hour ago. It is
// learnt from the log as far as somebody asks, and kept for as long as the broker runs.
type habits struct {
	mu    sync.Mutex
	next  uint64 // the first event that was not read yet
	whole bool   // all there was when somebody last asked was read
	first map[habit]uint64
}

// habit is one person's with one role.
type habit struct {
	Person statement.Person   `json:"person"`
	Role   statement.RoleName `json:"role"`
}

// Bounds of reading the log while somebody waits: what is not read by then is the next time, and is not known until then.
const (
	habitPatience = time.Second
	habitBatch    = 1024
)

// learn reads what came since the last time.
func (h *habits) learn(ctx context.Context, read func(index uint64, limit int) ([][]byte, <-chan struct{}, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		h.first = map[habit]uint64{}
	}
	h.whole = false
	for end := time.Now().Add(habitPatience); ctx.Err() == nil && time.Now().Before(end); {
		leaves, _, err := read(h.next, habitBatch)
		if err != nil {
			return
		}
		for _, leaf := range leaves {
			h.note(leaf)
			h.next++
		}
		if h.whole = len(leaves) == 0; h.whole {
			return
		}
	}
}

// note decodes only what can be a grant: text inside an event cannot hold these bytes, its quotes are escaped.
func (h *habits) note(leaf []byte) {
	if !bytes.Contains(leaf, []byte(`"kind":"GrantOpened"`)) {
		return
	}
	var opened struct {
		Index uint64 `json:"index"`
		Grant habit  `json:"grant"`
	}
	if err := json.Unmarshal(leaf, &opened); err != nil {
		return
	}
	if _, had := h.first[opened.Grant]; !had {
		h.first[opened.Grant] = opened.Index
	}
}

// isFirst reports whether it is known that the asker of a request never had the role when they asked.
func (h *habits) isFirst(r broker.Request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	had, ever := h.first[habit{r.Body.Person, r.Body.Role}]
	return h.whole && (!ever || had > r.Index)
}

// recollect adds what the log knows of a request: what was judged when it was taken, and whether it is the first of its kind.
func (s *Server) recollect(view *api.RequestView, r broker.Request) {
	view.First = s.habits.isFirst(r)
	leaves, _, err := s.cluster.Events(r.Index, 1)
	if err != nil || len(leaves) == 0 || !bytes.Contains(leaves[0], []byte(`"judged":`)) {
		return
	}
	var filed struct {
		Judged broker.Judged `json:"judged"`
	}
	if err := json.Unmarshal(leaves[0], &filed); err == nil {
		view.Judged = filed.Judged
	}
}
