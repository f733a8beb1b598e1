package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
)

// book is a log that an honest broker keeps, or an owned one.
type book struct {
	*scene
	state  *broker.State
	leaves [][]byte
}

// newBook holds the policy, the hosts, and what alice asked and bob granted.
func (s *scene) newBook() *book {
	s.t.Helper()
	b := &book{scene: s, state: broker.NewState()}
	for _, p := range slices.Concat(s.chain.Proofs(), s.enrolments) {
		b.file(p)
	}
	ask := s.asks("alice")
	b.file(ask)
	b.file(s.decide("bob", statement.Approve, ask))
	return b
}

// asks asks for db-admin on db1.
func (s *scene) asks(person statement.Person) statement.Proof {
	return s.ask(person, func(*statement.Request) {})
}

// fork is another log with the same beginning.
func (b *book) fork(from int) *book {
	b.t.Helper()
	other := &book{scene: b.scene, state: broker.NewState(), leaves: slices.Clone(b.leaves[:from])}
	for _, leaf := range other.leaves {
		event, err := broker.DecodeEvent(leaf)
		b.must(err)
		broker.Evolve(other.state, event)
	}
	return other
}

func (b *book) file(p statement.Proof) {
	b.t.Helper()
	command, err := broker.CommandFor(p, b.now())
	b.must(err)
	b.take(command)
}

// take has the rules decide a command.
func (b *book) take(command broker.Command) {
	b.t.Helper()
	decided, err := broker.Decide(b.state, command.Under(b.state))
	if len(decided.Events) == 0 {
		b.t.Fatalf("nothing came of it: %v", err)
	}
	for _, event := range decided.Events {
		leaf, err := broker.EncodeEvent(event)
		b.must(err)
		b.leaves = append(b.leaves, leaf)
		broker.Evolve(b.state, event)
	}
}

// publish writes the record as a broker with this log key does.
func (b *book) publish(dir string, key ed25519.PrivateKey) {
	b.t.Helper()
	b.must(os.RemoveAll(dir))
	head, files, err := audit.Grow(statement.LogHead{}, audit.FromFS(os.DirFS(dir)), b.leaves)
	b.must(err)
	signer, err := ssh.NewSignerFromSigner(key)
	b.must(err)
	text, err := audit.Sign(audit.Checkpoint{Deployment: b.chain.Deployment(), LogHead: head, State: b.state.Digest()}, signer)
	b.must(err)
	for _, f := range append(files, audit.File{Path: audit.PathCheckpoint, Data: text}) {
		b.must(writeFile(filepath.Join(dir, f.Path), f.Data, 0o600))
	}
}

// TestVerifyNamesEachOfAThousandFlippedBytes runs the command itself on a copy, one changed byte at a time, seeded.
func TestVerifyNamesEachOfAThousandFlippedBytes(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	frank, dir := s.seat("frank"), filepath.Join(t.TempDir(), "copy")
	s.newBook().publish(dir, s.log)
	if out, talk, code := frank.run("audit", "verify", "--dir", dir); code != 0 || !strings.Contains(out, ": sound: ") {
		t.Fatalf("exit %d\n%s%s", code, out, talk)
	}
	var names []string
	s.must(fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if !entry.IsDir() {
			names = append(names, name)
		}
		return err
	}))
	random, flips := mathrand.New(mathrand.NewPCG(42, 6962)), 1000
	if testing.Short() {
		flips = 200
	}
	for i := range flips {
		name := names[i%len(names)]
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		s.must(err)
		at, by := random.IntN(len(data)), byte(1+random.IntN(255))
		data[at] ^= by
		s.must(os.WriteFile(path, data, 0o600))
		out, talk, code := frank.run("audit", "verify", "--dir", dir)
		if code != 1 || !strings.Contains(talk, name+":") || strings.Contains(out, ": sound") {
			t.Errorf("flip %d, byte %d of %s: exit %d\n%s%s", i, at, name, code, out, talk)
		}
		data[at] ^= by
		s.must(os.WriteFile(path, data, 0o600))
	}
}

// trio is three brokers that serve records; what each serves is a directory.
type trio struct {
	*scene
	logs map[string]ed25519.PrivateKey
	dirs map[string]string
	down map[string]bool
}

func newTrio(t *testing.T) *trio {
	three := &trio{logs: map[string]ed25519.PrivateKey{}, dirs: map[string]string{}, down: map[string]bool{}}
	var stanzas []string
	serve := map[string]func(){}
	for _, name := range []string{"b1", "b2", "b3"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		identity := newKey(t)
		three.logs[name], three.dirs[name] = newKey(t), filepath.Join(t.TempDir(), name)
		s := &scene{t: t}
		stanzas = append(stanzas, fmt.Sprintf("  %s: {address: %q, identity: %q, ca: %q, log: %q}", name, listener.Addr(), s.public(identity), s.public(newKey(t)),
			s.public(three.logs[name])))
		serve[name] = func() {
			own, err := api.SelfSigned(rand.Reader, identity)
			three.must(err)
			server := &http.Server{Handler: three.routes(name), TLSConfig: api.ServerTLS(own, func() []statement.Key { return nil }), ErrorLog: quietLog()}
			go server.ServeTLS(listener, "", "")
			t.Cleanup(func() { server.Close() })
		}
	}
	three.scene = newSceneOf(t, strings.Join(stanzas, "\n"))
	for _, start := range serve {
		start()
	}
	return three
}

func (three *trio) routes(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v1/")
		switch data, err := audit.FromFS(os.DirFS(three.dirs[name]))(path); {
		case path == "policy":
			answer(w, api.Policies{Policies: three.chain.Proofs()}, 200)
		case three.down[name]:
			answer(w, api.Problem{Kind: "unavailable"}, 503)
		case errors.Is(err, fs.ErrNotExist):
			answer(w, api.Problem{Kind: "missing", Message: "no " + path}, 404)
		default:
			w.Write(data)
		}
	})
}

// TestAnOwnedBrokerAmongThreeIsNamed: b2's disk, identity and log key are the attacker's.
func TestAnOwnedBrokerAmongThreeIsNamed(t *testing.T) {
	three := newTrio(t)
	honest := three.newBook()
	before := len(honest.leaves)
	withdrawn := three.asks("erin")
	honest.file(withdrawn)
	other := honest.fork(before)
	other.file(three.asks("erin"))
	longer := honest.fork(len(honest.leaves))
	longer.file(three.ask("bob", func(r *statement.Request) { r.Role = "root" }))
	shorter := honest.fork(before)

	for does, c := range map[string]struct {
		log   *book
		key   string // whose key signs b2's checkpoint
		down  bool
		code  int
		named string
	}{
		"is honest":                        {honest, "b2", false, 0, ""},
		"is one event behind":              {shorter, "b2", false, 0, ""},
		"does not answer":                  {honest, "b2", true, 0, "broker b2 does not answer"},
		"is one event ahead":               {longer, "b2", false, 0, ""},
		"forks its log":                    {other, "b2", false, 1, "the record of b2: checkpoint: among its first"},
		"signs with another key":           {honest, "none", false, 1, "the record of b2: checkpoint: not signed by the log key of a broker"},
		"shows another broker's signature": {other, "b1", false, 1, "broker b2 shows one that broker b1 signed"},
		"shows no record at all":           {nil, "b2", false, 1, "the record of b2: checkpoint: the broker shows none"},
	} {
		t.Run(does, func(t *testing.T) {
			three.logs["none"] = newKey(t)
			three.down["b2"] = c.down
			honest.publish(three.dirs["b1"], three.logs["b1"])
			honest.publish(three.dirs["b3"], three.logs["b3"])
			three.must(os.RemoveAll(three.dirs["b2"]))
			if c.log != nil {
				c.log.publish(three.dirs["b2"], three.logs[c.key])
			}
			out, talk, code := three.seat("frank").run("audit", "verify")
			if code != c.code || !strings.Contains(talk, c.named) {
				t.Errorf("exit %d, want %d and %q\n%s%s", code, c.code, c.named, out, talk)
			}
			for _, name := range []string{"b1", "b3"} {
				if c.code == 0 && !strings.Contains(out, name+": sound: ") {
					t.Errorf("%s was not found sound\n%s%s", name, out, talk)
				}
			}
		})
	}
}

// TestWhatAnAuditorSawIsRemembered: between two audits the owned broker rewrites or truncates what it showed.
func TestWhatAnAuditorSawIsRemembered(t *testing.T) {
	three := newTrio(t)
	honest := three.newBook()
	before := len(honest.leaves)
	honest.file(three.asks("erin"))
	rewritten := honest.fork(before)
	rewritten.file(three.asks("erin"))
	rewritten.file(three.ask("bob", func(r *statement.Request) { r.Role = "root" }))
	for does, c := range map[string]struct {
		log   *book
		named string
	}{
		"truncates": {honest.fork(before), "it was truncated"}, "rewrites": {rewritten, "the log was forked or rewritten"},
	} {
		frank := three.seat("frank")
		for _, name := range []string{"b1", "b2", "b3"} {
			honest.publish(three.dirs[name], three.logs[name])
		}
		if out, talk, code := frank.run("audit", "verify"); code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", does, code, out, talk)
		}
		for _, name := range []string{"b1", "b2", "b3"} {
			c.log.publish(three.dirs[name], three.logs[name]) // all three together: nobody contradicts them but frank
		}
		out, talk, code := frank.run("audit", "verify")
		if code != 1 || strings.Count(talk, c.named) != 3 {
			t.Errorf("%s: exit %d, want %q\n%s%s", does, code, c.named, out, talk)
		}
	}
}

// TestARecordsWordsCannotDisturbATerminal: in which words a refusal was told is the one thing in a sound record that is only
// a broker's.
func TestARecordsWordsCannotDisturbATerminal(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	frank, dir, b := s.seat("frank"), filepath.Join(t.TempDir(), "copy"), s.newBook()
	refused := s.ask("mallory", func(*statement.Request) {})
	b.file(refused)
	last := len(b.leaves) - 1
	event, err := broker.DecodeEvent(b.leaves[last])
	s.must(err)
	event.(*broker.StatementRefused).Why = "no\x1b[2J\r\n99 2026-11-23T08:00:00Z GrantOpened mallory\u202e"
	b.leaves[last], err = broker.EncodeEvent(event)
	s.must(err)
	b.fork(len(b.leaves)).publish(dir, s.log)
	for _, words := range [][]string{{"audit", "list", "--dir", dir}, {"audit", "list", "--dir", dir, "-o", "json"}, {"audit", "verify", "--dir", dir},
		{"audit", "show", string(broker.StemOf(refused.Hash()).Request()), "--dir", dir}} {
		out, talk, code := frank.run(words...)
		if code != 0 || strings.ContainsAny(out+talk, "\x1b\r\u202e") || strings.Contains(out, "\n99 ") {
			t.Errorf("%v: exit %d\n%q%q", words, code, out, talk)
		}
	}
}
