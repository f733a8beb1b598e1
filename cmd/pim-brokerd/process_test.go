package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
	"pim-ssh/packaging/lab/forger"
)

// asProgram makes the test binary be pim-brokerd.
const asProgram = "PIM_BROKERD_IS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		go failSyncsWhenTold()
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program is pim-brokerd with these words, as its own process.
func program(ctx context.Context, words ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], words...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// process is `pim-brokerd dev` on a directory that outlives it.
type process struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	said  *bytes.Buffer
	chain policy.Chain
}

func newProcess(t *testing.T) *process {
	p := &process{t: t, dir: t.TempDir()}
	t.Cleanup(p.kill)
	return p
}

// start runs the broker until it says that it is ready.
func (p *process) start() {
	p.t.Helper()
	p.cmd, p.said = program(context.Background(), "dev", "--dir", p.dir), &bytes.Buffer{}
	p.cmd.Stderr = p.said
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "READY=1" {
			p.readChain()
			return
		}
	}
	p.cmd.Wait()
	p.t.Fatalf("it never was ready:\n%s", p.said)
}

func (p *process) readChain() {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, "chain"))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, p.chain, err = readChain(data); err != nil {
		p.t.Fatal(err)
	}
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd != nil && p.cmd.Process != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.cmd = nil
	}
}

// as calls the broker as a person.
func (p *process) as(person statement.Person) *api.Client {
	p.t.Helper()
	key, err := signer.Open(filepath.Join(p.dir, "keys", string(person)))
	if err != nil {
		p.t.Fatal(err)
	}
	client, err := api.NewClient(api.Config{Policy: p.chain.Current(), Reader: &api.Reader{
		Person: person, Deployment: p.chain.Deployment(), Policy: p.chain.Ref, Signer: key, Now: forger.Now, Random: rand.Reader}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(client.Close)
	return client
}

func (p *process) ask(person statement.Person) (statement.Proof, error) {
	key, err := signer.Open(filepath.Join(p.dir, "keys", string(person)))
	if err != nil {
		return statement.Proof{}, err
	}
	now := forger.Now()
	return statement.Sign(statement.Request{Head: statement.Head{V: statement.Version, Kind: statement.KindRequest, Deployment: p.chain.Deployment(),
		Policy: p.chain.Ref(), Person: person, Nonce: forger.Nonce(), Created: now, NotAfter: now + 60},
		Role: "web-deploy", Hosts: []statement.HostName{"web1"}, Duration: 600, Reason: "kill", Expires: now + 600}, key)
}

// acknowledged is what the broker said it had, by the statement.
type acknowledged struct {
	proof  statement.Proof
	answer api.Answer
}

// TestKillNineLosesNothingAcknowledged kills the real process at random moments of a stream of requests, and asks for every
// acknowledged one afterwards: in the log at its index, in the state, and answered the same again.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	p := newProcess(t)
	var mu sync.Mutex
	var all []acknowledged
	var signed []audit.Signed
	for round := range 8 {
		p.start()
		p.checkKept(all)
		signed = append(signed, p.checkRecord(signed...))
		var filing sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		for _, person := range []statement.Person{"alice", "erin", "alice"} {
			client := p.as(person)
			filing.Go(func() {
				for ctx.Err() == nil {
					proof, err := p.ask(person)
					if err != nil {
						t.Error(err)
						return
					}
					answer, err := client.Submit(ctx, proof)
					if err != nil {
						return // it was killed: nothing was promised
					}
					mu.Lock()
					all = append(all, acknowledged{proof, answer})
					mu.Unlock()
				}
			})
		}
		pause := time.NewTimer(time.Duration(100+137*round) * time.Millisecond)
		<-pause.C
		p.kill()
		stop()
		filing.Wait()
	}
	p.start()
	p.checkKept(all)
	p.checkRecord(signed...)
	if len(all) < 20 {
		t.Errorf("only %d statements were acknowledged", len(all))
	}
	t.Logf("%d acknowledged over 8 kills, none lost; the record grew to %d", len(all), signed[len(signed)-1].Size)
}

// checkKept holds the broker to what it acknowledged.
func (p *process) checkKept(all []acknowledged) {
	p.t.Helper()
	stream, err := p.as("frank").Watch(p.t.Context(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer stream.Close()
	filed := map[uint64]statement.Hash{}
	for next := uint64(0); ; next++ {
		frame, err := stream.Next()
		if err != nil {
			p.t.Fatal(err)
		}
		if frame.Beat != 0 {
			break
		}
		if *frame.Index != next {
			p.t.Fatalf("event %d where %d is next", *frame.Index, next)
		}
		event, err := broker.DecodeEvent(frame.Event)
		if err != nil {
			p.t.Fatal(err)
		}
		if request, is := event.(*broker.RequestFiled); is {
			filed[next] = request.Proof.Hash()
		}
	}
	client := p.as("alice")
	for i, one := range all {
		if filed[one.answer.Index] != one.proof.Hash() {
			p.t.Fatalf("%s was acknowledged at %d, which now holds %s", one.answer.Request, one.answer.Index, filed[one.answer.Index])
		}
		if i%7 != 0 {
			continue
		}
		again, err := client.Submit(p.t.Context(), one.proof)
		if err != nil || again.Index != one.answer.Index || *again.Grant != *one.answer.Grant {
			p.t.Fatalf("asked again, %+v became %+v, %v", one.answer, again, err)
		}
	}
}

// TestTermEndsItInOrder sends SIGTERM and wants exit code 0, soon, with a stream open.
func TestTermEndsItInOrder(t *testing.T) {
	p := newProcess(t)
	p.start()
	stream, err := p.as("alice").Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	start := time.Now()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v:\n%s", err, p.said)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	p.cmd = nil
}

// TestALapseIsRecordedByTheSweep waits for the log to say what time has ended.
func TestALapseIsRecordedByTheSweep(t *testing.T) {
	p := newProcess(t)
	p.start()
	stream, err := p.as("frank").Watch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	key, err := signer.Open(filepath.Join(p.dir, "keys", "alice"))
	if err != nil {
		t.Fatal(err)
	}
	now := forger.Now()
	proof, err := statement.Sign(statement.Request{Head: statement.Head{V: statement.Version, Kind: statement.KindRequest, Deployment: p.chain.Deployment(),
		Policy: p.chain.Ref(), Person: "alice", Nonce: forger.Nonce(), Created: now, NotAfter: now + 60},
		Role: "web-deploy", Hosts: []statement.HostName{"web1"}, Duration: 1, Reason: "short", Expires: now + 600}, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.as("alice").Submit(t.Context(), proof); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		frame, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(frame.Event), `"kind":"GrantLapsed"`) {
			return
		}
	}
	t.Error("the log never said so")
}

// TestTheRealBrokerOnAnotherDiskIsRefused takes raft.db away under a stopped broker.
func TestTheRealBrokerOnAnotherDiskIsRefused(t *testing.T) {
	p := newProcess(t)
	p.start()
	p.kill()
	if err := os.Remove(filepath.Join(p.dir, "broker", "raft.db")); err != nil {
		t.Fatal(err)
	}
	out, err := program(t.Context(), "dev", "--dir", p.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "this is not the disk this broker left") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestWords holds the command line to its exit codes and to what it says.
func TestWords(t *testing.T) {
	dir := t.TempDir()
	used := filepath.Join(dir, "used")
	first := say(t, 0, "init", "--name", "b1", "--address", "b1:7443", "--dir", used)
	if again := say(t, 0, "init", "--name", "b1", "--address", "b1:7443", "--dir", used); again != first {
		t.Errorf("init says\n%s and then\n%s", first, again)
	}
	if !strings.HasPrefix(first, "brokers:\n  b1: {address: \"b1:7443\", identity: \"ssh-ed25519 ") {
		t.Errorf("init says %s", first)
	}
	for name, try := range map[string]struct {
		exit  int
		words []string
		says  string
	}{
		"nothing":                      {2, nil, "usage:"},
		"help":                         {0, []string{"--help"}, "usage:"},
		"help on a word":               {0, []string{"init", "-h"}, "usage:"},
		"run with a file that is gone": {1, []string{"run", "--config", filepath.Join(dir, "gone.yaml")}, "gone.yaml: no such file"},
		"an unknown word":              {2, []string{"serve"}, "usage:"},
		"an unknown flag":              {2, []string{"run", "--fast"}, "usage:"},
		"a word too many":              {2, []string{"run", "now"}, "usage:"},
		"init without a name":          {2, []string{"init"}, "usage:"},
		"init under another name":      {1, []string{"init", "--name", "b2", "--address", "b2:7443", "--dir", used}, "belongs to broker b1"},
		"init with an odd address":     {1, []string{"init", "--name", "b3", "--address", "b3", "--dir", filepath.Join(dir, "b3")}, "HOST:PORT"},
		"init with an odd name":        {1, []string{"init", "--name", "B 3", "--address", "b3:7443", "--dir", filepath.Join(dir, "b3")}, "broker"},
		"bootstrap without a file":     {2, []string{"bootstrap"}, "usage:"},
		"bootstrap from no file":       {1, []string{"bootstrap", filepath.Join(dir, "chain"), "--dir", used}, "no such file"},
		"run with a key that is wrong": {1, []string{"run", "--config", write(t, dir, "a.yaml", "name: b1\nlisen: :1\n")}, `a.yaml:2:1: unknown field "lisen": did you mean "listen"?`},
		"run before bootstrap":         {1, []string{"run", "--config", write(t, dir, "b.yaml", fmt.Sprintf("dir: %s\nlisten: 127.0.0.1:0\n", used))}, "pim-brokerd bootstrap"},
		"run before init":              {1, []string{"run", "--config", write(t, dir, "c.yaml", fmt.Sprintf("dir: %s/none\n", dir))}, "pim-brokerd init"},
	} {
		t.Run(name, func(t *testing.T) {
			if said := say(t, try.exit, try.words...); !strings.Contains(said, try.says) {
				t.Errorf("it says\n%s\nwant %q", said, try.says)
			}
		})
	}
}

// TestBootstrapRefusesAPolicyOfOtherKeys signs a policy that lists a broker of the same name.
func TestBootstrapRefusesAPolicyOfOtherKeys(t *testing.T) {
	dir := t.TempDir()
	say(t, 0, "init", "--name", "b1", "--address", "b1:7443", "--dir", filepath.Join(dir, "b1"))
	world := forger.New(t, nil)
	proof := world.Chain.Proofs()[0]
	file := write(t, dir, "chain", fmt.Sprintf(`{"payload":%q,"signatures":[%q]}`+"\n", base64.StdEncoding.EncodeToString(proof.Payload), base64.StdEncoding.EncodeToString(proof.Signatures[0])))
	if said := say(t, 1, "bootstrap", file, "--dir", filepath.Join(dir, "b1")); !strings.Contains(said, "another identity key") {
		t.Errorf("it says %s", said)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func say(t *testing.T, exit int, words ...string) string {
	t.Helper()
	cmd := program(t.Context(), words...)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exit {
		t.Errorf("%v: exit %d, want %d:\n%s", words, code, exit, out)
	}
	return string(out)
}
