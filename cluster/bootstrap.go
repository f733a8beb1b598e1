package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Bootstrap makes a directory into the disk of a cluster of one and files the policy chain, first revision first, as its
// first commands. It talks to nobody. A directory that holds anything of a broker's disk is ErrUsed; a bootstrap that
// breaks off leaves a directory that Open refuses.
func Bootstrap(ctx context.Context, config Config, chain []statement.Proof) error {
	found, err := present(config.Dir)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%s holds %s: %w", config.Dir, strings.Join(found, ", "), ErrUsed)
	}
	if err := format(config); err != nil {
		return fmt.Errorf("%s: %w", config.Dir, err)
	}
	config.Wire = silent(config.Address)
	node, err := Open(config)
	if err != nil {
		return err
	}
	return errors.Join(adopt(ctx, node, chain), node.Close())
}

// format writes an empty disk: one voter, no events. The mark comes last.
func format(config Config) error {
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
	if err := formatRaft(config, mark); err != nil {
		return err
	}
	return writeMark(config.Dir, mark)
}

func formatRaft(config Config, mark string) error {
	store, err := openRaftStore(config.Dir)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := os.MkdirAll(filepath.Join(config.Dir, snapshots), 0o700); err != nil {
		return err
	}
	kept, err := raft.NewFileSnapshotStore(config.Dir, keptSnapshots, config.Log)
	if err != nil {
		return err
	}
	alone := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(config.Name), Address: raft.ServerAddress(config.Address),
	}}}
	wire := silent(config.Address)
	transport := raft.NewNetworkTransport(layer{wire.Listener, wire.Dial}, wirePool, wireTimeout, config.Log)
	defer transport.Close()
	if err := raft.BootstrapCluster(raftConfig(config), chainedStore{store}, store, kept, transport, alone); err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	return store.Set(markKey, []byte(mark))
}

// adopt files the chain once the node leads.
func adopt(ctx context.Context, node *Node, chain []statement.Proof) error {
	if err := node.Ready(ctx); err != nil {
		return err
	}
	for i, proof := range chain {
		command, err := broker.CommandFor(proof, 0)
		if err != nil {
			return fmt.Errorf("policy %d: %w", i+1, err)
		}
		if command.Kind != broker.AdoptPolicy {
			return fmt.Errorf("policy %d: a %s is no policy", i+1, command.Kind)
		}
		if _, err := node.Propose(ctx, command); err != nil {
			return fmt.Errorf("policy %d: %w", i+1, err)
		}
	}
	return nil
}
