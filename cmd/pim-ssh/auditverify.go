package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
)

func auditVerifyCommand(d *desk, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "check the whole record, and name the first thing wrong with it",
		Long: "Reads every broker's record whole: entries, tiles and the signed checkpoint must fit each other, what the other\n" +
			"brokers signed, what this program found sound before, and what hosts say they were shown. Then every event is\n" +
			"decided again from its signed statements, every grant under the policy in force at that moment. The first thing\n" +
			"that is wrong is named, with the event it concerns; the exit code is 1.",
		Args: none("pim-ssh audit verify"),
		RunE: func(cmd *cobra.Command, _ []string) error { return d.auditVerify(cmd.Context(), *dir) },
	}
}

// verdictJSON is one record's verdict.
type verdictJSON struct {
	Record     string               `json:"record"` // the broker's name, or the directory
	Sound      bool                 `json:"sound"`
	Events     uint64               `json:"events"` // signed for by the checkpoint
	Root       statement.Hash       `json:"root"`
	SignedBy   statement.BrokerName `json:"signed_by"`
	Statements uint64               `json:"statements"`
	Grants     uint64               `json:"grants"`
	Refused    uint64               `json:"refused"`
	Told       []refold.Told        `json:"told"`  // what hosts complained of
	Epoch      uint64               `json:"epoch"` // the newest; 0: never restored
	Epochs     []refold.Restored    `json:"epochs"`
	Where      string               `json:"where"` // of the first thing wrong: a file of the record, or ""
	Event      *uint64              `json:"event"` // of the first thing wrong; null when it is about no one event
	Why        string               `json:"why"`
}

func (d *desk) auditVerify(ctx context.Context, dir string) error {
	p, all, err := d.records(ctx, dir)
	if err != nil {
		return err
	}
	before, err := d.seen(p)
	if err != nil {
		return err
	}
	if dir == "" {
		catchUp(ctx, p, all, before)
	}
	var failed []error
	for _, one := range all {
		verdict, err := d.verify(p, one, others(all, one), before)
		if err == nil {
			err = d.remember(one.signed, verdict.Epoch, before)
		}
		if err != nil {
			failed = append(failed, err)
		}
		if err := d.sayVerdict(verdict); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// publishing is how long a broker may take to publish what another published already.
const publishing = 5 * time.Second

// catchUp gives brokers a moment whose record ends before what was found sound at another: each publishes by itself.
func catchUp(ctx context.Context, p pin, all []kept, before []refold.Seen) {
	ctx, cancel := context.WithTimeout(ctx, publishing)
	defer cancel()
	newest := newestSeen(before)
	for i := range all {
		for all[i].wrong == nil && all[i].signed.Size < newest && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(publishing / 50):
			}
			again := all[i]
			if err := again.open(p, again.signed.Broker); err == nil {
				all[i] = again
			}
		}
	}
}

// newestSeen is the size of the largest record found sound in the newest epoch that was seen.
func newestSeen(before []refold.Seen) uint64 {
	var newest refold.Seen
	for _, seen := range before {
		if seen.Epoch > newest.Epoch || seen.Epoch == newest.Epoch && seen.Size > newest.Size {
			newest = seen
		}
	}
	return newest.Size
}

// others are the checkpoints that other brokers signed by now. One that is ahead is compared where it is verified itself.
func others(all []kept, of kept) []audit.Signed {
	var signed []audit.Signed
	for _, one := range all {
		if one.name != of.name && one.wrong == nil && one.signed.Size <= of.signed.Size {
			signed = append(signed, one.signed)
		}
	}
	return signed
}

// verify finds the first thing wrong with one record.
func (d *desk) verify(p pin, one kept, others []audit.Signed, before []refold.Seen) (verdictJSON, error) {
	v := verdictJSON{Record: one.name, Events: one.signed.Size, Root: one.signed.Root, SignedBy: one.signed.Broker}
	err := one.wrong
	if err == nil {
		var found refold.Verified
		found, err = refold.Verify(refold.Record{Source: one.source, Signed: one.signed, Others: others, Before: before, Pinned: p.chain, Now: d.clock()}, nil)
		v.Statements, v.Grants, v.Refused, v.Told = found.Statements, found.Grants, found.Refused, found.Told
		v.Epoch, v.Epochs = found.Epoch, found.Epochs
	}
	v.Sound = err == nil
	if err == nil {
		return v, nil
	}
	v.Why = err.Error()
	var wrong *audit.Wrong
	if errors.As(err, &wrong) {
		v.Where, v.Why = wrong.Where, wrong.Why
		if wrong.Index != audit.NoIndex {
			v.Event = &wrong.Index
		}
	}
	return v, invalid("keep a copy of this record, and show both to the stewards", "the record of %s: %v", one.name, err)
}

func (d *desk) sayVerdict(v verdictJSON) error {
	for _, told := range v.Told {
		d.term.Warn("host %s reported (event %d) that it refused a broker's record: %s", told.Host, told.Index, told.Why)
	}
	for _, begun := range v.Epochs {
		d.sayEpoch(begun)
	}
	if d.json() {
		return d.term.JSON(v)
	}
	if v.Sound {
		d.term.Result("%s: sound: %d events, root %s, signed by %s", v.Record, v.Events, v.Root, v.SignedBy)
		d.term.Say("%s", fmt.Sprintf("  %d statements verified, %d of them rightly refused; %d grants judged again", v.Statements, v.Refused, v.Grants))
		return nil
	}
	d.term.Result("%s: NOT SOUND", v.Record)
	return nil
}

// sayEpoch tells of a restore: what was recorded before it and is not here, nobody but the operator has left out.
func (d *desk) sayEpoch(r refold.Restored) {
	if r.Despite == "" {
		d.term.Warn("epoch %d begins at event %d: %s restored the brokers from a backup: %s", r.Epoch, r.Index, r.Person, r.Why)
		return
	}
	d.term.Warn("epoch %d begins at event %d: %s restored the brokers from a backup: %s; it leaves out what was recorded after that backup: %s",
		r.Epoch, r.Index, r.Person, r.Why, r.Despite)
}
