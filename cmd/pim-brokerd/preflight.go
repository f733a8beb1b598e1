package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"

	"pim-ssh/cluster"
)

// preflightPatience is how long reading the disk may take before it counts as hanging.
const preflightPatience = time.Minute

// preflightCommand is the other process: it reads the disk as run is about to.
func preflightCommand(words *flag.FlagSet, args []string) error {
	dir := words.String("dir", brokerDir, "")
	if _, err := parse(words, args, 0); err != nil {
		return err
	}
	return cluster.Preflight(*dir)
}

// preflight has this program, in a process of its own, read the disk before it is used: a disk that kills or hangs its
// reader does that there. What the reader only refuses, the node will refuse again, and say.
func preflight(ctx context.Context, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return survives(ctx, preflightPatience, self, "preflight", "--dir", dir)
}

// survives runs a reader of the disk and reports how it died, if it did not end by itself.
func survives(ctx context.Context, patience time.Duration, name string, args ...string) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reader := exec.CommandContext(limited, name, args...)
	err := reader.Run()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return fmt.Errorf("reading the disk hangs, for %s: %w", patience, cluster.ErrDisk)
	case err == nil || errors.As(err, &ended) && ended.ExitCode() == 1:
		return nil
	case ended != nil:
		return fmt.Errorf("reading the disk kills its reader (%s): %w", ended, cluster.ErrDisk)
	default:
		return fmt.Errorf("reading the disk first: %w", err)
	}
}

// advised adds to a damaged disk's error what to type.
func advised(err error) error {
	if !errors.Is(err, cluster.ErrDisk) {
		return err
	}
	return fmt.Errorf("%w; the other brokers have what it held: type pim-brokerd quarantine, then pim-brokerd join CHAINFILE", err)
}
