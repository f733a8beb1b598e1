package edge

import (
	"sync"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// How fast one key may file. Every authentic statement, refused or not, stays in the log for ever, so nobody may write
// there faster than people and busy hosts do.
const (
	paceBurst  = 600  // statements at once
	paceRefill = 10   // statements a second
	paceKeys   = 8192 // strangers' keys remembered; when there are more, all of those start afresh
)

// pace holds every key to its share.
type pace struct {
	mu      sync.Mutex
	members bool // its keys are those of people and hosts: as many as there are, and none forgotten
	left    map[statement.Key]share
}

// share is what a key may still file, as of a moment.
type share struct {
	left int64
	at   statement.Time
}

// take uses one of the key's statements, or refuses.
func (p *pace) take(key statement.Key, now statement.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == nil || !p.members && len(p.left) >= paceKeys {
		p.left = map[statement.Key]share{}
	}
	has, known := p.left[key]
	if !known {
		has = share{paceBurst, now}
	}
	if now > has.at {
		has = share{min(paceBurst, has.left+int64(now-has.at)*paceRefill), now}
	}
	if has.left == 0 {
		return broker.Refuse(broker.Unavailable, "wait a minute", "the key %s has filed too much at once", key.Fingerprint())
	}
	has.left--
	p.left[key] = has
	return nil
}

// give returns what take took.
func (p *pace) give(key statement.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if has, known := p.left[key]; known && has.left < paceBurst {
		has.left++
		p.left[key] = has
	}
}
