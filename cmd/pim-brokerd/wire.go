package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/edge"
	"pim-ssh/broker/effect"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
	"pim-ssh/cluster"
)

// sweepEvery is how late a lapse may be recorded; hosts end windows untold.
const sweepEvery = 2 * time.Second

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
	file := words.String("config", configFile, "")
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
	return secrets{identity, certificate, ca, log}, err
}

// member is one running broker.
type member struct {
	name    statement.BrokerName
	record  string // directory
	secrets secrets
	front   *edge.Front
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
	m := &member{name: c.Name, record: filepath.Join(c.Dir, recordDir), secrets: held, log: journal()}
	m.front = edge.NewFront(listener, api.ServerTLS(held.certificate, m.brokers))
	node, err := cluster.Open(cluster.Config{
		Name: c.Name, Address: listener.Addr().String(), Dir: c.Dir, Now: clock, Log: os.Stderr,
		Wire: cluster.Wire{Listener: m.front.Raft(), Dial: m.dial},
	})
	if errors.Is(err, cluster.ErrEmpty) {
		return fmt.Errorf("%w; type: pim-brokerd bootstrap CHAINFILE", err)
	}
	if err != nil {
		return err
	}
	m.node.Store(node)
	return errors.Join(m.run(ctx, node, ready), node.Close())
}

// run starts every part, and stops them all when one ends.
func (m *member) run(ctx context.Context, node *cluster.Node, ready func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	record := &effect.Record{Dir: m.record, Key: m.secrets.log, Events: node, Log: m.log}
	server := edge.New(edge.Config{Cluster: node, CA: m.secrets.ca, Record: record.Read, Now: clock, Random: rand.Reader, Log: m.log})
	sweep := &effect.Sweep{Cluster: node, Now: clock, Every: sweepEvery, Log: m.log}
	parts := []func() error{
		func() error { return m.front.Run(ctx) },
		func() error { return server.Serve(ctx, m.front.HTTP()) },
		func() error { sweep.Run(ctx); return nil },
		func() error { record.Run(ctx); return nil },
		func() error { return m.announce(ctx, node, ready) },
		func() error { return stopped(ctx, node) },
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

// announce says ready once the cluster answers, and what people should know then.
func (m *member) announce(ctx context.Context, node *cluster.Node, ready func() error) error {
	if err := node.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	err := node.Local(func(state *broker.State) {
		listed := state.Chain().Current().Brokers[m.name]
		ca, _ := statement.KeyOf(m.secrets.ca.PublicKey())
		log, _ := statement.KeyOf(m.secrets.log.PublicKey())
		if listed.Identity != m.secrets.identity || listed.CA != ca || listed.Log != log {
			m.log.Error("the policy lists other keys for this broker: nobody will believe it", "broker", m.name, "hint", "pim-brokerd init prints its lines")
		}
		m.log.Info("ready", "broker", m.name, "address", m.front.HTTP().Addr(), "deployment", state.Chain().Deployment(), "index", state.Index())
	})
	return errors.Join(err, ready())
}

// brokers are the keys that may speak raft, as of this moment.
func (m *member) brokers() []statement.Key {
	var keys []statement.Key
	node := m.node.Load()
	if node == nil {
		return nil
	}
	_ = node.Local(func(state *broker.State) { // a node that failed knows no brokers
		for _, listed := range state.Chain().Current().Brokers {
			keys = append(keys, listed.Identity)
		}
	})
	return keys
}

// dial reaches another broker to speak raft; both sides check the other's key.
func (m *member) dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := tls.Dialer{Config: api.ClientTLS(api.ProtocolRaft, m.brokers(), &m.secrets.certificate)}
	return dialer.DialContext(ctx, "tcp", address)
}
