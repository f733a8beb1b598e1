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
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		err = &interrupted{while: err}
	}
	d.complain(err)
	return exitCode(err)
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
