package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// parseChainFile reads a chain file: one policy proof a line, revision 1 first. Nothing is verified.
func parseChainFile(data []byte) ([]statement.Proof, error) {
	var proofs []statement.Proof
	for number, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		proof, err := statement.ParseProof(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		proofs = append(proofs, proof)
	}
	return proofs, nil
}

// formatChainFile is parseChainFile's inverse.
func formatChainFile(proofs []statement.Proof) ([]byte, error) {
	var b bytes.Buffer
	for _, proof := range proofs {
		line, err := json.Marshal(proof)
		if err != nil {
			return nil, fmt.Errorf("chain file: %w", err)
		}
		b.Write(append(line, '\n'))
	}
	return b.Bytes(), nil
}

// walkAll verifies a whole chain from its first revision.
func walkAll(proofs []statement.Proof) (policy.Chain, error) {
	if len(proofs) == 0 {
		return policy.Chain{}, errors.New("it holds no policy")
	}
	chain, err := policy.Genesis(proofs[0])
	for _, proof := range proofs[1:] {
		if err != nil {
			return policy.Chain{}, err
		}
		chain, err = chain.Advance(proof)
	}
	return chain, err
}
