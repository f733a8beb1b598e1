package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// trio is three brokers, each a real process on a disk of its own, in a deployment whose every person's key is at hand.
type trio struct {
	t     *testing.T
	world *forger.World
	file  string // the chain file
	names []statement.BrokerName
	all   map[statement.BrokerName]*one
	host  ed25519.PrivateKey // web1's identity
}

// one is one broker of a trio.
type one struct {
	dir, config, address string
	build                string // the program it runs

	mu   sync.Mutex
	cmd  *exec.Cmd // nil while it does not run
	said *speech
}

// speech is what a process said so far. It may be read while more is said.
type speech struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *speech) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// String is all of it.
func (s *speech) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// forget begins anew.
func (s *speech) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Reset()
}

// newTrio has init and bootstrap done on each, as people do it, and starts them; web1 is enrolled.
func newTrio(t *testing.T) *trio {
	t.Helper()
	return newTrioOn(t, t.TempDir(), os.Args[0])
}

// newTrioUnder is newTrio under a policy that a test changes.
func newTrioUnder(t *testing.T, change func(*policy.Document)) *trio {
	t.Helper()
	return newTrioWith(t, t.TempDir(), os.Args[0], change)
}

// newTrioOf is newTrio with another build of pim-brokerd.
func newTrioOf(t *testing.T, build string) *trio {
	t.Helper()
	return newTrioOn(t, t.TempDir(), build)
}

// newTrioOn is newTrioOf with every broker's disk in one directory.
func newTrioOn(t *testing.T, dir, build string) *trio {
	t.Helper()
	return newTrioWith(t, dir, build, func(*policy.Document) {})
}

func newTrioWith(t *testing.T, dir, build string, change func(*policy.Document)) *trio {
	t.Helper()
	r := &trio{t: t, names: []statement.BrokerName{"b1", "b2", "b3"}, all: map[statement.BrokerName]*one{}}
	listed := map[statement.BrokerName]policy.Broker{}
	for _, name := range r.names {
		b := &one{dir: filepath.Join(dir, string(name)), address: freeAddress(t), build: build, said: &speech{}}
		keys, err := makeKeys(b.dir, name)
		r.must(err)
		keys.Address = b.address
		listed[name] = keys
		b.config = write(t, dir, string(name)+".yaml", fmt.Sprintf("dir: %s\nlisten: %s\n", b.dir, b.address))
		r.all[name] = b
	}
	r.world = forger.New(t, func(doc *policy.Document) {
		doc.Brokers = listed
		change(doc)
		if build != os.Args[0] { // an older one may know documents of version 1 only
			web := doc.Roles["web-deploy"]
			web.PlainKey = false
			doc.V, doc.Roles["web-deploy"] = 1, web
		}
	})
	r.file = r.chainFile(dir, r.world.Chain)
	for _, name := range r.names {
		if out, err := r.program(name, "bootstrap", r.file, "--dir", r.all[name].dir).CombinedOutput(); err != nil {
			t.Fatalf("bootstrap: %v\n%s", err, out)
		}
	}
	t.Cleanup(func() {
		for _, name := range r.names {
			r.kill(name)
		}
		if t.Failed() {
			for _, name := range r.names {
				t.Logf("%s:\n%s", name, r.all[name].said)
			}
		}
	})
	for _, name := range r.names {
		r.start(name)
	}
	r.enrolWeb1()
	return r
}

func (r *trio) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (r *trio) chainFile(dir string, chain policy.Chain) string {
	r.t.Helper()
	var text strings.Builder
	for _, proof := range chain.Proofs() {
		line, err := json.Marshal(proof)
		r.must(err)
		text.Write(append(line, '\n'))
	}
	return write(r.t, dir, "chain", text.String())
}

// program is a broker's own build with these words.
func (r *trio) program(name statement.BrokerName, words ...string) *exec.Cmd {
	cmd := program(context.Background(), words...)
	cmd.Path = r.all[name].build
	return cmd
}

// start starts a broker; it does not wait for the others.
func (r *trio) start(name statement.BrokerName) {
	r.t.Helper()
	b := r.all[name]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cmd = r.program(name, "run", "--config", b.config)
	b.cmd.Stderr = b.said
	r.must(b.cmd.Start())
}

// kill is kill -9, and waits until nothing is left of it.
func (r *trio) kill(name statement.BrokerName) {
	b := r.all[name]
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		b.cmd = nil
	}
}

func (r *trio) signal(name statement.BrokerName, what os.Signal) {
	r.t.Helper()
	r.must(r.all[name].cmd.Process.Signal(what))
}

// as calls the cluster as a person, at whichever broker answers.
func (r *trio) as(person statement.Person) *api.Client { return r.at("", person) }

// at calls one broker, or with "" any.
func (r *trio) at(name statement.BrokerName, person statement.Person) *api.Client {
	r.t.Helper()
	config := api.Config{Policy: r.world.Chain.Current(), Reader: &api.Reader{Person: person, Deployment: r.world.Chain.Deployment(),
		Policy: r.world.Chain.Ref, Signer: r.world.People[person], Now: forger.Now, Random: rand.Reader}}
	if name != "" {
		config.Address = r.all[name].address
	}
	client, err := api.NewClient(config)
	r.must(err)
	r.t.Cleanup(client.Close)
	return client
}

// leader asks every broker, as another broker would, until one says that it leads.
func (r *trio) leader() statement.BrokerName {
	r.t.Helper()
	own := r.ownTLS("b1")
	var leader statement.BrokerName
	r.within(10*time.Second, "a leader", func() bool {
		for _, name := range r.names {
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
			_, err := own.Index(ctx, r.world.Chain.Current().Brokers[name])
			cancel()
			if err == nil {
				leader = name
				return true
			}
		}
		return false
	})
	return leader
}

func (r *trio) follower() statement.BrokerName {
	r.t.Helper()
	leader := r.leader()
	for _, name := range r.names {
		if name != leader {
			return name
		}
	}
	return ""
}

// ownTLS calls with the identity of one of the brokers.
func (r *trio) ownTLS(name statement.BrokerName) *api.Peers {
	r.t.Helper()
	private, _, err := readIdentity(filepath.Join(r.all[name].dir, identityFile))
	r.must(err)
	own, err := api.SelfSigned(rand.Reader, private)
	r.must(err)
	calls := api.NewPeers(&own)
	r.t.Cleanup(calls.Close)
	return calls
}

// within asks again and again until holds is true.
func (r *trio) within(limit time.Duration, what string, holds func() bool) {
	r.t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(limit); !holds(); <-again.C {
		if time.Now().After(end) {
			r.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func (r *trio) enrolWeb1() {
	r.t.Helper()
	once := forger.Key(r.t)
	private, identity := forger.PrivateKey(r.t)
	r.host = private
	token := r.world.Sign(statement.HostToken{Head: r.world.Head(statement.KindHostToken, "dave"), Name: "web1", Labels: map[string]string{"tier": "web"},
		Addresses: []string{"web1"}, Key: signtest.Public(once), Expires: forger.Now() + 3600}, "dave")
	head := r.world.Head(statement.KindEnrolment, "")
	head.Host = "web1"
	proof, err := statement.Sign(statement.Enrolment{Head: head, Token: token, MachineID: statement.HashOf([]byte("web1")), Identity: signtest.Public(identity),
		HostKeys: []statement.Key{signtest.Public(identity)}}, once, identity)
	r.must(err)
	r.within(20*time.Second, "the first write", func() bool {
		_, err = r.as("dave").Submit(r.t.Context(), proof)
		return err == nil
	})
}

// ask is a new request that becomes a grant at once.
func (r *trio) ask(person statement.Person) statement.Proof {
	return r.world.Ask(person, "web-deploy", "web1", 600, r.world.People[person], nil)
}

// giveBack returns the grant that a request of ask's becomes.
func (r *trio) giveBack(person statement.Person, asked statement.Proof) statement.Proof {
	stem := broker.StemOf(asked.Hash())
	return r.world.Sign(statement.End{Head: r.world.Head(statement.KindEnd, person), Grant: string(stem.Grant()), How: statement.Return}, person)
}

// log reads every event as the auditor, from one broker or any, up to the first beat.
func (r *trio) log(name statement.BrokerName) []broker.Event {
	r.t.Helper()
	stream, err := r.at(name, "frank").Watch(r.t.Context(), nil)
	r.must(err)
	defer stream.Close()
	var events []broker.Event
	for {
		frame, err := stream.Next()
		r.must(err)
		if frame.Beat != 0 {
			return events
		}
		event, err := broker.DecodeEvent(frame.Event)
		r.must(err)
		events = append(events, event)
	}
}
