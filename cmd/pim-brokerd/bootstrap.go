package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
	"pim-ssh/cluster"
)

// bootstrapCommand starts a deployment on this broker. Where policy lists several, the same file goes to each.
func bootstrapCommand(words *flag.FlagSet, args []string) error {
	dir := words.String("dir", brokerDir, "")
	files, err := parse(words, args, 1)
	if err != nil {
		return err
	}
	proofs, chain, err := readChainFile(files[0])
	if err != nil {
		return err
	}
	if err := bootstrap(*dir, proofs, chain); err != nil {
		return err
	}
	fmt.Printf("deployment %s, policy revision %d; next: systemctl enable --now pim-brokerd\n", chain.Deployment(), chain.Ref().Revision)
	if all := chain.Current().Brokers; len(all) > 1 {
		fmt.Printf("the policy lists %d brokers: type the same on each, with the same file; %d of them must run\n", len(all), len(all)/2+1)
	}
	return nil
}

// bootstrap files a verified chain that names this broker's own keys.
func bootstrap(dir string, proofs []statement.Proof, chain policy.Chain) error {
	name, err := readName(dir)
	if err != nil {
		return err
	}
	listed, known := chain.Current().Brokers[name]
	if !known {
		return fmt.Errorf("the policy lists no broker %s; add what pim-brokerd init printed and sign again", name)
	}
	if err := checkKeys(dir, listed); err != nil {
		return fmt.Errorf("broker %s: %w; add what pim-brokerd init prints and sign again", name, err)
	}
	err = cluster.Bootstrap(cluster.Config{Name: name, Dir: dir, Now: clock, Log: os.Stderr}, proofs)
	if errors.Is(err, cluster.ErrUsed) {
		return fmt.Errorf("%w: this broker has a deployment; start it with: systemctl start pim-brokerd", err)
	}
	return err
}

// checkKeys holds the policy to the keys in this directory. A CA or log key that lies elsewhere is run's to check.
func checkKeys(dir string, listed policy.Broker) error {
	_, identity, err := readIdentity(filepath.Join(dir, identityFile))
	if err != nil {
		return err
	}
	if identity != listed.Identity {
		return errors.New("the policy lists another identity key")
	}
	for file, want := range map[string]statement.Key{caFile: listed.CA, logFile: listed.Log} {
		held, err := signer.Open(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if key, err := statement.KeyOf(held.PublicKey()); err != nil || key != want {
			return fmt.Errorf("the policy lists another %s key", file)
		}
	}
	return nil
}

func readChainFile(path string) ([]statement.Proof, policy.Chain, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, policy.Chain{}, err
	}
	proofs, chain, err := readChain(data)
	if err != nil {
		return nil, chain, fmt.Errorf("%s: %w", path, err)
	}
	return proofs, chain, nil
}

// readChain reads and verifies a chain file: one policy proof a line, the first revision first.
func readChain(data []byte) ([]statement.Proof, policy.Chain, error) {
	var proofs []statement.Proof
	var chain policy.Chain
	for number, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		proof, err := statement.ParseProof(line)
		if err != nil {
			return nil, chain, fmt.Errorf("line %d: %w", number+1, err)
		}
		if number == 0 {
			chain, err = policy.Genesis(proof)
		} else {
			chain, err = chain.Advance(proof)
		}
		if err != nil {
			return nil, chain, fmt.Errorf("line %d: %w", number+1, err)
		}
		proofs = append(proofs, proof)
	}
	return proofs, chain, nil
}
