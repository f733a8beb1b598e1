package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
)

func auditCommand(d *desk) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "read the record of everything, and prove that nobody rewrote it",
		Long: "Every event is an entry in a log that each broker signs and no broker can change unseen. These commands read\n" +
			"the brokers' records, or a copy of one (a broker's DIR/record) without any broker, and believe neither: they\n" +
			"check every signature and decide every event again.",
	}
	for _, sub := range []*cobra.Command{auditVerifyCommand(d, &dir), auditListCommand(d, &dir), auditShowCommand(d, &dir)} {
		sub.Flags().StringVar(&dir, "dir", "", "read this copy of a broker's record, and talk to no broker")
		cmd.AddCommand(sub)
	}
	return family(cmd)
}

// kept is one broker's record within reach.
type kept struct {
	name   string // the broker's, or the directory
	source audit.Source
	signed audit.Signed
	wrong  error // why its checkpoint is not that broker's word; nil when it is
}

// records reaches the record of every broker that answers, or the copy in a directory, and reads its checkpoint.
func (d *desk) records(ctx context.Context, dir string) (pin, []kept, error) {
	if dir != "" {
		p, err := d.pinned()
		if err != nil {
			return p, nil, err
		}
		one := kept{name: dir, source: audit.FromFS(os.DirFS(dir))}
		err = one.open(p, "")
		if errors.Is(err, fs.ErrNotExist) {
			return p, nil, missing("name a copy of a broker's /var/lib/pim-ssh/broker/record", "%s holds no checkpoint: %v", dir, err)
		}
		return p, []kept{one}, err
	}
	c, err := d.contact(ctx)
	if err != nil {
		return pin{}, nil, err
	}
	if !c.chain.Current().Auditor(c.person) {
		return pin{}, nil, denied("ask one of the auditors that pim-ssh policy show names", "%s is no auditor", c.person)
	}
	return c.records(ctx)
}

// records reaches the record of every broker that answers. Whether the person may read them is the brokers' to say too.
func (c *contact) records(ctx context.Context) (pin, []kept, error) {
	reader, err := c.reader(ctx)
	if err != nil {
		return c.pin, nil, err
	}
	all, err := c.brokersRecords(ctx, reader)
	return c.pin, all, err
}

// brokersRecords asks each broker for its own.
func (c *contact) brokersRecords(ctx context.Context, reader *api.Reader) ([]kept, error) {
	var all []kept
	var silent error
	listed := c.chain.Current().Brokers
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		address, only := listed[name].Address, c.env("PIM_SSH_BROKER")
		if only != "" && only != address && len(listed) > 1 {
			continue
		}
		if only != "" {
			address = only
		}
		client, err := api.NewClient(api.Config{Policy: c.chain.Current(), Address: address, Reader: reader})
		if err != nil {
			return nil, err
		}
		one := kept{name: string(name), source: client.Record(ctx)}
		err = one.open(c.pin, name)
		if broker.KindOf(err) == broker.Unavailable {
			c.term.Warn("broker %s does not answer: its record is not audited", name)
			silent = err
			continue
		}
		if err != nil {
			one.wrong = fmt.Errorf("checkpoint: the broker shows none: %w", err)
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, silent
	}
	return all, nil
}

// open reads the checkpoint and holds it to the broker's log key. What cannot be read is an error; what is not that
// broker's word is the record's own fault.
func (k *kept) open(p pin, name statement.BrokerName) error {
	text, err := k.source(audit.PathCheckpoint)
	if err != nil {
		return err
	}
	k.signed, k.wrong = p.checkpoint(text)
	if k.wrong == nil && name != "" && k.signed.Broker != name {
		k.wrong = fmt.Errorf("checkpoint: broker %s shows one that broker %s signed", name, k.signed.Broker)
	}
	return nil
}

// checkpoint opens a signed checkpoint under the newest policy in which its signer's key stands.
func (p pin) checkpoint(text []byte) (audit.Signed, error) {
	var first error
	for revision := p.chain.Ref().Revision; revision > 0; revision-- {
		doc, _ := p.chain.At(revision)
		signed, err := audit.Open(text, p.chain.Deployment(), doc.LogKeys())
		if err == nil {
			return signed, nil
		}
		if first == nil {
			first = err
		}
	}
	return audit.Signed{}, first
}

// longest returns the record with the most events.
func longest(all []kept) kept {
	return slices.MaxFunc(all, func(a, b kept) int { return int(a.signed.Size) - int(b.signed.Size) })
}

// seenDir holds the newest checkpoint of each broker that was found sound.
func (d *desk) seenDir() (string, error) {
	state, err := d.stateDir()
	return filepath.Join(state, "checkpoints"), err
}

// seen returns the checkpoints of earlier audits. One whose signer no policy knows is said and left out.
func (d *desk) seen(p pin) ([]refold.Seen, error) {
	dir, err := d.seenDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []refold.Seen
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		signed, err := p.checkpoint(text)
		if err != nil {
			d.term.Warn("what was seen before is not compared: %s: %v", filepath.Join(dir, entry.Name()), err)
			continue
		}
		_, after, _ := strings.Cut(entry.Name(), ".")
		epoch, _ := strconv.ParseUint(after, 10, 64) // none: before the first restore
		all = append(all, refold.Seen{Signed: signed, Epoch: epoch})
	}
	return all, nil
}

// remember keeps a checkpoint that was found sound in an epoch. It never goes back.
func (d *desk) remember(signed audit.Signed, epoch uint64, before []refold.Seen) error {
	for _, old := range before {
		if old.Broker == signed.Broker && old.Epoch == epoch && old.Size >= signed.Size {
			return nil
		}
	}
	name := string(signed.Broker)
	if epoch > 0 {
		name += "." + strconv.FormatUint(epoch, 10)
	}
	dir, err := d.seenDir()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, name), signed.Text, 0o600)
}
