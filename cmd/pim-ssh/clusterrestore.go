package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/backup"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

const restoreHint = "pim-ssh cluster restore BACKUP --identity KEYFILE --why TEXT"

// restoreLife is how long the brokers have to begin.
const restoreLife = statement.Day

// restoreWish is what was typed after `cluster restore`.
type restoreWish struct {
	backup, identity, why, despite, file string
	seen                                 []string
	epoch                                uint64
	yes                                  bool
}

func clusterRestoreCommand(d *desk) *cobra.Command {
	w := restoreWish{}
	cmd := &cobra.Command{
		Use:   "restore BACKUP --identity KEYFILE --why TEXT",
		Short: "sign that the brokers go on from a backup, and make the file they do it with",
		Long: "Opens a backup, decides every event in it again, and compares it with the newest record that you, and the\n" +
			"checkpoints that --seen names, have seen. Then signs, with your own key, that the deployment goes on from it, and\n" +
			"writes a file that the brokers of the policy can read and nobody else. On each: pim-brokerd restore FILE.\n\n" +
			"It begins a new epoch. Every grant and every request from before is void, on brokers and hosts, for ever: people\n" +
			"ask again. Time begins again at your clock. A record that lacks what was seen before is refused, by hosts too,\n" +
			"unless --despite says why. No broker is asked anything; the policy is the newest that you have joined with.",
		Example: "  pim-ssh cluster restore pim-ssh-2026-11-23 --identity backup.key --why 'INC-77 all three disks lost' -o epoch",
		Args:    one("BACKUP", restoreHint),
		RunE: func(cmd *cobra.Command, args []string) error {
			w.backup = args[0]
			return d.restore(cmd.Context(), w)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&w.identity, "identity", "", "the `KEYFILE` with the secret half of the key that the backup is for")
	flags.StringVar(&w.why, "why", "", "the reason, for everybody to read")
	flags.StringVar(&w.despite, "despite", "", "why the record may lack what was seen before, for everybody to read")
	flags.StringSliceVar(&w.seen, "seen", nil, "a `CHECKPOINT` that must be in the backup too: a host's /var/lib/pim-ssh/host/checkpoint, a broker's record/checkpoint")
	flags.Uint64Var(&w.epoch, "epoch", 0, "begin this epoch (default: the next): only when hosts say that they know a later one")
	flags.BoolVarP(&w.yes, "yes", "y", false, "do not ask")
	flags.VarP(outputFlag{format: &d.format, file: &w.file}, "output", "o", "the file to write (default: restore); json or text: how to print the result")
	return cmd
}

// restoreJSON is what was signed.
type restoreJSON struct {
	File    string                 `json:"file"`
	Epoch   uint64                 `json:"epoch"`
	Events  uint64                 `json:"events"`
	Root    statement.Hash         `json:"root"`
	Policy  uint64                 `json:"policy"` // revision
	Brokers []statement.BrokerName `json:"brokers"`
	Lacks   uint64                 `json:"lacks"` // how many events further something seen before reached
}

func (d *desk) restore(ctx context.Context, w restoreWish) error {
	if w.identity == "" || strings.TrimSpace(w.why) == "" {
		return usage(restoreHint, "a restore wants the key of the backup, and a reason")
	}
	w.file = cmp.Or(w.file, "restore")
	if _, err := os.Lstat(w.file); err == nil {
		return usage("choose another with -o, or remove it", "%s is there already", w.file)
	}
	p, err := d.pinned()
	if err != nil {
		return err
	}
	if doc := p.chain.Current(); !doc.Operator(p.person) {
		return denied("ask one of: "+joined(doc.Operators), "%s is no operator", p.person)
	}
	keys, err := readIdentities(w.identity)
	if err != nil {
		return err
	}
	r := &restoring{contact: &contact{desk: d, pin: p}, wish: w, keys: keys}
	if err := r.read(); err != nil {
		return err
	}
	if err := r.compare(); err != nil {
		return err
	}
	return r.sign(ctx)
}

// readIdentities reads what age-keygen wrote.
func readIdentities(path string) ([]age.Identity, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, invalid(restoreHint, "the key: %v", err)
	}
	keys, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, invalid("name the file that age-keygen -o made", "%s holds no secret key: %v", path, err)
	}
	return keys, nil
}

// restoring is one restore on its way.
type restoring struct {
	*contact
	wish  restoreWish
	keys  []age.Identity
	whole refold.Whole
	later [][]byte // events that adopt policies newer than the backup's
	seen  []refold.Seen
	lacks uint64
}

// entries are the backup's.
func (r *restoring) entries() ([]byte, iter.Seq2[[]byte, error], func() error, error) {
	file, err := os.Open(r.wish.backup)
	if err != nil {
		return nil, nil, nil, invalid(restoreHint, "%v", err)
	}
	head, all, err := backup.Open(file, backup.Record, r.keys...)
	if err != nil {
		return nil, nil, nil, errors.Join(invalid("name another backup", "%s: %v", r.wish.backup, err), file.Close())
	}
	return head, all, file.Close, nil
}

// read verifies the backup, and brings its policy up to the newest that is known here.
func (r *restoring) read() error {
	head, all, done, err := r.entries()
	if err != nil {
		return err
	}
	r.whole, err = refold.VerifyEntries(refold.Entries{All: all, Checkpoint: head, Pinned: r.chain, Now: anyTime})
	if err := errors.Join(err, done()); err != nil {
		return invalid("name another backup", "%s is no sound record: %v", r.wish.backup, err)
	}
	r.sayAhead(r.whole.Last)
	if r.contact.pin, err = r.forward(r.pin, r.whole.Chain.Proofs()); err != nil {
		return err
	}
	state := r.whole.State
	for _, proof := range r.chain.Proofs()[state.Chain().Ref().Revision:] {
		if err := r.adopt(state, proof); err != nil {
			return err
		}
	}
	return nil
}

// adopt appends what a policy makes happen that the backup does not know yet: who the brokers are is for the newest to say.
func (r *restoring) adopt(state *broker.State, proof statement.Proof) error {
	command, err := broker.CommandFor(proof, state.Now())
	if err != nil {
		return err
	}
	decided, err := broker.Decide(state, command.Under(state))
	if err != nil {
		return err
	}
	for _, event := range decided.Events {
		leaf, err := broker.EncodeEvent(event)
		if err != nil {
			return err
		}
		broker.Evolve(state, event)
		r.whole.Tree.Add(leaf)
		r.later = append(r.later, leaf)
	}
	return nil
}

// compare holds the record to everything that was seen, and refuses one that lacks some of it without a word why.
func (r *restoring) compare() error {
	before, err := r.desk.seen(r.pin)
	if err != nil {
		return err
	}
	r.seen = before
	for _, path := range r.wish.seen {
		text, err := os.ReadFile(path)
		if err != nil {
			return invalid(restoreHint, "%v", err)
		}
		signed, err := r.checkpoint(text)
		if err != nil {
			return invalid("name a checkpoint of this deployment", "%s: %v", path, err)
		}
		before = append(before, refold.Seen{Signed: signed, Epoch: r.whole.Epoch})
	}
	var words []string
	for _, lost := range r.whole.Lacks(before) {
		if size := r.whole.Signed.Size; lost.Size > size {
			r.lacks = max(r.lacks, lost.Size-size)
			words = append(words, fmt.Sprintf("%s signed %d events", lost.Broker, lost.Size))
		} else {
			words = append(words, fmt.Sprintf("%s signed %d events that are not the first of these", lost.Broker, lost.Size))
		}
	}
	switch {
	case len(words) > 0 && r.wish.despite == "":
		return &broker.Error{Kind: broker.Conflict, Hint: "take a newer backup, or pim-brokerd export on a broker whose disk is left; if there is none, say so with --despite TEXT",
			Msg: fmt.Sprintf("the backup goes on from %d events, and more was seen: %s; what it lacks would be undone, revocations too", r.whole.Signed.Size, strings.Join(words, ", "))}
	case len(words) > 0:
		r.term.Warn("what the backup lacks will be undone: %s", strings.Join(words, ", "))
	case r.wish.despite != "":
		r.term.Say("nothing that was seen here is missing; hosts that have seen more will take --despite for the reason")
	}
	return nil
}

// next is the epoch to begin: after every one that is known here.
func (r *restoring) next() (uint64, error) {
	newest := r.whole.State.Epoch().Number
	for _, seen := range r.seen {
		newest = max(newest, seen.Epoch)
	}
	signed, err := r.lastEpoch()
	if err != nil {
		return 0, err
	}
	epoch := cmp.Or(r.wish.epoch, max(newest, signed)+1)
	if epoch <= newest {
		return 0, usage(fmt.Sprintf("--epoch %d, or leave it out", newest+1), "epoch %d has begun already", newest)
	}
	return epoch, nil
}

// sign asks, signs, and writes the file.
func (r *restoring) sign(ctx context.Context) error {
	epoch, err := r.next()
	if err != nil {
		return err
	}
	head, _ := r.whole.Tree.Head(r.whole.Tree.Size())
	h, err := r.head(statement.KindRestore, restoreLife)
	if err != nil {
		return err
	}
	body := statement.Restore{Head: h, Epoch: epoch, Size: head.Size, Root: head.Root, Why: r.wish.why, Despite: r.wish.despite}
	if agreed, err := r.agree(ctx, body); err != nil || !agreed {
		return err
	}
	proof, err := r.contact.sign(ctx, body, hand{})
	if err != nil {
		return err
	}
	if err := r.rehearse(proof); err != nil {
		return err
	}
	if err := r.write(proof, head); err != nil {
		return err
	}
	return errors.Join(r.keepEpoch(epoch), r.say(body))
}

// rehearse decides the restore as the brokers will.
func (r *restoring) rehearse(proof statement.Proof) error {
	command, err := broker.CommandFor(proof, r.clock())
	if err == nil {
		_, err = broker.Decide(r.whole.State, command.Under(r.whole.State))
	}
	return err
}

// agree shows what will be signed, and asks.
func (r *restoring) agree(ctx context.Context, body statement.Restore) (bool, error) {
	state, now := r.whole.State, r.clock()
	var ends []string
	for _, one := range state.Grants() {
		if phase := one.Grant.Phase(now); phase == broker.PhaseActive || phase == broker.PhaseWaiting {
			ends = append(ends, fmt.Sprintf("%s: %s uses %s on %s", one.Grant.ID, one.Grant.Person, one.Grant.Role, joined(one.Grant.Hosts)))
		}
	}
	const most = 8
	if len(ends) > most {
		ends = append(ends[:most], fmt.Sprintf("and %d more", len(ends)-most))
	}
	card := term.Card{Title: fmt.Sprintf("restore, epoch %d", body.Epoch), Fields: []term.Field{
		{Label: "events", Lines: []string{fmt.Sprintf("%d, root %s", body.Size, body.Root)}},
		{Label: "newest", Lines: []string{moment(r.whole.Last, now)}},
		{Label: "policy", Lines: []string{fmt.Sprintf("revision %d", state.Chain().Ref().Revision)}},
		{Label: "brokers", Lines: []string{joined(r.brokers())}},
		{Label: "ends", Lines: ends},
		{Label: "why", Lines: []string{body.Why}, Quoted: true},
		{Label: "despite", Lines: nonEmpty(body.Despite), Quoted: true},
	}}
	if r.wish.yes {
		r.term.TalkCard(card)
		return true, nil
	}
	agreed, err := r.term.Confirm(ctx, card, "end every grant and request, and go on from this record?")
	if err == nil && !agreed {
		r.term.Say("nothing was signed")
		return false, invalid("", "not restored")
	}
	return agreed, err
}

// brokers are those that the policy lists, sorted.
func (r *restoring) brokers() []statement.BrokerName {
	return slices.Sorted(maps.Keys(r.chain.Current().Brokers))
}

// write makes the file that the brokers restore from, each with the key it proves itself by.
func (r *restoring) write(proof statement.Proof, head statement.LogHead) error {
	text, err := json.Marshal(proof)
	if err != nil {
		return err
	}
	var to []age.Recipient
	for _, name := range r.brokers() {
		recipient, err := agessh.ParseRecipient(string(r.chain.Current().Brokers[name].Identity))
		if err != nil {
			return invalid("", "the key of broker %s: %v", name, err)
		}
		to = append(to, recipient)
	}
	_, all, done, err := r.entries()
	if err != nil {
		return err
	}
	tree := &audit.Tree{}
	err = writeSealed(r.wish.file, backup.Restore, text, to, func(out *backup.Writer) error {
		add := func(leaf []byte, err error) error {
			tree.Add(leaf)
			return cmp.Or(err, out.Add(leaf))
		}
		for leaf, err := range all {
			if err := add(leaf, err); err != nil {
				return err
			}
		}
		for _, leaf := range r.later {
			if err := add(leaf, nil); err != nil {
				return err
			}
		}
		if own, _ := tree.Head(tree.Size()); own != head {
			return invalid("try again", "%s changed while it was read", r.wish.backup)
		}
		return nil
	})
	return errors.Join(err, done())
}

func (r *restoring) say(body statement.Restore) error {
	if r.json() {
		return r.term.JSON(restoreJSON{File: r.wish.file, Epoch: body.Epoch, Events: body.Size, Root: body.Root, Policy: body.Policy.Revision,
			Brokers: r.brokers(), Lacks: r.lacks})
	}
	name := filepath.Base(r.wish.file)
	r.term.Result("%s", r.wish.file)
	r.term.Say("signed; good until %s. Move the file to %s, stop pim-brokerd on all of them, and on each type:", moment(body.NotAfter, r.clock()), joined(r.brokers()))
	r.term.Say("  pim-brokerd quarantine; pim-brokerd restore %s; systemctl start pim-brokerd", name)
	return nil
}

// epochFile holds the newest epoch that was signed here: what is signed twice is never numbered alike.
func (d *desk) epochFile() (string, error) {
	state, err := d.stateDir()
	return filepath.Join(state, "epoch"), err
}

func (d *desk) lastEpoch() (uint64, error) {
	path, err := d.epochFile()
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32)
}

func (d *desk) keepEpoch(epoch uint64) error {
	path, err := d.epochFile()
	if err != nil {
		return err
	}
	return writeFile(path, []byte(strconv.FormatUint(epoch, 10)+"\n"), 0o600)
}
