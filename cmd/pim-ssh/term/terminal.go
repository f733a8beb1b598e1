package term

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
)

// Options say how a Terminal talks.
type Options struct {
	Quiet   bool   // no talk: only results, warnings and questions
	NoInput bool   // never ask: every question is ErrNoInput
	Colour  bool   // Strong and Bad text carries SGR colours
	TTY     string // where questions are asked; "" means /dev/tty
}

// Terminal is where one command talks. Every argument of its printing methods is escaped; only the formats, which
// are constants of this program, may carry line breaks.
type Terminal struct {
	out, talk io.Writer
	opt       Options
}

// New returns a terminal that writes results to out and talk to talk.
func New(out, talk io.Writer, opt Options) *Terminal {
	if opt.TTY == "" {
		opt.TTY = "/dev/tty"
	}
	return &Terminal{out: out, talk: talk, opt: opt}
}

// Strong is text to be seen first; Bad is text that means no.
type (
	Strong string
	Bad    string
)

// Result writes to stdout what was asked for.
func (t *Terminal) Result(format string, args ...any) { t.write(t.out, false, format, args) }

// Say writes talk to stderr; --quiet silences it.
func (t *Terminal) Say(format string, args ...any) {
	if !t.opt.Quiet {
		t.write(t.talk, t.opt.Colour, format, args)
	}
}

// Warn writes to stderr what nobody may silence.
func (t *Terminal) Warn(format string, args ...any) { t.write(t.talk, t.opt.Colour, format, args) }

// Bytes writes to stdout bytes meant for a program (known_hosts lines, a public certificate, YAML): line breaks and
// tabs stay, everything else unsafe is escaped.
func (t *Terminal) Bytes(text []byte) {
	for line := range strings.Lines(string(text)) {
		whole, broken := strings.CutSuffix(line, "\n")
		fields := strings.Split(whole, "\t")
		for i, field := range fields {
			fields[i] = escapeKeepingBackslash(field)
		}
		io.WriteString(t.out, strings.Join(fields, "\t"))
		if broken {
			io.WriteString(t.out, "\n")
		}
	}
}

func escapeKeepingBackslash(text string) string {
	parts := strings.Split(text, `\`)
	for i, part := range parts {
		parts[i] = Escape(part)
	}
	return strings.Join(parts, `\`)
}

// JSON writes v to stdout as one line of JSON in which nothing can disturb a terminal.
func (t *Terminal) JSON(v any) error {
	encoded, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding the result: %w", err)
	}
	_, err = t.out.Write(append(escapeJSON(encoded), '\n'))
	return err
}

func (t *Terminal) write(w io.Writer, colour bool, format string, args []any) {
	safe := make([]any, len(args))
	for i, arg := range args {
		safe[i] = t.clean(arg, colour)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, format, safe...)
	if !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
		b.WriteByte('\n')
	}
	w.Write(b.Bytes())
}

// clean escapes whatever text arg prints as; numbers and booleans pass.
func (t *Terminal) clean(arg any, colour bool) any {
	switch arg := arg.(type) {
	case Strong:
		return paint(Escape(string(arg)), "1", colour)
	case Bad:
		return paint(Escape(string(arg)), "1;31", colour)
	case nil:
		return ""
	case error:
		return Escape(arg.Error())
	case fmt.Stringer:
		return Escape(arg.String())
	}
	switch v := reflect.ValueOf(arg); v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return arg
	case reflect.String:
		return Escape(v.String())
	default:
		return Escape(fmt.Sprint(arg))
	}
}

func paint(safe, sgr string, colour bool) string {
	if !colour {
		return safe
	}
	return "\x1b[" + sgr + "m" + safe + "\x1b[0m"
}

// Colour decides whether to colour: on a terminal, unless NO_COLOR is set to anything or TERM is dumb.
func Colour(isTerminal bool, getenv func(string) string) bool {
	return isTerminal && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}
