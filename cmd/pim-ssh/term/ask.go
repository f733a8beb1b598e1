package term

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	xterm "golang.org/x/term"
)

// ErrNoInput means that a question had to be asked and nobody can be: --no-input, or no terminal.
var ErrNoInput = errors.New("there is no terminal to ask on")

// Confirm shows the card on /dev/tty, asks the question there and reports whether the answer was y or yes. Anything
// else, an end of input included, is no. When the context ends first, its cause is returned.
func (t *Terminal) Confirm(ctx context.Context, c Card, question string) (bool, error) {
	answer, err := t.ask(ctx, c.text()+Escape(question)+" [y/N] ", readLine)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// Ask asks on /dev/tty for one line and returns it without the blanks around it.
func (t *Terminal) Ask(ctx context.Context, prompt string) (string, error) {
	answer, err := t.ask(ctx, Escape(prompt)+": ", readLine)
	return strings.TrimSpace(answer), err
}

// Passphrase asks on /dev/tty without echo.
func (t *Terminal) Passphrase(ctx context.Context, prompt string) ([]byte, error) {
	answer, err := t.ask(ctx, Escape(prompt)+": ", readHidden)
	return []byte(answer), err
}

func (t *Terminal) ask(ctx context.Context, prompt string, read func(*os.File) (string, error)) (string, error) {
	if t.opt.NoInput {
		return "", ErrNoInput
	}
	tty, err := os.OpenFile(t.opt.TTY, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%w (%s)", ErrNoInput, err)
	}
	defer tty.Close()
	if state, err := xterm.GetState(int(tty.Fd())); err == nil {
		defer xterm.Restore(int(tty.Fd()), state)
	}
	if _, err := io.WriteString(tty, prompt); err != nil {
		return "", fmt.Errorf("asking on %s: %w", t.opt.TTY, err)
	}
	type answered struct {
		text string
		err  error
	}
	answers := make(chan answered, 1) // its reader ends with the process at the latest: a terminal read cannot be stopped
	go func() {
		text, err := read(tty)
		answers <- answered{text, err}
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-ctx.Done():
		io.WriteString(tty, "\n")
		return "", context.Cause(ctx)
	}
}

func readLine(tty *os.File) (string, error) {
	line, err := bufio.NewReader(tty).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return line, nil
	}
	return line, err
}

func readHidden(tty *os.File) (string, error) {
	secret, err := xterm.ReadPassword(int(tty.Fd()))
	io.WriteString(tty, "\n")
	return string(secret), err
}
