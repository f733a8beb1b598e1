package broker

import (
	"errors"
	"fmt"
)

// Kind says in which way something is refused. The zero Kind is an internal fault.
type Kind string

// The closed set of kinds.
const (
	Invalid     Kind = "invalid"     // malformed: no state of the world would accept it
	Denied      Kind = "denied"      // well understood, and no
	Missing     Kind = "missing"     // names something that is not there
	Conflict    Kind = "conflict"    // something else came first
	Expired     Kind = "expired"     // too late
	Unavailable Kind = "unavailable" // not now: the same bytes may be accepted later
)

// outcomes is the one table from kind to HTTP status and exit code.
var outcomes = map[Kind]struct{ status, exit int }{
	Invalid:     {400, 1},
	Denied:      {403, 3},
	Missing:     {404, 4},
	Conflict:    {409, 7},
	Expired:     {410, 6},
	Unavailable: {503, 69},
}

// HTTPStatus returns the status an answer of this kind carries; 500 for anything outside the closed set.
func (k Kind) HTTPStatus() int {
	if o, known := outcomes[k]; known {
		return o.status
	}
	return 500
}

// ExitCode returns what pim-ssh exits with; 1 for anything outside the closed set.
func (k Kind) ExitCode() int {
	if o, known := outcomes[k]; known {
		return o.exit
	}
	return 1
}

// Error is a refusal: Msg says what and why in lower case, Hint names the next thing to type, Err is what it wraps.
type Error struct {
	Kind Kind
	Msg  string
	Hint string
	Err  error
}

// Error returns Msg, which already contains the text of what it wraps.
func (e *Error) Error() string { return e.Msg }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// Refuse makes a refusal; format and args are fmt.Errorf's, %w included.
func Refuse(kind Kind, hint, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Msg: err.Error(), Hint: hint, Err: errors.Unwrap(err)}
}

// KindOf returns the kind of a refusal, and the zero Kind for any other error.
func KindOf(err error) Kind {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Kind
	}
	return ""
}

// What stops a broker: going on would make it differ from its peers.
var (
	ErrUnknownVersion = errors.New("written by a newer pim-brokerd")
	ErrDiverged       = errors.New("state differs from the leader's")
)

// ErrNotLeader says that another broker of the cluster decides, and that nothing was done here.
var ErrNotLeader = errors.New("another broker leads")

// MustStop reports whether a broker that meets err may apply nothing more, and has to stop.
func MustStop(err error) bool {
	return errors.Is(err, ErrUnknownVersion) || errors.Is(err, ErrDiverged)
}
