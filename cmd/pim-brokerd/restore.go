package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/backup"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// restoreCommand makes this broker's disk anew, from the file that an operator signed. Where policy lists several brokers, the
// same file goes to each.
func restoreCommand(words *flag.FlagSet, args []string) error {
	dir := words.String("dir", brokerDir, "")
	files, err := parse(words, args, 1)
	if err != nil {
		return err
	}
	body, brokers, err := restore(*dir, files[0])
	if errors.Is(err, cluster.ErrUsed) {
		return fmt.Errorf("%w; move the old disk aside first: pim-brokerd quarantine", err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", files[0], err)
	}
	fmt.Printf("epoch %d begins with %d events, by %s: %s; next: systemctl start pim-brokerd\n", body.Epoch, body.Size, body.Person, body.Why)
	if brokers > 1 {
		fmt.Printf("the policy lists %d brokers: type the same on each, with the same file; %d of them must run\n", brokers, brokers/2+1)
	}
	return nil
}

// restore verifies the whole file, as if nobody had before, and then makes the disk.
func restore(dir, path string) (statement.Restore, int, error) {
	none := statement.Restore{}
	name, err := readName(dir)
	if err != nil {
		return none, 0, err
	}
	private, _, err := readIdentity(filepath.Join(dir, identityFile))
	if err != nil {
		return none, 0, err
	}
	key, err := agessh.NewEd25519Identity(private)
	if err != nil {
		return none, 0, err
	}
	file, err := os.Open(path)
	if err != nil {
		return none, 0, err
	}
	defer file.Close()
	proof, body, state, err := checkRestore(file, key)
	if err != nil {
		return none, 0, err
	}
	listed := state.Chain().Current().Brokers
	if err := checkKeys(dir, listed[name]); err != nil {
		return none, 0, fmt.Errorf("broker %s: %w", name, err)
	}
	_, again, err := opened(file, key)
	if err != nil {
		return none, 0, err
	}
	config := cluster.Config{Name: name, Dir: dir, Now: clock, Log: os.Stderr}
	if err := cluster.Restore(config, proof, held(again, body.Restored())); err != nil {
		return none, 0, err
	}
	return body, len(listed), setRecordAside(dir, body.Epoch)
}

// opened reads the file from its beginning.
func opened(file *os.File, key age.Identity) (statement.Proof, iter.Seq2[[]byte, error], error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return statement.Proof{}, nil, err
	}
	head, entries, err := backup.Open(file, backup.Restore, key)
	if errors.Is(err, backup.ErrKey) {
		return statement.Proof{}, nil, errors.New("it is not for this broker: its policy lists another identity key, or none")
	}
	if err != nil {
		return statement.Proof{}, nil, err
	}
	proof, err := statement.ParseProof(head)
	return proof, entries, err
}

// checkRestore decides every event again, and holds the record to what the operator signed.
func checkRestore(file *os.File, key age.Identity) (statement.Proof, statement.Restore, *broker.State, error) {
	none := statement.Restore{}
	proof, entries, err := opened(file, key)
	if err != nil {
		return proof, none, nil, err
	}
	replay := refold.NewReplay(anyTime)
	tree := &audit.Tree{}
	for leaf, err := range entries {
		if err != nil {
			return proof, none, nil, err
		}
		if _, err := replay.Take(leaf); err != nil {
			return proof, none, nil, fmt.Errorf("event %d: %w", tree.Size(), err)
		}
		tree.Add(leaf)
	}
	if err := replay.Done(); err != nil {
		return proof, none, nil, err
	}
	body, err := broker.CheckRestore(replay.State().Chain(), proof)
	if err != nil {
		return proof, none, nil, err
	}
	if head, _ := tree.Head(tree.Size()); head != body.Restored() {
		return proof, none, nil, fmt.Errorf("it holds %d events with root %s, and %s signed %d with root %s", head.Size, head.Root, body.Person, body.Size, body.Root)
	}
	return proof, body, replay.State(), nil
}

// held passes entries on, and reports at their end when they are not those of the head.
func held(entries iter.Seq2[[]byte, error], head statement.LogHead) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		tree := &audit.Tree{}
		for leaf, err := range entries {
			if err == nil {
				tree.Add(leaf)
			}
			if !yield(leaf, err) || err != nil {
				return
			}
		}
		if own, _ := tree.Head(tree.Size()); own != head {
			yield(nil, errors.New("the file changed while it was read"))
		}
	}
}

// setRecordAside moves what this broker published of the old record out of the way. Nothing is deleted: it is evidence.
func setRecordAside(dir string, epoch uint64) error {
	from := filepath.Join(dir, recordDir)
	for n := 0; ; n++ {
		to := from + "-before-epoch-" + strconv.FormatUint(epoch, 10)
		if n > 0 {
			to += "." + strconv.Itoa(n)
		}
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
}
