package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"pim-ssh/broker/statement"
	"pim-ssh/pam/agent"
	"pim-ssh/pam/enforce"
)

// Where things are on a host; the C module, the units and the drop-ins name the same places.
const (
	configFile       = "/etc/pim-ssh/host.yaml"
	stateDir         = "/var/lib/pim-ssh"
	spoolDir         = stateDir + "/host"
	enforcingDir     = stateDir + "/enforcing"
	runDir           = "/run/pim-ssh"
	enforceLock      = runDir + "/enforce.lock"
	pamSocket        = runDir + "/pam.sock"
	principalsSocket = runDir + "/principals.sock"
	helperAccount    = "pim-principals"
	cgroupRoot       = "/sys/fs/cgroup"
)

var random = rand.Reader

func openSpool(log *slog.Logger) (*agent.Spool, error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, err
	}
	return agent.NewSpool(spoolDir, log, time.Now)
}

func clockOf(id int32) func() time.Duration {
	return func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(id, &t); err != nil {
			panic("clock " + strconv.Itoa(int(id)) + ": " + err.Error()) // every Linux we run on has it
		}
		return time.Duration(t.Nano())
	}
}

// run is the agent until SIGTERM or SIGINT. Stopping it ends nobody's session: they live in other units.
func run(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := journal()
	c, err := wire(log)
	if err != nil {
		return err
	}
	a, err := agent.New(ctx, c)
	if err != nil {
		return err
	}
	defer a.Close()
	sockets, err := listen(log)
	if err != nil {
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	go func() {
		for range reload {
			a.Reload()
		}
	}()
	notify(log, daemon.SdNotifyReady)
	log.Info("serving", "host", a.Host().Name, "enforcing", enforce.Enforcing())
	return a.Run(ctx, sockets)
}

// wire reads this machine once.
func wire(log *slog.Logger) (agent.Config, error) {
	config, err := readConfig(configFile)
	if err != nil {
		return agent.Config{}, err
	}
	spool, err := openSpool(log)
	if err != nil {
		return agent.Config{}, err
	}
	id, err := machineID()
	if err != nil {
		return agent.Config{}, err
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return agent.Config{}, err
	}
	trees, err := agent.Trees(cgroupRoot)
	if err != nil {
		return agent.Config{}, err
	}
	ownProcs, err := agent.OwnProcs(trees)
	if err != nil {
		return agent.Config{}, err
	}
	users := newPasswd("/etc/passwd")
	helper, err := users.lookup(helperAccount)
	if err != nil {
		return agent.Config{}, fmt.Errorf("%s: %w: systemd-sysusers makes it", helperAccount, err)
	}
	var exempt []statement.Account
	for _, e := range config.Exempt {
		exempt = append(exempt, e.Account)
	}
	return agent.Config{
		Spool: spool, RunDir: runDir, Enforcing: enforcingDir, MachineID: id, BootID: strings.TrimSpace(string(bootID)), HostKeys: hostKeys(log),
		Clock:  agent.Clock{Wall: time.Now, Boot: clockOf(unix.CLOCK_BOOTTIME), After: time.After},
		Random: random, Log: log,
		Units: agent.Systemd{Trees: trees, Monotonic: clockOf(unix.CLOCK_MONOTONIC), Pause: "/usr/bin/sleep", Systemctl: "/usr/bin/systemctl",
			Rm: "/usr/bin/rm"},
		Tools:    agent.Tools{Visudo: "/usr/sbin/visudo", Cvtsudoers: "/usr/bin/cvtsudoers"},
		OwnProcs: ownProcs, Lookup: users.lookup, Helper: helper, Exempt: exempt, Broker: config.Broker,
		InStep: enforceAgain, Beat: func() { notify(log, daemon.SdNotifyWatchdog) },
	}, nil
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Error("systemd not notified", "state", state, "error", err)
	}
}

// listen takes the sockets systemd holds for us, or makes them.
func listen(log *slog.Logger) (agent.Sockets, error) {
	given, err := activation.Listeners()
	if err != nil {
		return agent.Sockets{}, fmt.Errorf("sockets from systemd: %w", err)
	}
	if len(given) == 0 {
		group, err := user.LookupGroup(helperAccount)
		if err != nil {
			return agent.Sockets{}, err
		}
		gid, err := strconv.Atoi(group.Gid)
		if err != nil {
			return agent.Sockets{}, err
		}
		log.Warn("no sockets from systemd: making our own")
		return agent.ListenOwn(pamSocket, principalsSocket, gid)
	}
	var s agent.Sockets
	for _, l := range given {
		unixListener, ok := l.(*net.UnixListener)
		switch {
		case ok && l.Addr().String() == pamSocket:
			s.PAM = unixListener
		case ok && l.Addr().String() == principalsSocket:
			s.Principals = unixListener
		default:
			return agent.Sockets{}, fmt.Errorf("systemd gave an unknown socket %s", l.Addr())
		}
	}
	if s.PAM == nil || s.Principals == nil {
		return agent.Sockets{}, errors.New("systemd gave only one of the two sockets: systemctl restart pim-hostd.socket")
	}
	s.PAM.SetUnlinkOnClose(false)
	s.Principals.SetUnlinkOnClose(false)
	return s, nil
}

func machineID() (statement.Hash, error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return statement.Hash{}, err
	}
	return agent.HashMachineID(string(id)), nil
}

// hostKeys reads what sshd shows its clients; keys of types we do not vouch for are left out.
func hostKeys(log *slog.Logger) []statement.Key {
	files, _ := filepath.Glob("/etc/ssh/ssh_host_*_key.pub") // the pattern is well formed
	var keys []statement.Key
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			log.Warn("host key left out", "file", file, "error", err)
			continue
		}
		public, _, _, _, err := ssh.ParseAuthorizedKey(data)
		if err != nil {
			log.Warn("host key left out", "file", file, "error", err)
			continue
		}
		if key, err := statement.KeyOf(public); err == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// enforceLimit is how long one enforce may take, its wait for another included. It asks sshd about each account in passwd,
// some 15 ms each.
const enforceLimit = 3 * time.Minute

// enforceAgain brings /etc in step with a new policy, if this host enforces. It runs outside our own unit, which may
// not write there, and in one that has a name: whoever removes the package stops it first. One that is stuck is ended
// by systemd, and its lock with it; a systemd that does not answer holds nobody either: the agent tries again.
func enforceAgain(ctx context.Context) error {
	if !enforce.Enforcing() {
		return nil
	}
	return outside(ctx, "pim-hostd-enforce", enforceLimit, "/usr/sbin/pim-hostd", "enforce")
}

// outside runs a program in a unit of its own and waits for it, no longer than limit and the second that SIGKILL takes. The
// unit is a oneshot: of any other, a program that SIGTERM ended counts as one that did its work.
func outside(ctx context.Context, unit string, limit time.Duration, program ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	args := append([]string{"--unit=" + unit, "--quiet", "--collect", "--wait", "--pipe",
		"--service-type=oneshot", "--property=TimeoutStartSec=" + limit.String(), "--property=TimeoutStopSec=1s"}, program...)
	cmd := exec.CommandContext(ctx, "/usr/bin/systemd-run", args...)
	cmd.WaitDelay = time.Second // the unit holds our pipe too
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(program, " "), err, out)
	}
	return nil
}
