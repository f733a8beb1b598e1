package main

import (
	"errors"
	"fmt"

	"pim-ssh/broker"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/cmd/pim-ssh/term"
)

// Exit codes that are the CLI's own; broker.Kind.ExitCode has the others.
const (
	exitError       = 1
	exitUsage       = 2
	exitTimedOut    = 5
	exitInterrupted = 130
)

// usageError is a command that was typed wrong.
type usageError struct {
	msg, hint string
}

func (e *usageError) Error() string { return e.msg }

// usage returns a usage error whose hint names the next thing to type.
func usage(hint, format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...), hint: hint}
}

// timedOut is a wait that ended with the request still open.
type timedOut struct{ id broker.RequestID }

func (e *timedOut) Error() string { return fmt.Sprintf("nobody answered %s in time", e.id) }

// errInterrupted is the cause of a context that Ctrl-C ended.
var errInterrupted = errors.New("interrupted")

// interrupted is what was given up at Ctrl-C.
type interrupted struct{ while error }

func (e *interrupted) Error() string { return errInterrupted.Error() }
func (e *interrupted) Unwrap() error { return e.while }

// exitCode maps an error to DESIGN §9's exit codes.
func exitCode(err error) int {
	var (
		stopped *interrupted
		late    *timedOut
		typed   *usageError
		told    *broker.Error
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &stopped):
		return exitInterrupted
	case errors.As(err, &late):
		return exitTimedOut
	case errors.As(err, &typed), errors.Is(err, term.ErrNoInput):
		return exitUsage
	case errors.As(err, &told):
		return told.Kind.ExitCode()
	}
	return exitError
}

// cause is the error to show: a key that did not sign is not a broker that did not answer.
func cause(err error) error {
	var refused *unwilling
	if errors.As(err, &refused) {
		return denied("ssh-add -l; if it is locked: ssh-add -X", "%v", refused)
	}
	return err
}

// complain says what went wrong and what to type next.
func (d *desk) complain(err error) {
	if err == nil {
		return
	}
	for _, one := range parts(err) {
		d.term.Warn("%s %s", term.Bad("pim-ssh:"), one)
	}
	if hint := hintOf(err); hint != "" {
		d.term.Warn("  try: %s", hint)
	}
}

// parts splits joined errors, one line each: a policy file's problems come together.
func parts(err error) []error {
	var problems policyfile.Errors
	if errors.As(err, &problems) {
		each := make([]error, len(problems))
		for i, problem := range problems {
			each[i] = problem
		}
		return each
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func hintOf(err error) string {
	var (
		typed   *usageError
		stopped *interrupted
		late    *timedOut
		told    *broker.Error
	)
	switch {
	case errors.As(err, &typed):
		return typed.hint
	case errors.As(err, &late):
		return "pim-ssh status " + string(late.id)
	case errors.As(err, &told):
		return told.Hint
	case errors.As(err, &stopped):
		return ""
	case errors.Is(err, term.ErrNoInput):
		return "add --yes, or run it on a terminal"
	}
	return ""
}
