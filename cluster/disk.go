package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// What stands in a broker's directory.
const (
	markFile   = "disk"      // the disk's own random id, written last: the disk is complete
	raftFile   = "raft.db"   // raft's log and votes
	eventsFile = "events.db" // the event log
	snapshots  = "snapshots" // made by raft's FileSnapshotStore

	damagedFile = "damaged" // why this disk is not used again: written when damage is met that no start looks for
)

// parts are what a complete disk has.
var parts = []string{markFile, raftFile, eventsFile, snapshots}

// openTimeout bounds the wait for a lock that another process holds (FACTS R3).
const openTimeout = 2 * time.Second

// markKey is where raft.db carries the disk's id.
var markKey = []byte("pim-disk")

// Why a directory is not used. Test with errors.Is.
var (
	// ErrEmpty says that nothing was ever written here.
	ErrEmpty = errors.New("not bootstrapped")
	// ErrUsed says that something was.
	ErrUsed = errors.New("already bootstrapped")
	// ErrDisk says that parts of the directory are gone, cut short, or come from another disk. Going on could lose what
	// was acknowledged, or vote twice.
	ErrDisk = errors.New("this is not the disk this broker left")
)

// present lists which of the directory's parts exist.
func present(dir string) ([]string, error) {
	var found []string
	for _, name := range append(parts, damagedFile) {
		_, err := os.Lstat(filepath.Join(dir, name))
		switch {
		case err == nil:
			found = append(found, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return found, nil
}

// newMark draws a disk's id: 32 hex digits.
func newMark() (string, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("disk id: %w", err)
	}
	return hex.EncodeToString(raw[:]), nil
}

// writeMark completes a disk. It is durable when it returns.
func writeMark(dir, mark string) error {
	return writeFile(filepath.Join(dir, markFile), []byte(mark+"\n"))
}

// writeFile makes a new file. It is durable when it returns.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// condemn has no start use the disk again. When even that cannot be written, the next start meets the damage once more.
func condemn(dir string, why error) {
	_ = writeFile(filepath.Join(dir, damagedFile), []byte(why.Error()+"\n"))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readMark returns the id of a complete disk, after checking that every part is there.
func readMark(dir string) (string, error) {
	found, err := present(dir)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s: %w", dir, ErrEmpty)
	}
	if why, err := os.ReadFile(filepath.Join(dir, damagedFile)); err == nil {
		return "", fmt.Errorf("%s was found damaged: %.400q: %w", dir, strings.TrimSpace(string(why)), ErrDisk)
	}
	if len(found) < len(parts) {
		return "", fmt.Errorf("%s holds only %s: %w", dir, strings.Join(found, ", "), ErrDisk)
	}
	mark, err := os.ReadFile(filepath.Join(dir, markFile))
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(mark), "\n"), nil
}

// openRaftStore opens raft.db; the caller closes it.
func openRaftStore(dir string, seams Seams) (*raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, raftFile)
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: seams.store(&bbolt.Options{Timeout: openTimeout})})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return store, nil
}

// checkMark holds both databases to the disk's id.
func checkMark(mark string, store *raftboltdb.BoltStore, log *EventLog) error {
	inRaft, err := store.Get(markKey)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	if string(inRaft) != mark {
		return fmt.Errorf("%s belongs to another disk: %w", raftFile, ErrDisk)
	}
	inEvents, err := log.mark()
	if err != nil {
		return err
	}
	if inEvents != mark {
		return fmt.Errorf("%s belongs to another disk: %w", eventsFile, ErrDisk)
	}
	return nil
}
