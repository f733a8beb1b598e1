package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"pim-ssh/pam/enforce"
)

const usage = `usage:
  pim-hostd enrol TOKENFILE   make this machine a host of the deployment that the operator's token names
  pim-hostd run               serve PAM and sshd; systemd starts this
  pim-hostd enforce           refuse what no grant covers
  pim-hostd observe           only say what would be refused
  pim-hostd release           take everything back; removing the package does this
`

// errUsage makes the exit code 2.
var errUsage = errors.New("usage")

func main() {
	err := dispatch(context.Background(), os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		complain(err)
		os.Exit(1)
	}
}

// complain says what is wrong and, where somebody knows it, what to type next.
func complain(err error) {
	fmt.Fprintln(os.Stderr, "pim-hostd:", err)
	var problem *enforce.Problem
	if errors.As(err, &problem) && problem.Hint != "" {
		fmt.Fprintln(os.Stderr, "  try:", problem.Hint)
	}
}

func dispatch(ctx context.Context, args []string) error {
	switch {
	case slices.Contains(args, "--help") || slices.Contains(args, "-h"):
		fmt.Print(usage)
		return nil
	case len(args) == 2 && args[0] == "enrol":
		return enrol(args[1])
	case len(args) != 1:
		return errUsage
	}
	switch args[0] {
	case "run":
		return run(ctx)
	case "enforce":
		return alone(ctx, enforceHere)
	case "observe":
		return alone(ctx, enforce.Observe)
	case "release":
		return alone(ctx, enforce.Release)
	default:
		return errUsage
	}
}

// enrol writes the spool. It reaches nobody: run posts the enrolment when it first meets a broker.
func enrol(tokenFile string) error {
	data, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	spool, err := openSpool(journal())
	if err != nil {
		return err
	}
	machineID, err := machineID()
	if err != nil {
		return err
	}
	host, err := spool.Enrol(data, machineID, random)
	if err != nil {
		return err
	}
	fmt.Printf("enrolled as %s %v; next: systemctl enable --now pim-hostd.socket pim-hostd.service\n", host.Name, host.Labels)
	return nil
}

// enforceHere brings /etc in step with the policy in the spool, and from then on this host refuses.
func enforceHere(ctx context.Context) error {
	config, err := readConfig(configFile)
	if err != nil {
		return err
	}
	spool, err := openSpool(journal())
	if err != nil {
		return err
	}
	chain, host, err := spool.Policy()
	if err != nil {
		return err
	}
	return enforce.Apply(ctx, enforce.PlanFor(chain.Current(), host.Name, host.Labels, config.Exempt))
}

// alone changes /etc while nobody else does.
func alone(ctx context.Context, change func(context.Context) error) error {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return err
	}
	lock, err := enforce.Alone(enforceLock)
	if err != nil {
		return err
	}
	defer lock.Close()
	return change(ctx)
}
