package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  pim-brokerd init --name NAME --address HOST:PORT [--dir DIR]   make this broker's keys and print its lines for policy.yaml
  pim-brokerd bootstrap CHAINFILE [--dir DIR]                    start a deployment: the same on each broker that the policy lists
  pim-brokerd join CHAINFILE [--dir DIR]                         make this broker's disk for a cluster that exists; print what an operator types
  pim-brokerd quarantine [--dir DIR]                             move this broker's disk aside, and delete nothing
  pim-brokerd export FILE --to KEY [--config FILE]               copy a stopped broker's record into a file for the age key KEY
  pim-brokerd restore FILE [--dir DIR]                           make this broker's disk from what pim-ssh cluster restore wrote
  pim-brokerd run [--config FILE]                                serve; systemd starts this
  pim-brokerd dev [--dir DIR] [--listen HOST:PORT]               a whole one-broker deployment, with people and hosts to try
`

// errUsage makes the exit code 2.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "pim-brokerd:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	words := flag.NewFlagSet(args[0], flag.ContinueOnError)
	words.SetOutput(os.Stderr)
	words.Usage = func() {}
	switch args[0] {
	case "init":
		return initCommand(words, args[1:])
	case "bootstrap":
		return bootstrapCommand(words, args[1:])
	case "join":
		return joinCommand(words, args[1:])
	case "quarantine":
		return quarantineCommand(words, args[1:])
	case "export":
		return exportCommand(words, args[1:])
	case "restore":
		return restoreCommand(words, args[1:])
	case "run":
		return runCommand(ctx, words, args[1:])
	case "dev":
		return devCommand(ctx, words, args[1:])
	case "preflight": // run's own, in a process that may die of what it finds
		return preflightCommand(words, args[1:])
	case "-h", "--help":
		return flag.ErrHelp
	default:
		return errUsage
	}
}

// parse reads flags that may stand before or after exactly so many other words, and returns those.
func parse(words *flag.FlagSet, args []string, wanted int) ([]string, error) {
	var rest []string
	for len(args) > 0 {
		if err := words.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, flag.ErrHelp
		} else if err != nil {
			return nil, errUsage
		}
		if args = words.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	if len(rest) != wanted {
		return nil, errUsage
	}
	return rest, nil
}
