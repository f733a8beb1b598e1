package cluster

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// foundingKey is where raft.db keeps the chain that this disk was bootstrapped with.
var foundingKey = []byte("pim-founding")

// founding is the policy chain that a deployment begins with. Its newest revision names the voters, and says which keys
// speak raft until the log says so itself.
type founding struct {
	proofs  []statement.Proof
	chain   policy.Chain
	origin  statement.Hash   // of its one spelling, or of the restore statement: every broker of a cluster has the same
	restore *statement.Proof // what began the epoch that this disk was restored in; nil: it never was
	epoch   uint64           // that epoch; 0: none
}

func newFounding(proofs []statement.Proof) (founding, error) {
	if len(proofs) == 0 {
		return founding{}, errors.New("no policy to begin with")
	}
	chain, err := policy.Genesis(proofs[0])
	for _, proof := range proofs[1:] {
		if err == nil {
			chain, err = chain.Advance(proof)
		}
	}
	if err != nil {
		return founding{}, fmt.Errorf("first policy: %w", err)
	}
	data, err := json.Marshal(proofs, json.Deterministic(true))
	return founding{proofs: proofs, chain: chain, origin: statement.HashOf(data)}, err
}

// originsOf returns what the origin is of a founding with the first policy alone, with the first two, and so on.
func originsOf(proofs []statement.Proof) []statement.Hash {
	var all []statement.Hash
	so := sha256.New()
	so.Write([]byte("["))
	for i, proof := range proofs {
		data, err := json.Marshal(proof, json.Deterministic(true))
		if err != nil {
			break
		}
		if i > 0 {
			so.Write([]byte(","))
		}
		so.Write(data)
		ended, err := so.(hash.Cloner).Clone()
		if err != nil {
			break
		}
		ended.Write([]byte("]"))
		all = append(all, statement.Hash(ended.Sum(nil)))
	}
	return all
}

// voters are the brokers of the newest revision. Raft knows them by name alone: where they are may change with policy.
func (f founding) voters() raft.Configuration {
	var all raft.Configuration
	for _, name := range slices.Sorted(maps.Keys(f.chain.Current().Brokers)) {
		all.Servers = append(all.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
	}
	return all
}

// Bootstrap makes a directory into the disk of one broker of a new cluster: those that the newest policy of the chain
// lists, each bootstrapped with the same chain. It talks to nobody; the first of them to lead files the chain, first
// revision first, as the first commands. A directory that holds anything of a broker's disk is ErrUsed; a bootstrap
// that breaks off leaves a directory that Open refuses.
func Bootstrap(config Config, chain []statement.Proof) error {
	begin, err := newFounding(chain)
	if err != nil {
		return err
	}
	if err := begin.mayUse(config); err != nil {
		return err
	}
	if err := begin.rehearse(config.Now()); err != nil {
		return err
	}
	if err := format(config, begin, begin.voters()); err != nil {
		return fmt.Errorf("%s: %w", config.Dir, err)
	}
	return nil
}

// mayUse refuses a broker that the newest policy does not list, and a directory that holds anything of a broker's disk.
func (f founding) mayUse(config Config) error {
	if _, listed := f.chain.Current().Brokers[config.Name]; !listed {
		return fmt.Errorf("the policy lists no broker %s", config.Name)
	}
	found, err := present(config.Dir)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%s holds %s: %w", config.Dir, strings.Join(found, ", "), ErrUsed)
	}
	return err
}

// rehearse decides the first commands on an empty state, so that what would be refused is refused now.
func (f founding) rehearse(now statement.Time) error {
	state := broker.NewState()
	for i, proof := range f.proofs {
		command, err := broker.CommandFor(proof, now)
		if err != nil {
			return fmt.Errorf("policy %d: %w", i+1, err)
		}
		decided, err := broker.Decide(state, command.Under(state))
		if err != nil {
			return fmt.Errorf("policy %d: %w", i+1, err)
		}
		for _, event := range decided.Events {
			broker.Evolve(state, event)
		}
	}
	return nil
}

// format writes an empty disk: the voters, or none of one that will join; no events. The mark comes last.
func format(config Config, begin founding, voters raft.Configuration) error {
	mark, err := newMark()
	if err != nil {
		return err
	}
	log, err := openEvents(config.Dir)
	if err != nil {
		return err
	}
	if err := errors.Join(log.setMark(mark), log.close()); err != nil {
		return err
	}
	if err := formatRaft(config, mark, begin, voters); err != nil {
		return err
	}
	return writeMark(config.Dir, mark)
}

func formatRaft(config Config, mark string, begin founding, voters raft.Configuration) error {
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
	if len(voters.Servers) > 0 {
		err = seat(config, store, kept, voters)
	} else {
		err = store.Set(joinedKey, []byte(mark))
	}
	if err != nil {
		return err
	}
	data, err := json.Marshal(begin.proofs, json.Deterministic(true))
	if err != nil {
		return err
	}
	return errors.Join(store.Set(foundingKey, data), store.Set(markKey, []byte(mark)))
}

// seat writes the first entry of raft's log: who votes.
func seat(config Config, store *raftboltdb.BoltStore, kept raft.SnapshotStore, voters raft.Configuration) error {
	transport := raft.NewNetworkTransport(outbound{Wire: Alone(), mute: newMute(), door: &door{name: config.Name}}, wirePool, wireTimeout, config.Log)
	defer transport.Close()
	err := raft.BootstrapCluster(raftConfig(raft.ServerID(config.Name), config.Log), chainedStore{store}, sealedValues{store}, kept, transport, voters)
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	return nil
}

// readFounding reads what formatRaft wrote.
func readFounding(store *raftboltdb.BoltStore) (founding, error) {
	data, err := store.Get(foundingKey)
	if err != nil {
		return founding{}, fmt.Errorf("%s: the founding chain: %w: %w", raftFile, ErrDisk, err)
	}
	var proofs []statement.Proof
	if err := json.UnmarshalRead(bytes.NewReader(data), &proofs); err != nil {
		return founding{}, fmt.Errorf("%s: the founding chain: %w: %w", raftFile, ErrDisk, err)
	}
	begin, err := newFounding(proofs)
	if err == nil {
		begin, err = begin.readRestore(store)
	}
	if err != nil {
		return founding{}, fmt.Errorf("%s: %w: %w", raftFile, ErrDisk, err)
	}
	return begin, nil
}
