package cluster

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// restoreKey is where raft.db keeps the restore statement that this disk was made from.
var restoreKey = []byte("pim-restore")

// errOldEpoch: what that broker knows is not what this cluster goes by any more.
var errOldEpoch = errors.New("it goes by a record from before a restore, or by that of another restore")

// Where raft's log of a restored disk begins: behind a snapshot, the same on every broker.
const (
	restoredIndex = 1
	restoredTerm  = 1
	restoreBatch  = 1024 // events written at once
)

// Restore makes a directory into the disk of one broker of a new epoch: the record as it was copied, and the operator's
// statement, which the first broker to lead files as the first command. The brokers of the policy in the record are its
// voters, each restored from the same two. It talks to nobody. A directory that holds anything of a broker's disk is ErrUsed,
// and one that was not restored to the end is left as empty as it was. That the events are a sound record is for the caller to
// have found out; that they are as many as the statement says, and that the rules would take it, is looked at here.
func Restore(config Config, proof statement.Proof, events iter.Seq2[[]byte, error]) error {
	found, err := present(config.Dir)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%s holds %s: %w", config.Dir, strings.Join(found, ", "), ErrUsed)
	}
	if err := formatRestored(config, proof, events); err != nil {
		for _, name := range []string{raftFile, eventsFile, snapshots} {
			err = errors.Join(err, os.RemoveAll(filepath.Join(config.Dir, name)))
		}
		return fmt.Errorf("%s: %w", config.Dir, err)
	}
	return nil
}

// formatRestored writes the disk. The mark comes last.
func formatRestored(config Config, proof statement.Proof, events iter.Seq2[[]byte, error]) error {
	mark, err := newMark()
	if err != nil {
		return err
	}
	log, err := openEvents(config.Dir)
	if err != nil {
		return err
	}
	state, err := refill(log, events)
	if err == nil {
		err = log.setMark(mark)
	}
	if err := errors.Join(err, log.close()); err != nil {
		return err
	}
	begin, err := newFounding(state.Chain().Proofs())
	if err == nil {
		begin, err = begin.restoredBy(proof)
	}
	if err != nil {
		return err
	}
	if _, listed := begin.chain.Current().Brokers[config.Name]; !listed {
		return fmt.Errorf("the policy in the record lists no broker %s", config.Name)
	}
	if err := rehearseRestore(state, proof, config.Now()); err != nil {
		return err
	}
	if err := formatRestoredRaft(config, mark, begin, state); err != nil {
		return err
	}
	return writeMark(config.Dir, mark)
}

// refill writes the events, and returns what they fold to.
func refill(log *EventLog, events iter.Seq2[[]byte, error]) (*broker.State, error) {
	state := broker.NewState()
	var batch [][]byte
	flush := func() error {
		err := log.append(log.Len(), batch)
		batch = batch[:0:0]
		return err
	}
	for leaf, err := range events {
		if err != nil {
			return nil, err
		}
		event, err := broker.DecodeEvent(leaf)
		if err != nil || event.Head().Index != state.Index() {
			return nil, errors.Join(err, fmt.Errorf("it is no event %d", state.Index()))
		}
		broker.Evolve(state, event)
		if batch = append(batch, leaf); len(batch) < restoreBatch {
			continue
		}
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return state, flush()
}

// rehearseRestore decides the first command, so that what would be refused is refused now.
func rehearseRestore(state *broker.State, proof statement.Proof, now statement.Time) error {
	command, err := broker.CommandFor(proof, now)
	if err != nil {
		return err
	}
	if command.Kind != broker.BeginEpoch {
		return fmt.Errorf("a %s command restores nothing", command.Kind)
	}
	_, err = broker.Decide(state, command.Under(state))
	return err
}

// formatRestoredRaft writes raft's side: a snapshot of the state, and no log.
func formatRestoredRaft(config Config, mark string, begin founding, state *broker.State) error {
	store, err := openRaftStore(config.Dir, config.Seams)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := os.MkdirAll(filepath.Join(config.Dir, snapshots), 0o700); err != nil {
		return err
	}
	kept, err := openSnapshots(config.Dir, &failstop{}, config.Log)
	if err != nil {
		return err
	}
	transport := raft.NewNetworkTransport(outbound{Wire: Alone(), mute: newMute(), door: &door{name: config.Name}}, wirePool, wireTimeout, config.Log)
	defer transport.Close()
	data, err := broker.EncodeState(state)
	if err != nil {
		return err
	}
	sink, err := kept.Create(raft.SnapshotVersionMax, restoredIndex, restoredTerm, begin.voters(), restoredIndex, transport)
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	if err := (frozen{data, &failstop{}, config.Seams}).Persist(sink); err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	proofs, err := json.Marshal(begin.proofs, json.Deterministic(true))
	if err != nil {
		return err
	}
	restore, err := json.Marshal(begin.restore, json.Deterministic(true))
	if err != nil {
		return err
	}
	return errors.Join(sealedValues{store}.SetUint64([]byte("CurrentTerm"), restoredTerm), store.Set(foundingKey, proofs), store.Set(restoreKey, restore),
		store.Set(markKey, []byte(mark)))
}

// restoredBy is the founding of an epoch.
func (f founding) restoredBy(proof statement.Proof) (founding, error) {
	body, err := broker.CheckRestore(f.chain, proof)
	if err != nil {
		return f, err
	}
	f.restore, f.epoch, f.origin = &proof, body.Epoch, proof.Hash()
	return f, nil
}

// readRestore takes in what formatRestoredRaft wrote, if this disk was ever restored.
func (f founding) readRestore(store *raftboltdb.BoltStore) (founding, error) {
	data, err := store.Get(restoreKey)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	proof, err := statement.ParseProof(data)
	if err != nil {
		return f, fmt.Errorf("the restore statement: %w", err)
	}
	return f.restoredBy(proof)
}

// foreign is why a broker of another founding is not spoken to.
func (f founding) foreign() error {
	if f.restore == nil {
		return errForeign
	}
	return fmt.Errorf("%w, and this one began epoch %d; on the other: pim-brokerd quarantine, then pim-brokerd restore FILE", errOldEpoch, f.epoch)
}
