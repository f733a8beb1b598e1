package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"pim-ssh/broker/statement"
)

// sealedValues puts a checksum behind each of raft's own values, its term and its vote: an altered one could vote twice.
// A value and its seal are one write. Brokers of before read the first eight bytes of a number, and take a sealed vote for
// somebody else's, which is harmless.
type sealedValues struct {
	raft.StableStore
}

// raftValues are the names that raft gives its values.
var raftValues = []string{"CurrentTerm", "LastVoteCand", "LastVoteTerm"}

const (
	sealLength   = sha256.Size
	numberLength = 8
	// sealOf begins the name of the seal of one of our own values, which are written once.
	sealOf = "pim-seal "
)

func seal(key, value []byte) []byte {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	h.Write(key)
	h.Write(value)
	return h.Sum(nil)
}

// Set stores a value.
func (s sealedValues) Set(key, value []byte) error {
	return s.StableStore.Set(key, append(bytes.Clone(value), seal(key, value)...))
}

// SetUint64 stores a number.
func (s sealedValues) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// Get reads a value.
func (s sealedValues) Get(key []byte) ([]byte, error) {
	stored, err := s.StableStore.Get(key)
	if err != nil {
		return nil, err
	}
	return unseal(key, stored)
}

// GetUint64 reads a number.
func (s sealedValues) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != numberLength {
		return 0, fmt.Errorf("%s: %d bytes are no number: %w", key, len(value), ErrDisk)
	}
	return binary.BigEndian.Uint64(value), nil
}

// unseal returns a value that its seal holds, or one that a broker of before wrote: a number, or a broker's name.
func unseal(key, stored []byte) ([]byte, error) {
	if cut := len(stored) - sealLength; cut >= 0 && bytes.Equal(stored[cut:], seal(key, stored[:cut])) {
		return stored[:cut], nil
	}
	_, noName := statement.ParseBrokerName(string(stored))
	if isNumber := string(key) != "LastVoteCand"; isNumber && len(stored) == numberLength || !isNumber && noName == nil {
		return stored, nil
	}
	return nil, fmt.Errorf("%s was altered: %w", key, ErrDisk)
}

// sealOwn seals those of this package's own values in raft.db that have no seal yet.
func sealOwn(store *raftboltdb.BoltStore, names ...[]byte) error {
	for _, name := range names {
		value, err := store.Get(name)
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err == nil {
			_, err = store.Get([]byte(sealOf + string(name)))
		}
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			err = store.Set([]byte(sealOf+string(name)), seal(name, value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkValues holds every value in raft.db to its seal, and every name to those there are.
func checkValues(values map[string][]byte) error {
	for name, value := range values {
		of, isSeal := strings.CutPrefix(name, sealOf)
		own := strings.HasPrefix(name, "pim-")
		switch sealed, has := values[sealOf+name]; {
		case isSeal && values[of] == nil:
			return fmt.Errorf("%s: %s is missing: %w", raftFile, of, ErrDisk)
		case isSeal:
		case own && has && !bytes.Equal(sealed, seal([]byte(name), value)):
			return fmt.Errorf("%s: %s was altered: %w", raftFile, name, ErrDisk)
		case own:
		case !slices.Contains(raftValues, name):
			return fmt.Errorf("%s: %q is no value of raft's: %w", raftFile, name, ErrDisk)
		default:
			if _, err := unseal([]byte(name), value); err != nil {
				return fmt.Errorf("%s: %w", raftFile, err)
			}
		}
	}
	return nil
}
