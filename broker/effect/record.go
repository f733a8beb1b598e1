package effect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
)

// Log is what a record needs of the cluster: this broker's own committed events, whoever leads.
type Log interface {
	// Local lets fn look at what this broker has applied so far.
	Local(fn func(*broker.State)) error
	// Events returns at most limit committed events from index on, and a channel that is closed once there are more.
	Events(index uint64, limit int) ([][]byte, <-chan struct{}, error)
}

// Pace of publishing: hosts see a checkpoint with each beat, so that a burst of events needs one and not many.
const (
	publishPause = 200 * time.Millisecond
	publishAgain = 5 * time.Second    // after a failure
	publishBatch = 16 * audit.Width   // events grown at once
	recordMode   = fs.FileMode(0o600) // whoever may read it asks the broker
	tileDir      = "tile"             // all files but the checkpoint
	tempSuffix   = ".tmp"             // of a file being written
)

// Record publishes the events as files that nobody can change unseen: tiles, and a signed checkpoint over them. The
// checkpoint is the cursor: what comes after it is published again after a crash. It signs nothing that contradicts what
// it signed before, and a broken record blocks no decision. One Record owns its directory.
type Record struct {
	Dir    string // made when it is not there
	Key    ssh.Signer
	Events Log
	Log    *slog.Logger

	head    statement.LogHead // what the files hold
	loaded  bool
	newest  atomic.Pointer[audit.Signed]
	damaged atomic.Bool // a file was found altered when it was asked for: all are to be made anew
}

// Run publishes until ctx ends.
func (r *Record) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := publishPause
		_, grown, err := r.Events.Events(r.head.Size, 1)
		if err == nil {
			err = r.Publish()
		}
		if err != nil {
			r.Log.Error("THE RECORD IS NOT PUBLISHED", "error", err)
			grown, pause = nil, publishAgain
		}
		if r.newest.Load() == nil {
			grown = nil // the state was not read yet: a snapshot comes without growing the log
		}
		if grown != nil {
			select {
			case <-grown:
			case <-time.After(publishAgain): // damage may have been met
			case <-ctx.Done():
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Publish brings the record up to what this broker has applied, and signs that.
func (r *Record) Publish() error {
	var checkpoint audit.Checkpoint
	err := r.Events.Local(func(state *broker.State) {
		checkpoint.Size, checkpoint.Deployment, checkpoint.State = state.Index(), state.Chain().Deployment(), state.Digest()
	})
	if err != nil || checkpoint.Size == 0 {
		return err
	}
	if err := r.load(checkpoint.Deployment); err != nil {
		return err
	}
	if r.damaged.Swap(false) {
		r.head = statement.LogHead{} // what is right is written over with the same
	}
	if newest := r.newest.Load(); newest != nil && newest.Size >= checkpoint.Size {
		return r.restore(newest.LogHead)
	}
	if err := r.grow(checkpoint.Size); err != nil {
		return err
	}
	return r.sign(checkpoint)
}

// grow writes the files of the first size events, all of them when those that are there are damaged.
func (r *Record) grow(size uint64) error {
	before := r.head
	err := r.growTo(size)
	if err != nil && before.Size > 0 {
		r.Log.Warn("the record's files are damaged and made anew from the events", "error", err)
		err = errors.Join(r.clear(), r.growTo(size))
	}
	return err
}

// restore has the files hold what this broker signed, also when there is nothing new to sign. The event log is whole at
// once after a restart, when the state is not.
func (r *Record) restore(signed statement.LogHead) error {
	last, _, err := r.Events.Events(signed.Size-1, 1)
	if err == nil && len(last) == 0 {
		err = fmt.Errorf("this broker signed %d events, and its event log does not hold them: %w", signed.Size, audit.ErrShrunk)
	}
	if err != nil || r.head == signed {
		return err
	}
	if err := r.grow(signed.Size); err != nil {
		return err
	}
	return audit.Extends(r.files(), signed, r.head)
}

// load reads what an earlier run left, and checks those files that the record goes on from; each of the others is when
// somebody asks for it. Files that are not what this broker signed are nothing.
func (r *Record) load(deployment statement.Hash) error {
	if r.loaded {
		return nil
	}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return err
	}
	key, err := statement.KeyOf(r.Key.PublicKey())
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(r.Dir, audit.PathCheckpoint))
	if err == nil {
		var signed audit.Signed
		if signed, err = audit.Open(text, deployment, map[statement.BrokerName]statement.Key{"": key}); err == nil {
			r.newest.Store(&signed)
			r.head = signed.LogHead
		}
	}
	r.loaded = true
	if err == nil {
		err = audit.HoldEdge(r.files(), r.head)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.newest.Load() == nil: // a new broker's
		return r.clear()
	case err != nil:
		r.Log.Warn("the record on disk is damaged and made anew from the events", "dir", r.Dir, "error", err)
		return r.clear()
	}
	return r.prune()
}

// clear begins again with no files. What was signed stays signed: sign holds the new files to it.
func (r *Record) clear() error {
	r.head = statement.LogHead{}
	return os.RemoveAll(filepath.Join(r.Dir, tileDir))
}

// growTo writes the files of the first size events.
func (r *Record) growTo(size uint64) error {
	for r.head.Size < size {
		first := audit.First(r.head.Size)
		events, _, err := r.Events.Events(first, int(min(size-first, publishBatch)))
		if err != nil {
			return err
		}
		head, files, err := audit.Grow(r.head, r.files(), events)
		if err != nil {
			return err
		}
		if head.Size == r.head.Size {
			return fmt.Errorf("the event log ends at %d, before event %d", head.Size, size)
		}
		for _, file := range files {
			if err := r.write(file.Path, file.Data); err != nil {
				return err
			}
		}
		r.head = head
	}
	return nil
}

// sign shows what the files hold, unless this broker has signed something else before.
func (r *Record) sign(checkpoint audit.Checkpoint) error {
	before := statement.LogHead{}
	if newest := r.newest.Load(); newest != nil {
		before = newest.LogHead
	}
	if err := audit.Extends(r.files(), before, r.head); err != nil {
		return fmt.Errorf("this broker signed another log before, and signs no second one: %w", err)
	}
	checkpoint.LogHead = r.head
	text, err := audit.Sign(checkpoint, r.Key)
	if err != nil {
		return err
	}
	if err := r.write(audit.PathCheckpoint, text); err != nil {
		return err
	}
	r.newest.Store(&audit.Signed{Checkpoint: checkpoint, Text: text})
	return r.drop(before)
}

// files reads the record's own files.
func (r *Record) files() audit.Source { return audit.FromFS(os.DirFS(r.Dir)) }

// Read is the record as others may see it: the newest checkpoint, and the tiles under it. Nothing that was altered is
// handed out.
func (r *Record) Read(path string) ([]byte, error) {
	newest := r.newest.Load()
	switch {
	case newest == nil:
		return nil, fmt.Errorf("nothing is published yet: %w", fs.ErrNotExist)
	case path == audit.PathCheckpoint:
		return newest.Text, nil
	}
	if err := audit.Within(newest.Size, path); err != nil {
		return nil, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	data, err := r.files()(path)
	if err == nil {
		err = audit.Hold(r.files(), newest.LogHead, path, data)
	}
	if err != nil {
		return nil, r.doubt(err)
	}
	return data, nil
}

// doubt has all files made anew from the events, and refuses the one that was asked for until then.
func (r *Record) doubt(err error) error {
	if !r.damaged.Swap(true) {
		r.Log.Warn("the record on disk is damaged and made anew from the events", "dir", r.Dir, "error", err)
	}
	return broker.Refuse(broker.Unavailable, "try again in a moment", "this broker's record is being mended: %w", err)
}

// write puts a whole file in place. It is not synced: events are, and the files follow from them.
func (r *Record) write(name string, data []byte) error {
	path := filepath.Join(r.Dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+tempSuffix, data, recordMode); err != nil {
		return err
	}
	return os.Rename(path+tempSuffix, path)
}

// drop removes the partial tiles of a smaller record: each is the beginning of a wider one by now.
func (r *Record) drop(before statement.LogHead) error {
	current := audit.Partials(r.head.Size)
	for _, name := range audit.Partials(before.Size) {
		if slices.Contains(current, name) {
			continue
		}
		path := filepath.Join(r.Dir, filepath.FromSlash(name))
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = os.Remove(filepath.Dir(path)) // stays while it holds another
	}
	return nil
}

// prune removes what a crash left behind.
func (r *Record) prune() error {
	current := audit.Partials(r.head.Size)
	return filepath.WalkDir(filepath.Join(r.Dir, tileDir), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(r.Dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !strings.Contains(name, ".p/") && !strings.HasSuffix(name, tempSuffix) || slices.Contains(current, name) {
			return nil
		}
		return os.Remove(path)
	})
}
