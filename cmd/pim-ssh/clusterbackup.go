package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/backup"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
)

const backupHint = "pim-ssh cluster backup FILE --to age1…"

func clusterBackupCommand(d *desk) *cobra.Command {
	var to []string
	cmd := &cobra.Command{
		Use:   "backup FILE --to KEY",
		Short: "copy the whole record, verified, into one encrypted file",
		Long: "Reads a broker's record whole while the brokers go on, verifies it as pim-ssh audit verify does, and writes what\n" +
			"it held at one signed checkpoint, encrypted to the keys that --to names (age-keygen makes them; keep the secret\n" +
			"halves away from the brokers). Nobody without one of those keys can read a word of it. It is all that a restore\n" +
			"needs; no broker's private key is in it.",
		Example: "  pim-ssh cluster backup /backups/pim-ssh-2026-11-23 --to age1…",
		Args:    one("FILE", backupHint),
		RunE:    func(cmd *cobra.Command, args []string) error { return d.backup(cmd.Context(), args[0], to) },
	}
	cmd.Flags().StringSliceVar(&to, "to", nil, "a public `KEY`, age1…, whose holder can read the file; repeat it for more")
	return cmd
}

// backupJSON is what a backup holds.
type backupJSON struct {
	File     string               `json:"file"`
	Events   uint64               `json:"events"`
	Root     statement.Hash       `json:"root"`
	SignedBy statement.BrokerName `json:"signed_by"`
	Epoch    uint64               `json:"epoch"`
}

func (d *desk) backup(ctx context.Context, path string, to []string) error {
	keys, err := backup.ParseKeys(to)
	if err != nil || len(keys) == 0 {
		return usage(backupHint, "%v", cmp.Or(err, errors.New("a backup is encrypted: name a key with --to")))
	}
	if _, err := os.Lstat(path); err == nil {
		return usage("choose another name, or remove it", "%s is there already", path)
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	if doc := c.chain.Current(); !doc.Operator(c.person) && !doc.Auditor(c.person) {
		return denied("ask one of: "+joined(doc.Operators), "%s is neither operator nor auditor", c.person)
	}
	p, all, err := c.records(ctx)
	if err != nil {
		return err
	}
	before, err := d.seen(p)
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b kept) int { return cmp.Compare(b.signed.Size, a.signed.Size) })
	var epoch uint64
	for _, one := range all {
		err = one.wrong
		if err == nil {
			record := refold.Record{Source: one.source, Signed: one.signed, Others: others(all, one), Before: before, Pinned: p.chain, Now: anyTime}
			epoch, err = d.backupOne(record, path, keys)
		}
		if err == nil {
			return errors.Join(d.remember(one.signed, epoch, before), d.sayBackup(one.signed, epoch, path))
		}
		d.term.Warn("the record of %s is not sound and not what is backed up: %v", one.name, err)
	}
	return invalid("pim-ssh audit verify", "no broker shows a record that is sound: nothing was backed up")
}

// backupOne writes one broker's record, verified as it is read; what turns out wrong leaves no file.
func (d *desk) backupOne(record refold.Record, path string, keys []age.Recipient) (epoch uint64, err error) {
	err = writeSealed(path, backup.Record, record.Signed.Text, keys, func(out *backup.Writer) error {
		var failed error
		each := func(e refold.Event) {
			leaf, err := broker.EncodeEvent(e.Event)
			if err == nil {
				err = out.Add(leaf)
			}
			failed = cmp.Or(failed, err)
		}
		found, err := refold.Verify(record, each)
		epoch = found.Epoch
		if err == nil && found.Events > 0 {
			d.sayAhead(found.Last)
		}
		return cmp.Or(failed, err)
	})
	return epoch, err
}

// anyTime lets a record be verified whose brokers' clock ran ahead: it must be possible to back that up, and to restore it.
const anyTime = statement.Time(1) << 40

// sayAhead warns of a record that claims to be from the future.
func (d *desk) sayAhead(newest statement.Time) {
	if now := d.clock(); newest > now.Add(broker.MaxAhead) {
		d.term.Warn("its newest event is stamped %s, and it is %s here: a broker's clock ran ahead, or yours is behind", newest, now)
	}
}

// writeSealed writes a new encrypted file, whole or not at all, and never over one that is there.
func writeSealed(path string, kind backup.Kind, head []byte, keys []age.Recipient, fill func(*backup.Writer) error) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	out, err := backup.NewWriter(temporary, kind, head, keys...)
	if err == nil {
		err = fill(out)
	}
	if err == nil {
		err = out.Close()
	}
	if err := errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (d *desk) sayBackup(signed audit.Signed, epoch uint64, path string) error {
	if d.json() {
		return d.term.JSON(backupJSON{File: path, Events: signed.Size, Root: signed.Root, SignedBy: signed.Broker, Epoch: epoch})
	}
	d.term.Result("%s", path)
	d.term.Say("%d events, root %s, signed by %s; verified, and readable only with the key: pim-ssh cluster restore %s --identity KEYFILE",
		signed.Size, signed.Root, signed.Broker, filepath.Base(path))
	return nil
}
