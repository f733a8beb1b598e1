package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// refusal is the last command that was refused, for explain. What was typed is not in it, but for what the command was
// about: no reason and no code.
type refusal struct {
	At      statement.Time `json:"at"`
	Command string         `json:"command"`
	About   string         `json:"about"` // a role with its scope, an id, or nothing
	Kind    broker.Kind    `json:"kind"`
	Message string         `json:"message"`
	Hint    string         `json:"hint"`
}

// keepRefusal keeps a refusal for explain. It is a convenience: when it cannot be kept, nothing is said.
func (d *desk) keepRefusal(err error) {
	var told *broker.Error
	if !errors.As(err, &told) || d.typed.command == "" || d.typed.command == "explain" {
		return
	}
	switch told.Kind {
	case broker.Denied, broker.Missing, broker.Conflict, broker.Expired:
	default:
		return
	}
	data, err := json.Marshal(refusal{
		At: d.clock(), Command: d.typed.command, About: d.typed.about, Kind: told.Kind, Message: err.Error(), Hint: told.Hint,
	})
	state, unknown := d.stateDir()
	if err != nil || unknown != nil || !d.joined(state) {
		return
	}
	_ = writeFile(filepath.Join(state, "refusal"), data, 0o600)
}

// joined reports whether this account has joined a deployment: nobody else has refusals to explain.
func (d *desk) joined(state string) bool {
	_, err := os.Stat(filepath.Join(state, "chain"))
	return err == nil
}

// explainRefusal says what was refused last, and then what rules there are about it.
func (c *contact) explainRefusal(ctx context.Context, who statement.Person, hosts map[statement.HostName]enrolled) (explanation, error) {
	state, err := c.stateDir()
	if err != nil {
		return explanation{}, err
	}
	data, err := os.ReadFile(filepath.Join(state, "refusal"))
	if errors.Is(err, fs.ErrNotExist) {
		return explanation{}, missing("pim-ssh explain ROLE", "nothing was refused here yet")
	}
	if err != nil {
		return explanation{}, err
	}
	var last refusal
	if err := statement.DecodeStrict(data, &last); err != nil {
		return explanation{}, invalid("pim-ssh explain ROLE", "%s: %v", filepath.Join(state, "refusal"), err)
	}
	e := explanation{Person: who}
	if last.About != "" {
		if about, err := c.explained(ctx, last.About, who, hosts); err == nil {
			e = about
		}
	}
	e.What = "refusal of " + last.Command + " " + last.About
	e.Says = append([]string{moment(last.At, c.clock()) + ", " + string(last.Kind) + ": " + last.Message}, e.Says...)
	if last.Hint != "" {
		e.Next = append([]string{last.Hint}, e.Next...)
	}
	return e, nil
}
