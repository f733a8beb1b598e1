package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	_ "time/tzdata" // the hours of roles are those of zones, also on a machine that knows none

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/api"
	"pim-ssh/broker/edge"
	"pim-ssh/broker/effect"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
	"pim-ssh/cluster"
)

const (
	sweepEvery    = 2 * time.Second // how late a lapse may be recorded; hosts end windows untold
	readyPatience = 5 * time.Second // how long a start waits for a majority before it says so and serves
	statusEvery   = 500 * time.Millisecond
)

// clock is the real one.
func clock() statement.Time { return statement.TimeOf(time.Now()) }

// journal logs to standard error, where systemd adds the time.
func journal() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// runCommand serves until it is told to stop, or may not go on.
func runCommand(ctx context.Context, words *flag.FlagSet, args []string) error {
	file := words.String("config", "", "")
	if _, err := parse(words, args, 0); err != nil {
		return err
	}
	c, err := readConfig(*file)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	return serve(ctx, c, listener, func() error {
		_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
		return err
	})
}

// secrets are this broker's private keys.
type secrets struct {
	identity    statement.Key
	private     ed25519.PrivateKey // identity's: opens seeds
	certificate tls.Certificate
	ca          ssh.Signer
	log         ssh.Signer // signs checkpoints
}

func readSecrets(c config) (secrets, error) {
	if info, err := os.Stat(c.Dir); err != nil || info.Mode().Perm()&0o077 != 0 {
		return secrets{}, errors.Join(err, fmt.Errorf("%s must be its owner's alone; type: chmod 700 %s", c.Dir, c.Dir))
	}
	private, identity, err := readIdentity(filepath.Join(c.Dir, identityFile))
	if err != nil {
		return secrets{}, err
	}
	certificate, err := api.SelfSigned(rand.Reader, private)
	if err != nil {
		return secrets{}, err
	}
	ca, err := signer.Open(c.CA)
	if err != nil {
		return secrets{}, err
	}
	log, err := signer.Open(c.Log)
	return secrets{identity, private, certificate, ca, log}, err
}

// member is one running broker.
type member struct {
	name    statement.BrokerName
	record  string // directory
	secrets secrets
	front   *edge.Front
	calls   *api.Peers
	node    atomic.Pointer[cluster.Node] // nil until the disk is open
	log     *slog.Logger
}

// serve runs a broker on a listener until ctx ends, and calls ready once it answers.
func serve(ctx context.Context, c config, listener net.Listener, ready func() error) error {
	syscall.Umask(0o077)
	held, err := readSecrets(c)
	if err != nil {
		return err
	}
	m := &member{name: c.Name, record: filepath.Join(c.Dir, recordDir), secrets: held, calls: api.NewPeers(&held.certificate), log: journal()}
	defer m.calls.Close()
	if err := preflight(ctx, c.Dir); err != nil {
		return advised(err)
	}
	m.front = edge.NewFront(listener, api.ServerTLS(held.certificate, m.brokers))
	node, err := cluster.Open(cluster.Config{
		Name: c.Name, Dir: c.Dir, Now: clock, Log: os.Stderr,
		Wire: cluster.Wire{Listener: m.front.Raft(), Dial: m.dial, Who: m.who, Peers: m},
	})
	if errors.Is(err, cluster.ErrEmpty) {
		return fmt.Errorf("%w; type: pim-brokerd bootstrap CHAINFILE, or pim-brokerd join CHAINFILE where a cluster exists", err)
	}
	if err != nil {
		return advised(err)
	}
	m.node.Store(node)
	return advised(errors.Join(m.run(ctx, node, ready), node.Close()))
}

// run starts every part, and stops them all when one ends. When told to stop it lets another broker lead first, while it
// still answers.
func (m *member) run(told context.Context, node *cluster.Node, ready func() error) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(told))
	defer cancel()
	record := &effect.Record{Dir: m.record, Key: m.secrets.log, Events: node, Log: m.log}
	server := edge.New(edge.Config{Cluster: node, Peer: m, Peers: m.calls, Member: m, CA: m.secrets.ca, Seeds: m.secrets.private, Record: record.Read, Now: clock, Random: rand.Reader, Log: m.log})
	sweep := &effect.Sweep{Cluster: leading{node}, Now: clock, Every: sweepEvery, Log: m.log}
	alarm := &effect.Alarm{Events: node, Now: clock, Log: m.log}
	parts := []func() error{
		func() error { return m.front.Run(ctx) },
		func() error { return server.Serve(ctx, m.front.HTTP()) },
		func() error { sweep.Run(ctx); return nil },
		func() error { record.Run(ctx); return nil },
		func() error { alarm.Run(ctx); return nil },
		func() error { return m.announce(ctx, node, ready) },
		func() error { m.status(ctx, node); return nil },
		func() error { return stopped(ctx, node) },
		func() error { defer cancel(); return m.part(told, ctx, node) },
	}
	ended := make(chan error)
	for _, part := range parts {
		go func() { ended <- part() }()
	}
	var all []error
	for range parts {
		err := <-ended
		if err != nil {
			cancel()
		}
		all = append(all, err)
	}
	m.log.Info("stopped", "rubbish", server.Rubbish())
	return errors.Join(all...)
}

// stopped waits for the node to fail, or for the end.
func stopped(ctx context.Context, node *cluster.Node) error {
	select {
	case <-node.Failed():
		return node.Err()
	case <-ctx.Done():
		return nil
	}
}

// part waits until the broker is told to stop, and hands leadership over. Nobody taking it is no reason to stay.
func (m *member) part(told, ctx context.Context, node *cluster.Node) error {
	select {
	case <-told.Done():
	case <-ctx.Done():
		return nil
	}
	_, err := daemon.SdNotify(false, daemon.SdNotifyStopping)
	if gone := node.HandOver(); gone != nil {
		m.log.Warn("nobody else leads now", "error", gone)
	}
	return err
}

// announce says ready once the cluster answers, or once it is clear that this broker waits for others: they may be waiting
// for this very command to return.
func (m *member) announce(ctx context.Context, node *cluster.Node, ready func() error) error {
	chain, patience := node.Chain(), ctx
	if len(chain.Current().Brokers) > 1 {
		limited, cancel := context.WithTimeout(ctx, readyPatience)
		defer cancel()
		patience = limited
	}
	err := node.Ready(patience)
	if node.Err() != nil || ctx.Err() != nil {
		return node.Err()
	}
	chain = node.Chain()
	listed := chain.Current().Brokers[m.name]
	ca, _ := statement.KeyOf(m.secrets.ca.PublicKey())
	log, _ := statement.KeyOf(m.secrets.log.PublicKey())
	if listed.Identity != m.secrets.identity || listed.CA != ca || listed.Log != log {
		m.log.Error("the policy lists other keys for this broker: nobody will believe it", "broker", m.name, "hint", "pim-brokerd init prints its lines")
	}
	if err != nil {
		m.log.Warn("serving, but no majority of the brokers is there yet", "broker", m.name, "error", err,
			"hint", m.missing(node))
	}
	m.log.Info("ready", "broker", m.name, "address", m.front.HTTP().Addr(), "deployment", chain.Deployment(), "policy", chain.Ref().Revision)
	return ready()
}

// missing is what to do about a broker that waits.
func (m *member) missing(node *cluster.Node) string {
	for name, refusal := range node.Refusals() {
		return fmt.Sprintf("%s says: %s", name, refusal.Why)
	}
	return "start the others; each needs: pim-brokerd bootstrap, or restore, with the same file"
}

// status tells systemd, for people who ask it, who leads as far as this broker knows.
func (m *member) status(ctx context.Context, node *cluster.Node) {
	look := time.NewTicker(statusEvery)
	defer look.Stop()
	said := ""
	for {
		now := statusOf(m.name, node.Leader(), node.Refusals())
		if node.Low() {
			now += "; its disk is almost full"
		}
		if now != said {
			said = now
			_, _ = daemon.SdNotify(false, "STATUS="+now) // nothing depends on it
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func statusOf(own, leader statement.BrokerName, refusals map[statement.BrokerName]cluster.Refusal) string {
	status := "follows " + string(leader)
	switch leader {
	case "":
		status = "no broker leads"
	case own:
		status = "leads"
	}
	for _, name := range slices.Sorted(maps.Keys(refusals)) {
		status += fmt.Sprintf("; %s says: %s", name, refusals[name].Why)
	}
	return status
}
