package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"pim-ssh/broker/statement"
)

// What is wrong when two heads, or a head and its tiles, contradict each other; test with errors.Is.
var (
	ErrForked = errors.New("the record was rewritten: two signed heads contradict each other")
	ErrShrunk = errors.New("the record has become shorter")
	ErrForged = errors.New("the tiles do not belong to the signed head")
)

// Extends proves that the newer tree begins with the older one, by tiles that the newer head authenticates. ErrShrunk,
// ErrForked and ErrForged are the broker's fault and name the sizes; any other error is the source's.
func Extends(source Source, older, newer statement.LogHead) error {
	switch {
	case newer.Size < older.Size:
		return fmt.Errorf("%w: %d entries, and %d before", ErrShrunk, newer.Size, older.Size)
	case newer.Size == older.Size && newer.Root != older.Root:
		return fmt.Errorf("%w: %d entries, root %s and root %s", ErrForked, newer.Size, older.Root, newer.Root)
	case newer.Size == older.Size || older.Size == 0:
		return nil
	}
	root, err := tlog.TreeHash(int64(older.Size), authenticated(newer, source))
	if err != nil {
		return fmt.Errorf("tree of %d entries: %w", newer.Size, err)
	}
	if statement.Hash(root) != older.Root {
		return fmt.Errorf("%w: the first %d of %d entries have root %s, and had root %s", ErrForked, older.Size, newer.Size, statement.Hash(root), older.Root)
	}
	return nil
}
