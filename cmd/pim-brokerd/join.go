package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cluster"
)

// quarantineDir holds, each in a directory of its own, disks that are not used any more.
const quarantineDir = "quarantine"

// joinCommand makes this broker's disk for a cluster that exists, and prints what an operator types to let it in. Typed
// again it prints the same.
func joinCommand(words *flag.FlagSet, args []string) error {
	dir := words.String("dir", brokerDir, "")
	files, err := parse(words, args, 1)
	if err != nil {
		return err
	}
	proofs, chain, err := readChainFile(files[0])
	if err != nil {
		return err
	}
	name, err := readName(*dir)
	if err != nil {
		return err
	}
	disk, err := join(*dir, name, proofs, chain)
	if err != nil {
		return err
	}
	fmt.Printf("deployment %s; next, here: systemctl enable --now pim-brokerd\nand an operator: pim-ssh cluster add %s --disk %s\n", chain.Deployment(), name, disk)
	return nil
}

func join(dir string, name statement.BrokerName, proofs []statement.Proof, chain policy.Chain) (statement.Disk, error) {
	listed, known := chain.Current().Brokers[name]
	if !known {
		return "", fmt.Errorf("the policy in the chain file lists no broker %s; add what pim-brokerd init printed, and take the file that pim-ssh policy sign -o chain writes", name)
	}
	if err := checkKeys(dir, listed); err != nil {
		return "", fmt.Errorf("broker %s: %w; add what pim-brokerd init prints and sign again", name, err)
	}
	disk, err := cluster.Join(cluster.Config{Name: name, Dir: dir, Now: clock, Log: os.Stderr}, proofs)
	if !errors.Is(err, cluster.ErrUsed) {
		return disk, err
	}
	if disk, again := cluster.Joined(dir); again == nil {
		return disk, nil
	}
	return "", fmt.Errorf("%w: if this broker is to begin with an empty disk, type: pim-brokerd quarantine", err)
}

// quarantineCommand moves this broker's disk aside.
func quarantineCommand(words *flag.FlagSet, args []string) error {
	dir := words.String("dir", brokerDir, "")
	if _, err := parse(words, args, 0); err != nil {
		return err
	}
	to, err := cluster.Quarantine(*dir, filepath.Join(*dir, quarantineDir), clock())
	if errors.Is(err, cluster.ErrEmpty) {
		return fmt.Errorf("%s holds no disk: nothing to move", *dir)
	}
	if errors.Is(err, cluster.ErrHeld) {
		return fmt.Errorf("%w; first: systemctl stop pim-brokerd", err)
	}
	if err != nil {
		return err
	}
	fmt.Printf("the disk lies in %s, and nothing was deleted; next: pim-brokerd join CHAINFILE, or pim-brokerd restore FILE\n", to)
	return nil
}
