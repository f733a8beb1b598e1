package main

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	xterm "pim-ssh/cmd/pim-ssh/term"
)

// world is everything outside the program that it depends on. Only this file touches the real one.
type world struct {
	stdout, stderr *os.File
	env            func(string) string
	now            func() time.Time
	random         io.Reader
	uid            int
}

func realWorld() world {
	return world{stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv, now: time.Now, random: rand.Reader, uid: os.Getuid()}
}

// run is the program: it returns the exit code.
func run(w world, args []string) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	d := &desk{world: w}
	d.open()
	root := commands(d)
	root.SetArgs(args)
	finished := make(chan error, 1)
	go func() { finished <- root.ExecuteContext(ctx) }() // ends with the process at the latest
	err := cause(outcome(ctx, finished))
	d.complain(err)
	d.keepRefusal(err)
	return exitCode(err)
}

// parting is how long a command may tidy up after Ctrl-C before it is left behind: an ssh-agent that waits for a touch
// cannot be interrupted.
const parting = 2 * time.Second

// outcome waits for the command, and after Ctrl-C not for long.
func outcome(ctx context.Context, finished <-chan error) error {
	select {
	case err := <-finished:
		if err != nil && ctx.Err() != nil {
			return &interrupted{while: err}
		}
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-finished:
		if err == nil {
			return nil
		}
		return &interrupted{while: err}
	case <-time.After(parting):
		return &interrupted{while: errInterrupted}
	}
}

// interruptible returns a context that ends with errInterrupted at the first SIGINT or SIGTERM; a second one kills.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			signal.Stop(signals)
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// open gives the desk its terminal, with what the flags said so far.
func (d *desk) open() {
	info, err := d.stderr.Stat()
	onTerminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	d.term = xterm.New(d.stdout, d.stderr, xterm.Options{
		Quiet: d.quiet, NoInput: d.noInput, Colour: xterm.Colour(onTerminal, d.env),
	})
}
