package clustertest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// host is a machine that follows the watch stream, keeps what it is told, and judges for itself, as pim-hostd does. The
// kernel, sshd and sudo are not here.
type host struct {
	run     *Run
	machine broker.Host
	key     ed25519.PrivateKey
	signer  ssh.Signer
	dice    *dice // of whom it listens to
	luck    *dice // of who logs in

	mu       sync.Mutex
	chain    policy.Chain
	dossiers map[broker.Stem]broker.Dossier
	ended    map[statement.Hash]bool // tombstones
	after    *uint64
}

// start is a login or sudo that a host let begin.
type start struct {
	host statement.HostName
	stem broker.Stem
	at   statement.Time // by the host's clock
}

func (r *Run) machine(name statement.HostName, tier string, seed uint64) *host {
	number := uint64(len(name))<<8 + uint64(name[len(name)-1])
	h := &host{run: r, machine: broker.Host{Name: name, Labels: map[string]string{"tier": tier}}, dice: roll(seed, streamHosts, number), luck: roll(seed, streamHosts+1, number)}
	h.key, h.signer = forger.PrivateKey(r.world().T)
	h.wipe()
	return h
}

// wipe is a lost disk: all that a host is born with is its enrolment, and the policy in that.
func (h *host) wipe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.chain, h.after = h.run.world().Chain, nil
	h.machine.Since = 0
	h.dossiers, h.ended = map[broker.Stem]broker.Dossier{}, map[statement.Hash]bool{}
}

// enrol makes the machine a host.
func (h *host) enrol(ctx context.Context) error {
	w := h.run.world()
	once, key := forger.Key(w.T), func(s ssh.Signer) statement.Key {
		k, _ := statement.KeyOf(s.PublicKey()) // of a key just made
		return k
	}
	token := w.Sign(statement.HostToken{Head: w.Head(statement.KindHostToken, "dave"), Name: h.machine.Name, Labels: h.machine.Labels,
		Addresses: []string{string(h.machine.Name)}, Key: key(once), Expires: forger.Now() + 3600}, "dave")
	head := w.Head(statement.KindEnrolment, "")
	head.Host = h.machine.Name
	proof, err := statement.Sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte(h.machine.Name)), Identity: key(h.signer),
		HostKeys: []statement.Key{key(h.signer)}}, once, h.signer)
	if err != nil {
		return err
	}
	desk := &client{run: h.run, dice: h.dice}
	for ctx.Err() == nil {
		heard, err := desk.once(ctx, h.run.cluster.Names[0], proof)
		if err == nil && heard.kind == "" {
			return nil
		}
		if err == nil {
			return errors.New(heard.message)
		}
		_ = pause(ctx, 100*time.Millisecond) // the loop looks
	}
	return fmt.Errorf("enrolling %s: %w", h.machine.Name, ctx.Err())
}

// follow listens to one broker after the other until ctx ends. Now and then the machine loses its disk.
func (h *host) follow(ctx context.Context) {
	names := h.run.cluster.Names
	for at := h.dice.IntN(len(names)); ctx.Err() == nil; at++ {
		if h.dice.IntN(10) == 0 {
			h.wipe()
		}
		stay, cancel := context.WithTimeout(ctx, 2*time.Second+h.dice.upTo(20*time.Second))
		h.listen(stay, names[at%len(names)])
		cancel()
		_ = pause(ctx, 50*time.Millisecond+h.dice.upTo(time.Second)) // the loop looks
	}
}

// listen takes one stream's frames.
func (h *host) listen(ctx context.Context, at statement.BrokerName) {
	h.mu.Lock()
	path := "/v1/watch"
	if h.after != nil {
		path += "?after=" + strconv.FormatUint(*h.after, 10)
	}
	h.mu.Unlock()
	called, _ := h.run.history.before()
	from := h.run.cluster.Now()
	frames, err := h.run.cluster.watch(ctx, at, h.key.Public().(ed25519.PublicKey), path)
	if err != nil {
		return
	}
	opening := true
	for {
		frame, more := h.next(ctx, frames)
		if !more {
			return
		}
		if frame.Beat != 0 || frame.Index != nil {
			opening = false
		}
		h.take(frame, opening, called, from)
	}
}

// next waits for a frame, as long as a host does: three beats.
func (h *host) next(ctx context.Context, frames <-chan api.Frame) (api.Frame, bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*api.BeatEvery*time.Second)
	defer cancel()
	select {
	case frame, more := <-frames:
		return frame, more
	case <-ctx.Done():
		return api.Frame{}, false
	}
}

// take keeps what a frame says.
func (h *host) take(frame api.Frame, opening bool, called int64, from statement.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if frame.Index != nil {
		h.after = frame.Index
	}
	switch {
	case frame.Policy != nil:
		if next, err := h.chain.Advance(*frame.Policy); err == nil {
			h.chain = next
		}
	case frame.Restore != nil:
		h.anew(*frame.Restore)
	case frame.Ended != nil:
		h.ended[frame.Ended.Request] = true
		h.hear(frame.Ended.Request, frame.Ended.How)
	case frame.Dossier != nil:
		h.keep(*frame.Dossier, opening, called, from)
	}
}

// anew takes the word that the brokers were restored: everything from before is void. The caller holds mu.
func (h *host) anew(proof statement.Proof) {
	body, err := broker.CheckRestore(h.chain, proof)
	if err != nil {
		h.run.cluster.wrong("%s was told a restore that nobody signed: %v", h.machine.Name, err)
		return
	}
	h.machine.Since = max(h.machine.Since, body.Created)
}

// keep takes a dossier in. The caller holds mu.
func (h *host) keep(d broker.Dossier, opening bool, called int64, from statement.Time) {
	if opening {
		h.listed(d, called, from)
	}
	if had, known := h.dossiers[d.Stem()]; known {
		if both, err := broker.Merge(had, d); err == nil {
			d = both
		}
	}
	h.dossiers[d.Stem()] = d
	if d.Ended != nil {
		h.ended[d.Request.Hash()] = true
		h.hear(d.Request.Hash(), d.Ended.How)
	}
}

// listed notes what a broker said of a grant when the stream began.
func (h *host) listed(d broker.Dossier, called int64, from statement.Time) {
	body, ok := h.run.bodyOf(d.Request.Hash())
	switch {
	case ok:
	case h.run.before(d.Request.Hash()):
		if d.Ended == nil {
			h.run.cluster.wrong("%s was told of %s, from before the restore, as if it lived", h.machine.Name, d.Stem().Grant())
		}
		return
	default:
		h.run.cluster.wrong("%s was told a dossier of a request that nobody signed", h.machine.Name)
		return
	}
	op := &Op{Who: string(h.machine.Name), Did: DidList, Wish: wishOf(body), About: d.Request.Hash()}
	h.run.history.begin(op)
	op.Call, op.Lo = called, from
	heard := told{state: broker.StateApproved}
	if d.Ended != nil {
		heard.ended = d.Ended.How
	}
	h.run.history.end(op, heard)
}

// hear notes that a broker said a grant or a request was over.
func (h *host) hear(request statement.Hash, how broker.EndedHow) {
	body, ok := h.run.bodyOf(request)
	if !ok && h.run.before(request) {
		return
	}
	if !ok {
		h.run.cluster.wrong("%s was told the end of a request that nobody signed", h.machine.Name)
		return
	}
	op := &Op{Who: string(h.machine.Name), Did: DidHear, Wish: wishOf(body), About: request}
	h.run.history.begin(op)
	h.run.history.end(op, told{ended: how})
}

// log people in: whoever holds a grant here tries it.
func (h *host) logins(ctx context.Context) {
	for pause(ctx, 200*time.Millisecond+h.luck.upTo(2*time.Second)) == nil {
		h.login()
	}
}

func (h *host) login() {
	h.mu.Lock()
	defer h.mu.Unlock()
	var stems []broker.Stem
	for stem := range h.dossiers {
		stems = append(stems, stem)
	}
	if len(stems) == 0 {
		return
	}
	slices.Sort(stems)
	stem := stems[h.luck.IntN(len(stems))]
	now := h.run.cluster.Now()
	if !h.live(stem, now) {
		return
	}
	d := h.dossiers[stem]
	if body, ok := h.run.bodyOf(d.Request.Hash()); ok { // else it is from before a restore that this host has not heard of
		op := &Op{Who: string(h.machine.Name), Did: DidStart, Wish: wishOf(body), About: d.Request.Hash()}
		h.run.history.begin(op)
		h.run.history.end(op, told{})
	}
	h.run.started(start{h.machine.Name, stem, now})
}

// live is the host's verdict. The caller holds mu.
func (h *host) live(stem broker.Stem, now statement.Time) bool {
	d, known := h.dossiers[stem]
	if !known || h.ended[d.Request.Hash()] {
		return false
	}
	_, err := broker.Judge(h.chain, d, h.machine, now)
	return err == nil
}

// grants returns what this host would let start at a moment, sorted.
func (h *host) grants(now statement.Time) []broker.Stem {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []broker.Stem
	for stem := range h.dossiers {
		if h.live(stem, now) {
			found = append(found, stem)
		}
	}
	slices.Sort(found)
	return found
}
