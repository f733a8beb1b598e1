package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"io"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// desk is what one command works at: the world, the flags that every command takes, and the terminal.
type desk struct {
	world
	term    *term.Terminal
	format  format
	quiet   bool
	noInput bool
	typed   typed
}

// typed is which command was typed, and what about.
type typed struct{ command, about string }

// format is how results are printed.
type format string

// The closed set of formats. The zero value is text.
const (
	formatText format = "text"
	formatJSON format = "json"
)

// outputFlag is -o: a format everywhere and, for the commands that write a file, also that file's name.
type outputFlag struct {
	format *format
	file   *string // nil: the command writes no file
}

// Set takes json and text as formats and anything else as a file.
func (o outputFlag) Set(text string) error {
	switch f := format(text); {
	case f == formatJSON || f == formatText:
		*o.format = f
	case o.file != nil && text != "":
		*o.file = text
	default:
		return fmt.Errorf("%q: want json or text", text)
	}
	return nil
}

// String returns what stands there without the flag.
func (o outputFlag) String() string {
	if o.file != nil {
		return *o.file
	}
	return ""
}

// Type names the value in help texts.
func (o outputFlag) Type() string {
	if o.file != nil {
		return "FILE"
	}
	return "text|json"
}

// json reports whether results are to be JSON.
func (d *desk) json() bool { return d.format == formatJSON }

// clock is the present in whole seconds, as statements carry it.
func (d *desk) clock() statement.Time { return statement.TimeOf(d.now()) }

// freshKey makes a new ed25519 key in memory.
func (d *desk) freshKey() (ed25519.PrivateKey, statement.Key, error) {
	_, private, err := ed25519.GenerateKey(d.random)
	if err != nil {
		return nil, "", fmt.Errorf("making a key: %w", err)
	}
	key, err := keyOf(private)
	return private, key, err
}

// head is the common head of a statement that is valid for life from now.
func (d *desk) head(p pin, kind statement.Kind, life statement.Seconds) (statement.Head, error) {
	nonce := make([]byte, 16)
	if _, err := io.ReadFull(d.random, nonce); err != nil {
		return statement.Head{}, fmt.Errorf("nonce for a %s: %w", kind, err)
	}
	now := d.clock()
	return statement.Head{
		V: statement.Version, Kind: kind, Deployment: p.chain.Deployment(), Policy: p.chain.Ref(), Person: p.person,
		Nonce: hex.EncodeToString(nonce), Created: now, NotAfter: now.Add(life),
	}, nil
}

// denied, missing and invalid are the CLI's own refusals, in the same words and exit codes as a broker's.
func denied(hint, format string, args ...any) error {
	return &broker.Error{Kind: broker.Denied, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func missing(hint, format string, args ...any) error {
	return &broker.Error{Kind: broker.Missing, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func invalid(hint, format string, args ...any) error {
	return &broker.Error{Kind: broker.Invalid, Msg: fmt.Sprintf(format, args...), Hint: hint}
}
