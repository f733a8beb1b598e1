package clustertest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing/fstest"
	"time"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// restore takes every disk away at once and has an operator begin an epoch with a copy of the record: the newest, or one from
// before. It ends the chapter.
func (r *Run) restore() error {
	kept := r.copied(roll(r.Seed, streamEnd, 3))
	for _, name := range r.cluster.Names {
		r.cluster.brokers[name].Kill(false)
	}
	time.Sleep(3 * time.Second)
	proof, err := r.restoring(kept)
	if err != nil {
		return err
	}
	r.note("all disks are lost; a copy of %d events of %d is restored", len(kept), len(r.final[0].leaves))
	r.turn(kept)
	time.Sleep(3 * time.Second)            // what is signed in the same second counts as signed before
	for _, name := range r.cluster.Names { // the policy lists all of them
		b := r.cluster.brokers[name]
		dir := r.cluster.fresh(name)
		config := cluster.Config{Name: name, Dir: dir, Now: b.now, Log: io.Discard}
		if err := cluster.Restore(config, proof, func(yield func([]byte, error) bool) {
			for _, leaf := range kept {
				if !yield(leaf, nil) {
					return
				}
			}
		}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.mu.Lock()
		b.dir, b.joined, b.out, b.mends, b.plan = dir, "", false, false, nil
		b.mu.Unlock()
		if err := b.Start(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return r.answers()
}

// answers waits until every broker does.
func (r *Run) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), calm)
	defer cancel()
	for _, name := range r.cluster.Members() {
		for {
			if l := r.cluster.brokers[name].current(); l != nil && r.lookAt(ctx, l) {
				break
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				return fmt.Errorf("%s does not answer within %s", name, calm)
			}
		}
	}
	return nil
}

// copied draws a copy of the record: all of it, or what there was at some moment after the brokers were listed.
func (r *Run) copied(d *dice) [][]byte {
	leaves := r.final[0].leaves
	whole, draw := d.IntN(2) == 0, d.Uint64()
	var sizes []uint64
	for _, l := range r.history.looks {
		if l.index > uint64(len(enrolled))+2 && l.index < uint64(len(leaves)) {
			sizes = append(sizes, l.index)
		}
	}
	if whole || len(sizes) == 0 {
		return leaves
	}
	slices.Sort(sizes)
	return leaves[:sizes[draw%uint64(len(sizes))]]
}

// restoring is an operator's word that a record goes on.
func (r *Run) restoring(kept [][]byte) (statement.Proof, error) {
	head, _, err := audit.Grow(statement.LogHead{}, audit.FromFS(fstest.MapFS{}), kept)
	if err != nil {
		return statement.Proof{}, err
	}
	body := statement.Restore{Head: r.world().Head(statement.KindRestore, operator), Epoch: 1, Size: head.Size, Root: head.Root, Why: "all disks burnt"}
	body.Created = r.cluster.Now()
	body.NotAfter = body.Created + 3600
	if len(kept) < len(r.final[0].leaves) {
		body.Despite = "the newest copy burnt too"
	}
	return r.world().Sign(body, operator), nil
}
