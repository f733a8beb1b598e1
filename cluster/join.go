package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// joinedKey is where raft.db of a broker that joined carries the disk's id: it is part of what raft knows the broker by.
var joinedKey = []byte("pim-joined")

// addedKey is where raft.db of a broker that joined keeps the statement by which an operator added it, for brokers that have not
// heard of it yet.
var addedKey = []byte("pim-added")

// readAdded reads that statement, if it was ever kept. What was altered is looked up again.
func (d *door) readAdded() error {
	data, err := sealedValues{d.known}.Get(addedKey)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) || errors.Is(err, ErrDisk) {
		return nil
	}
	if err != nil {
		return err
	}
	if proof, err := statement.ParseProof(data); err == nil {
		d.added.Store(&proof)
	}
	return nil
}

// keepAdded looks up by which statement this broker was added, once it was.
func (n *Node) keepAdded() error {
	if !n.joined() || n.door.added.Load() != nil {
		return nil
	}
	var index uint64
	if err := n.machine.read(func(state *broker.State) {
		for _, m := range state.Members() {
			if (Seat{Name: m.Name, Disk: m.Disk}).id() == n.id {
				index = m.Index
			}
		}
	}); err != nil || index == 0 {
		return err
	}
	leaves, err := n.machine.log.Read(index, 1)
	if err != nil || len(leaves) == 0 {
		return err
	}
	event, err := broker.DecodeEvent(leaves[0])
	if err != nil {
		return err
	}
	word, is := event.(*broker.BrokerAdded)
	if !is {
		return fmt.Errorf("event %d added nobody", index)
	}
	data, err := json.Marshal(word.Proof, json.Deterministic(true))
	if err != nil {
		return err
	}
	n.door.added.Store(&word.Proof)
	return n.policies.store.Set(addedKey, data)
}

// ErrHeld says that a running broker uses the directory.
var ErrHeld = errors.New("a running broker holds this disk")

// Join makes a directory into the disk of a broker that is to come into a cluster which others founded, and returns the id
// that an operator adds it by. The chain is any of the deployment's that lists the broker. It talks to nobody. A directory
// that holds anything of a broker's disk is ErrUsed; a join that breaks off leaves a directory that Open refuses.
func Join(config Config, chain []statement.Proof) (statement.Disk, error) {
	begin, err := newFounding(chain)
	if err != nil {
		return "", err
	}
	if err := begin.mayUse(config); err != nil {
		return "", err
	}
	if err := format(config, begin, raft.Configuration{}); err != nil {
		return "", fmt.Errorf("%s: %w", config.Dir, err)
	}
	return Joined(config.Dir)
}

// Joined returns the id of the disk that Join made in a directory, and that no running broker holds. A disk that was
// bootstrapped is ErrUsed.
func Joined(dir string) (statement.Disk, error) {
	mark, err := readMark(dir)
	if err != nil {
		return "", err
	}
	store, err := openRaftStore(dir, Seams{})
	if err != nil {
		return "", err
	}
	defer store.Close()
	id, err := readID(store, "", mark)
	if err == nil && seatOf(id).Disk == "" {
		err = fmt.Errorf("%s: %w", dir, ErrUsed)
	}
	return seatOf(id).Disk, err
}

// readID returns what raft knows the broker of a disk by.
func readID(store *raftboltdb.BoltStore, name statement.BrokerName, mark string) (raft.ServerID, error) {
	joined, err := store.Get(joinedKey)
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return Seat{Name: name}.id(), nil
	case err != nil:
		return "", err
	case string(joined) != mark:
		return "", fmt.Errorf("%s joined with another disk: %w", raftFile, ErrDisk)
	}
	return Seat{Name: name, Disk: statement.Disk(mark)}.id(), nil
}

// Quarantine moves every part of a broker's disk into a directory of its own below aside, which it returns, and deletes
// nothing: what was damaged, removed or wiped is never used again, and can still be looked at. Keys and the record stay where
// they are. A disk that a running broker holds is refused; where there is none, it is ErrEmpty.
func Quarantine(dir, aside string, now statement.Time) (string, error) {
	found, err := present(dir)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s: %w", dir, ErrEmpty)
	}
	if err := unheld(filepath.Join(dir, raftFile)); err != nil {
		return "", err
	}
	to := filepath.Join(aside, fmt.Sprint(now))
	if err := errors.Join(os.MkdirAll(aside, 0o700), os.Mkdir(to, 0o700)); err != nil {
		return "", err
	}
	for _, name := range found { // the mark first: what is left is no disk
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(to, name)); err != nil {
			return "", err
		}
	}
	return to, errors.Join(syncDir(to), syncDir(aside), syncDir(dir))
}

// unheld refuses a database that another process has open. Nothing of it is read: it may be damaged.
func unheld(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s: %w", path, ErrHeld)
	}
	return nil
}
