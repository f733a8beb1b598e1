package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/statement"
)

// cast are the people of every scene; mallory may nothing.
var cast = []statement.Person{"alice", "erin", "bob", "carol", "gwen", "dave", "frank", "mallory"}

// scenePolicy is the lab's policy; %[1]s is replaced by people with keys, %[2]s by the broker's stanza.
const scenePolicy = `version: 1
people:
%[1]s
groups: {engineers: [alice, erin], approvers: [bob, carol, gwen]}
stewards: {threshold: 1, people: [dave]}
operators: [dave]
auditors: [frank]
brokers:
%[2]s
roles:
  db-admin:
    hosts: {labels: {tier: db}}
    accounts: [postgres]
    sudo: [{as: root, commands: ["/usr/bin/systemctl restart postgresql"]}, {as: postgres, commands: [ALL]}]
    eligible: [engineers]
    approvals: {count: 1, from: [approvers]}
    longest: 4h
  root:
    hosts: any
    accounts: [root]
    sudo: [{as: root, commands: [ALL]}]
    eligible: [alice, bob]
    approvals: {count: 2, from: [approvers]}
    longest: 1h
  web-deploy:
    hosts: {labels: {tier: web}}
    accounts: [deploy]
    eligible: [engineers]
    approvals: none
    plain_key: true
    longest: 8h
`

// scene is a deployment in memory: everybody's keys, the broker's too, and the signed policy.
type scene struct {
	t                 testing.TB
	keys              map[statement.Person]ed25519.PrivateKey
	identity, ca, log ed25519.PrivateKey
	hostKey           ed25519.PrivateKey
	hostSigner        ed25519.PrivateKey
	chain             policy.Chain
	enrolments        []statement.Proof
}

// newScene signs the scene's policy with one broker at address.
func newScene(t testing.TB, address string) *scene {
	t.Helper()
	identity, ca, log := newKey(t), newKey(t), newKey(t)
	keys := &scene{t: t}
	s := newSceneOf(t, fmt.Sprintf("  b1: {address: %q, identity: %q, ca: %q, log: %q}", address, keys.public(identity), keys.public(ca), keys.public(log)))
	s.identity, s.ca, s.log = identity, ca, log
	return s
}

// newSceneOf signs the scene's policy with the brokers that are written out.
func newSceneOf(t testing.TB, stanza string) *scene {
	t.Helper()
	s := &scene{t: t, keys: map[statement.Person]ed25519.PrivateKey{}, hostKey: newKey(t), hostSigner: newKey(t)}
	for _, person := range cast {
		s.keys[person] = newKey(t)
	}
	s.chain = s.firstPolicy(fmt.Sprintf(scenePolicy, s.peopleYAML(), stanza))
	s.enrolments = []statement.Proof{s.enrol("db1", map[string]string{"tier": "db"}), s.enrol("web1", map[string]string{"tier": "web"})}
	return s
}

func (s *scene) peopleYAML() string {
	var people strings.Builder
	for _, person := range cast {
		fmt.Fprintf(&people, "  %s: {keys: [%q]}\n", person, s.public(s.keys[person]))
	}
	return people.String()
}

func (s *scene) firstPolicy(text string) policy.Chain {
	s.t.Helper()
	doc, err := policyfile.Read("policy.yaml", []byte(text))
	s.must(err)
	chain, err := policy.Genesis(s.signPolicy(policy.Chain{}.Next(doc, s.now().Add(90*statement.Day))))
	s.must(err)
	return chain
}

// revise returns the proof of another revision after the chain, with one thing changed.
func (s *scene) revise(chain policy.Chain, change func(*policy.Document)) statement.Proof {
	s.t.Helper()
	doc := *chain.Current()
	change(&doc)
	return s.signPolicy(chain.Next(doc, doc.Expires))
}

func (s *scene) signPolicy(doc policy.Document) statement.Proof {
	s.t.Helper()
	payload, err := policy.Draft(doc)
	s.must(err)
	proof, err := statement.SignPayload(statement.KindPolicy, payload, s.signer(s.keys["dave"]))
	s.must(err)
	return proof
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) now() statement.Time { return statement.TimeOf(time.Now()) }

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func (s *scene) public(private ed25519.PrivateKey) statement.Key {
	s.t.Helper()
	key, err := keyOf(private)
	s.must(err)
	return key
}

func (s *scene) signer(private ed25519.PrivateKey) ssh.Signer {
	s.t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	s.must(err)
	return signer
}

// head is a statement's head as the person's own CLI would make it.
func (s *scene) head(person statement.Person, kind statement.Kind) statement.Head {
	s.t.Helper()
	d := &desk{world: world{random: rand.Reader, now: time.Now}}
	head, err := d.head(pin{chain: s.chain, person: person}, kind, freshFor)
	s.must(err)
	return head
}

// ask signs a request for db-admin on db1, with one thing changed.
func (s *scene) ask(person statement.Person, change func(*statement.Request)) statement.Proof {
	s.t.Helper()
	head := s.head(person, statement.KindRequest)
	body := statement.Request{
		Head: head, Role: "db-admin", Hosts: []statement.HostName{"db1"}, Duration: 3600, Reason: "INC-42 replica lag",
		Expires: head.Created.Add(statement.Day),
	}
	change(&body)
	return s.sign(body, s.keys[person])
}

// decide signs a decision on a request.
func (s *scene) decide(person statement.Person, verdict statement.Verdict, request statement.Proof) statement.Proof {
	s.t.Helper()
	return s.sign(statement.Decision{Head: s.head(person, statement.KindDecision), Request: request.Hash(), Verdict: verdict}, s.keys[person])
}

func (s *scene) sign(body statement.Body, keys ...ed25519.PrivateKey) statement.Proof {
	s.t.Helper()
	var signers []ssh.Signer
	for _, key := range keys {
		signers = append(signers, s.signer(key))
	}
	proof, err := statement.Sign(body, signers...)
	s.must(err)
	return proof
}

// enrol makes the enrolment of a host under a token of dave's.
func (s *scene) enrol(name statement.HostName, labels map[string]string) statement.Proof {
	s.t.Helper()
	return s.enrolUnder("dave", name, labels)
}

func (s *scene) enrolUnder(operator statement.Person, name statement.HostName, labels map[string]string) statement.Proof {
	s.t.Helper()
	once := newKey(s.t)
	head := s.head(operator, statement.KindHostToken)
	token := s.sign(statement.HostToken{
		Head: head, Name: name, Labels: labels, Addresses: []string{string(name)}, Key: s.public(once), Expires: head.Created.Add(3600),
	}, s.keys[operator])
	return s.enrolWith(token, once, name)
}

func (s *scene) enrolWith(token statement.Proof, once ed25519.PrivateKey, name statement.HostName) statement.Proof {
	s.t.Helper()
	head := s.head("dave", statement.KindEnrolment)
	head.Person, head.Host = "", name
	identity := newKey(s.t)
	return s.sign(statement.Enrolment{
		Head: head, Token: token, MachineID: statement.HashOf([]byte(name)), Identity: s.public(identity),
		HostKeys: []statement.Key{s.public(s.hostKey)},
	}, once, identity)
}

// pinned is the scene as a person's CLI has pinned it.
func (s *scene) pinned(person statement.Person) pin { return pin{chain: s.chain, person: person} }

// read verifies a dossier as the person's CLI does.
func (s *scene) read(person statement.Person, d broker.Dossier) (reading, error) {
	return readDossier(s.pinned(person), d, s.now())
}

// seat is one person at a desk: directories of their own and a real ssh-agent.
type seat struct {
	t    testing.TB
	dir  string
	env  map[string]string
	tick func() time.Time
}

// seat makes directories, an ssh-agent with the person's key, and joins the scene's deployment.
func (s *scene) seat(person statement.Person) *seat {
	s.t.Helper()
	desk := newSeat(s.t, s.t.TempDir())
	desk.env["SSH_AUTH_SOCK"] = startSSHAgent(s.t, s.keys[person])
	s.join(desk, person)
	return desk
}

func (s *scene) join(desk *seat, person statement.Person) {
	s.t.Helper()
	chain, err := formatChainFile(s.chain.Proofs())
	s.must(err)
	s.must(os.WriteFile(filepath.Join(desk.dir, "chain"), chain, 0o600))
	if out, talk, code := desk.run("join", filepath.Join(desk.dir, "chain"), "--person", string(person)); code != 0 {
		s.t.Fatalf("join: exit %d\n%s%s", code, out, talk)
	}
}

func newSeat(t testing.TB, dir string) *seat {
	t.Helper()
	s := &seat{t: t, dir: dir, env: seatEnvironment(dir), tick: time.Now}
	for _, sub := range []string{"home", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func seatEnvironment(dir string) map[string]string {
	return map[string]string{
		"HOME": filepath.Join(dir, "home"), "XDG_RUNTIME_DIR": filepath.Join(dir, "run"),
		"XDG_CONFIG_HOME": filepath.Join(dir, "config"), "XDG_STATE_HOME": filepath.Join(dir, "state"),
	}
}

// run runs the program in this process and returns what it printed and its exit code.
func (s *seat) run(args ...string) (out, talk string, code int) {
	s.t.Helper()
	stdout, stderr := s.sink(), s.sink()
	defer stdout.Close()
	defer stderr.Close()
	code = run(world{
		stdout: stdout, stderr: stderr, env: func(k string) string { return s.env[k] }, now: s.tick, random: rand.Reader, uid: os.Getuid(),
	}, append([]string{"--no-input"}, args...))
	return s.contents(stdout), s.contents(stderr), code
}

func (s *seat) sink() *os.File {
	s.t.Helper()
	file, err := os.CreateTemp(s.dir, "sink-*")
	if err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *seat) contents(file *os.File) string {
	s.t.Helper()
	data, err := os.ReadFile(file.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	os.Remove(file.Name())
	return string(data)
}

// startSSHAgent runs a real ssh-agent until the test ends, holding the keys, and returns its socket.
func startSSHAgent(t testing.TB, keys ...ed25519.PrivateKey) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pim-agent") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	socket, stop, err := runSSHAgent(dir, keys...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		os.RemoveAll(dir)
	})
	return socket
}

// runSSHAgent starts a real ssh-agent in dir and loads the keys. The caller stops it.
func runSSHAgent(dir string, keys ...ed25519.PrivateKey) (socket string, stop func(), err error) {
	socket = filepath.Join(dir, "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	connection, err := dialSoon(socket)
	if err != nil {
		stop()
		return "", nil, err
	}
	defer connection.Close()
	client := agent.NewClient(connection)
	for _, key := range keys {
		if err := client.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			stop()
			return "", nil, err
		}
	}
	return socket, stop, nil
}

// dialSoon waits until a program that was just started listens.
func dialSoon(socket string) (net.Conn, error) {
	deadline := time.After(10 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			return connection, nil
		}
		select {
		case <-deadline:
			return nil, err
		case <-again.C:
		}
	}
}

// pemOf encodes a private key as ssh-keygen writes it; sealed with the passphrase unless it is empty.
func pemOf(t testing.TB, key ed25519.PrivateKey, passphrase string) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}
