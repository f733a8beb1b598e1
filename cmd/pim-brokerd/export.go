package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/backup"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
	"pim-ssh/cluster"
)

// exportCommand makes a backup from the disk of a broker that does not run: the way on when the others are gone for good.
func exportCommand(words *flag.FlagSet, args []string) error {
	config := words.String("config", "", "")
	var to []string
	words.Func("to", "", func(key string) error { to = append(to, key); return nil })
	files, err := parse(words, args, 1)
	if err != nil || len(to) == 0 {
		return cmp.Or(err, errUsage)
	}
	keys, err := backup.ParseKeys(to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	c, err := readConfig(*config)
	if err != nil {
		return err
	}
	signed, found, err := export(c, files[0], keys)
	if err != nil {
		return err
	}
	if found.Doubt != nil {
		fmt.Fprintf(os.Stderr, "pim-brokerd: raft's own log was not read, and what only it held is not in the file: %v\n", found.Doubt)
	}
	if found.Late > 0 {
		fmt.Fprintf(os.Stderr, "pim-brokerd: the last %d events stood in raft's log alone; the leader may have acknowledged them\n", found.Late)
	}
	fmt.Printf("%s: %d events, root %s; next, as an operator: pim-ssh cluster restore %s --identity KEYFILE --why TEXT -o restore\n",
		files[0], signed.Size, signed.Root, filepath.Base(files[0]))
	return nil
}

// export writes what the disk holds to a new file, signed with this broker's log key and verified as an auditor would.
func export(c config, path string, keys []age.Recipient) (audit.Signed, *cluster.Salvaged, error) {
	found, err := cluster.Salvage(c.Dir)
	if err != nil {
		return audit.Signed{}, nil, fmt.Errorf("%w; systemctl stop pim-brokerd, if it runs", err)
	}
	defer found.Close()
	log, err := signer.Open(c.Log)
	if err != nil {
		return audit.Signed{}, nil, err
	}
	signed, err := signSalvaged(c, found, log)
	if err != nil {
		return audit.Signed{}, nil, err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return audit.Signed{}, nil, err
	}
	sealed, err := backup.NewWriter(out, backup.Record, signed.Text, keys...)
	for leaf, broken := range found.Events() {
		if err == nil {
			err = broken
		}
		if err == nil {
			err = sealed.Add(leaf)
		}
	}
	if err == nil {
		err = sealed.Close()
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return audit.Signed{}, nil, errors.Join(err, os.Remove(path))
	}
	return signed, found, nil
}

// signSalvaged verifies what was found and signs it as this broker's record. It never signs what contradicts an earlier word.
func signSalvaged(c config, found *cluster.Salvaged, log ssh.Signer) (audit.Signed, error) {
	tree := &audit.Tree{}
	for leaf, err := range found.Events() {
		if err != nil {
			return audit.Signed{}, err
		}
		tree.Add(leaf)
	}
	chain := found.State.Chain()
	head, _ := tree.Head(tree.Size())
	text, err := audit.Sign(audit.Checkpoint{Deployment: chain.Deployment(), LogHead: head, State: found.State.Digest()}, log)
	if err != nil {
		return audit.Signed{}, err
	}
	before, err := signedBefore(c.Dir, chain.Deployment(), log)
	if err != nil {
		return audit.Signed{}, err
	}
	whole, err := refold.VerifyEntries(refold.Entries{All: found.Events(), Checkpoint: text, Before: before, Pinned: chain, Now: anyTime})
	if err != nil {
		return audit.Signed{}, fmt.Errorf("what the disk holds is no record that can be restored: %w", err)
	}
	for _, signed := range before {
		if signed.Size > whole.Signed.Size {
			return audit.Signed{}, fmt.Errorf("this broker signed %d events before, and its disk holds %d: events are missing", signed.Size, whole.Signed.Size)
		}
	}
	return whole.Signed, nil
}

// anyTime is later than every time stamped: a record whose brokers' clock ran ahead is exported too.
const anyTime = statement.Time(1) << 40

// signedBefore reads the newest checkpoint that this broker published, if it ever did.
func signedBefore(dir string, deployment statement.Hash, log ssh.Signer) ([]refold.Seen, error) {
	text, err := os.ReadFile(filepath.Join(dir, recordDir, audit.PathCheckpoint))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	own, err := statement.KeyOf(log.PublicKey())
	if err != nil {
		return nil, err
	}
	signed, err := audit.Open(text, deployment, map[statement.BrokerName]statement.Key{"": own})
	if err != nil {
		fmt.Fprintf(os.Stderr, "pim-brokerd: the record's own checkpoint is damaged and not compared: %v\n", err)
		return nil, nil
	}
	return []refold.Seen{{Signed: signed}}, nil
}
