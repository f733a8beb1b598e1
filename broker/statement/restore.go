package statement

import (
	"errors"
	"strings"
)

// maxEpoch is more epochs than there will be.
const maxEpoch = 1 << 20

// Restore is an operator's word that the deployment goes on from a copy of its record. It begins an epoch: every grant and
// every request from before it is void, on brokers and hosts, for ever.
type Restore struct {
	Head  `json:",embed"`
	Epoch uint64 `json:"epoch"` // 1 or more; higher than every one before it
	Size  uint64 `json:"size"`  // of the restored record, in events
	Root  Hash   `json:"root"`  // of the tree over them
	Why   string `json:"why"`   // 1–1000 bytes of UTF-8
	// Despite says why the restored record may lack what was recorded after it was copied, or contradict it. Without it hosts
	// refuse a record that does not go on where the one they saw ended.
	Despite string `json:"despite,omitzero"`
}

// Restored returns the head of the record that the deployment goes on from.
func (r Restore) Restored() LogHead { return LogHead{Size: r.Size, Root: r.Root} }

func (r Restore) check() error {
	switch {
	case r.Epoch == 0 || r.Epoch > maxEpoch:
		return errors.New("epoch: want 1 or more")
	case r.Size == 0 || r.Root.IsZero():
		return errors.New("size and root: no record is named")
	}
	if strings.Trim(r.Why, " ") == "" {
		return errors.New("why: none given: say it with --why")
	}
	return first(
		r.Head.check(KindRestore, byPerson),
		named("why", CheckText(r.Why, MaxReason)),
		named("despite", CheckText(r.Despite, MaxReason)),
	)
}
