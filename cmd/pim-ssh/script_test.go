package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){"pim-ssh": main})
}

// suite removes what the scripts' programs were built into.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	defer func() { os.RemoveAll(built.dir) }()
	return s.m.Run()
}

// built is where pim-brokerd is, once a script needs it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// brokerd builds the real pim-brokerd once.
func brokerd() (string, error) {
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "pim-brokerd"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, "pim-brokerd"), "pim-ssh/cmd/pim-brokerd")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("building pim-brokerd: %w\n%s", err, out)
		}
	})
	return filepath.Join(built.dir, "pim-brokerd"), built.err
}

// TestStories runs one script a story, against real brokers and real ssh-agents on this machine.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			s := &stage{t: t, work: env.WorkDir, seats: map[string]*stagedSeat{}, keys: filepath.Join(env.WorkDir, "dev", "keys")}
			env.Values[stageKey{}] = s
			env.Defer(s.strike)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"as": onStage((*stage).as), "broker": onStage((*stage).broker), "exits": exits, "eventually": eventually,
			"firstline": firstLine, "enrol": onStage((*stage).enrol), "sshd": onStage((*stage).sshd), "keyfile": onStage((*stage).keyfile),
			"interrupt": interrupt, "id": firstID, "agekey": ageKey,
			"revise": onStage((*stage).revise), "phone": onStage((*stage).phone), "token": onStage((*stage).token), "overtake": onStage((*stage).overtake), "code": onStage((*stage).code),
		},
	})
}

type stageKey struct{}

// stage is what one script plays on: people at their desks, a broker, perhaps an sshd.
type stage struct {
	work  string
	keys  string // a directory with everybody's private key
	seats map[string]*stagedSeat
	stops []func()
	dev   *exec.Cmd
	seeds map[string][]byte // what people's phones hold
	t     *testing.T
}

type stagedSeat struct{ socket string }

func onStage(do func(*stage, *testscript.TestScript, bool, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		do(ts.Value(stageKey{}).(*stage), ts, neg, args)
	}
}

// strike ends everything the script started, the last first.
func (s *stage) strike() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
}

// keyfile PERSON... makes keys for a script that needs no broker.
func (s *stage) keyfile(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.MkdirAll(s.keys, 0o700))
	for _, person := range args {
		ts.Check(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", filepath.Join(s.keys, person)).Run())
		public, err := os.ReadFile(filepath.Join(s.keys, person+".pub"))
		ts.Check(err)
		ts.Setenv("KEY_"+person, strings.TrimSpace(string(public)))
	}
	ts.Setenv("KEYS", s.keys)
}

// as PERSON sits down at the person's desk: own directories, an ssh-agent that holds their key, and, once there is
// a deployment, joined. `as PERSON -` brings no ssh-agent.
func (s *stage) as(ts *testscript.TestScript, _ bool, args []string) {
	person := args[0]
	dir := filepath.Join(s.work, person)
	for _, sub := range []string{"home", "run"} {
		ts.Check(os.MkdirAll(filepath.Join(dir, sub), 0o700))
	}
	for key, value := range seatEnvironment(dir) {
		ts.Setenv(key, value)
	}
	if len(args) > 1 {
		ts.Setenv("SSH_AUTH_SOCK", "")
		return
	}
	seat, seated := s.seats[person]
	if !seated {
		seat = &stagedSeat{socket: s.sshAgent(ts, person)}
		s.seats[person] = seat
	}
	ts.Setenv("SSH_AUTH_SOCK", seat.socket)
	if chain := filepath.Join(s.work, "dev", "chain"); !seated && exists(chain) {
		ts.Check(ts.Exec("pim-ssh", "join", chain))
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *stage) sshAgent(ts *testscript.TestScript, person string) string {
	data, err := os.ReadFile(filepath.Join(s.keys, person))
	ts.Check(err)
	parsed, err := ssh.ParseRawPrivateKey(data)
	ts.Check(err)
	dir, err := os.MkdirTemp("", "pim-agent")
	ts.Check(err)
	socket, stop, err := runSSHAgent(dir, *parsed.(*ed25519.PrivateKey))
	ts.Check(err)
	s.stops = append(s.stops, func() {
		stop()
		os.RemoveAll(dir)
	})
	return socket
}

// broker [stop] starts a deployment of one broker (pim-brokerd dev), the same one again after `broker stop`.
func (s *stage) broker(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) > 0 && args[0] == "stop" {
		s.dev.Process.Signal(syscall.SIGTERM)
		s.dev.Wait()
		return
	}
	program, err := brokerd()
	ts.Check(err)
	ts.Setenv("BROKERD", program)
	dir := filepath.Join(s.work, "dev")
	ts.Check(os.MkdirAll(dir, 0o700))
	os.Remove(filepath.Join(dir, "ready"))
	var said bytes.Buffer
	s.dev = exec.Command(program, "dev", "--dir", dir)
	s.dev.Stdout, s.dev.Stderr = &said, &said
	ts.Check(s.dev.Start())
	dev := s.dev
	s.stops = append(s.stops, func() {
		dev.Process.Kill()
		dev.Wait()
	})
	if err := soon(func() bool { return exists(filepath.Join(dir, "ready")) }); err != nil {
		s.strike()
		ts.Fatalf("pim-brokerd dev: %v\n%s", err, said.String())
	}
	ts.Setenv("KEYS", s.keys)
	ts.Setenv("CHAIN", filepath.Join(dir, "chain"))
	ts.Setenv("DEV", dir)
}

var errNever = errors.New("it did not happen in time")

// soon polls for something that another program does.
func soon(happened func() bool) error {
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !happened() {
		select {
		case <-deadline:
			return errNever
		case <-again.C:
		}
	}
	return nil
}

// exits CODE COMMAND ARG... runs a command that must exit with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var ended *exec.ExitError
	got := 0
	if errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit %d, want %d", got, want)
	}
}

// eventually PATTERN COMMAND ARG... runs the command until its stdout contains the pattern.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	err := soon(func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && strings.Contains(ts.ReadFile("stdout"), args[0])
	})
	if err != nil {
		ts.Fatalf("%q: %v", args[0], err)
	}
}

// firstline NAME keeps the first line of the last stdout, or of a file, in a variable.
func firstLine(ts *testscript.TestScript, _ bool, args []string) {
	from := "stdout"
	if len(args) > 1 {
		from = args[1]
	}
	line, _, _ := strings.Cut(ts.ReadFile(from), "\n")
	ts.Setenv(args[0], line)
}

var anyID = regexp.MustCompile(`[rg]-[a-z2-7]{26}`)

// id NAME FILE keeps the first id in a file in a variable.
func firstID(ts *testscript.TestScript, _ bool, args []string) {
	found := anyID.FindString(ts.ReadFile(args[1]))
	if found == "" {
		ts.Fatalf("no id in %s", args[1])
	}
	ts.Setenv(args[0], found)
}

// interrupt sends Ctrl-C to everything the script runs in the background.
func interrupt(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(os.Interrupt))
	}
}

// freePort is a TCP port on loopback that nobody listened on a moment ago.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}
