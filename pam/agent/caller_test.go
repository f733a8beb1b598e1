package agent

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pim-ssh/pam/wire"
)

// callerEnv makes this test binary one caller of the agent: its value is "REAL EFFECTIVE", the uids it takes.
const callerEnv = "PIM_TEST_CALLER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		if err := beWriter(dir); err != nil {
			panic(err)
		}
		return
	}
	if uids := os.Getenv(callerEnv); uids != "" {
		if err := beCaller(uids); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beCaller takes its uids as a setuid program has them, and then asks what its parent writes: lines of socket and question.
// The last connection stays open: "line" and a question say that on it, "hang up" closes it.
func beCaller(uids string) error {
	var real, effective int
	if _, err := fmt.Sscan(uids, &real, &effective); err != nil {
		return err
	}
	if err := syscall.Setreuid(real, effective); err != nil {
		return err
	}
	fmt.Println("ready")
	var line net.Conn
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		socket, question, _ := strings.Cut(lines.Text(), " ")
		q, err := hex.DecodeString(question)
		var answer []byte
		switch {
		case socket == "hang":
			err = line.Close()
		case err != nil:
		case socket == "line":
			_, err = line.Write(q)
		default:
			if line != nil {
				_ = line.Close()
			}
			line, answer, err = ask(socket, q)
		}
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println(hex.EncodeToString(answer))
	}
	return nil
}

// ask returns the connection still open.
func ask(socket string, question []byte) (net.Conn, []byte, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Write(question); err != nil {
		return conn, nil, err
	}
	answer, err := io.ReadAll(conn)
	return conn, answer, err
}

func askOnce(socket, question string) ([]byte, error) {
	q, err := hex.DecodeString(question)
	if err != nil {
		return nil, err
	}
	conn, answer, err := ask(socket, q)
	if conn != nil {
		_ = conn.Close()
	}
	return answer, err
}

// caller is such a process.
type callerProcess struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// newCaller starts a process with these uids; it ends with the test.
func newCaller(t testing.TB, real, effective int) *callerProcess {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{callerEnv + "=" + strconv.Itoa(real) + " " + strconv.Itoa(effective)}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c := &callerProcess{t, cmd, in, bufio.NewReader(out)}
	if line := c.line(); line != "ready" {
		t.Fatalf("caller: %s", line)
	}
	return c
}

func (c *callerProcess) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("caller: %v", err)
	}
	return strings.TrimSpace(line)
}

// say asks and returns the answer; no answer at all is a denial, as the C side reads it.
func (c *callerProcess) say(socket string, q wire.Question) wire.Answer {
	c.t.Helper()
	data, err := wire.EncodeQuestion(q)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c.in, "%s %x\n", socket, data); err != nil {
		c.t.Fatal(err)
	}
	data, err = hex.DecodeString(c.line())
	if err != nil {
		return wire.Answer{}
	}
	answer, err := wire.DecodeAnswer(data)
	if err != nil {
		return wire.Answer{}
	}
	return answer
}

// begin says on the caller's last connection that a session has begun.
func (c *callerProcess) begin(as string) { c.say("line", &wire.Begun{User: as}) }

// hangUp closes the caller's last connection.
func (c *callerProcess) hangUp() {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, "hang up"); err != nil {
		c.t.Fatal(err)
	}
	c.line()
}

// cgroups is where the process lives.
func (c *callerProcess) cgroups() string {
	c.t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/cgroup")
	if err != nil {
		return "gone"
	}
	return string(data)
}

func (c *callerProcess) dead() bool { return c.cgroups() == "gone" || c.zombie() }

func (c *callerProcess) zombie() bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/stat")
	return err != nil || strings.Contains(string(data), ") Z ")
}

// serving is an agent that answers on real sockets.
type serving struct {
	*Agent
	m               *machine
	pam, principals string
	stop            func() // ends the agent and gives its lock back
}

// serve starts the machine's agent for the length of the test.
func (m *machine) serve() *serving {
	m.t.Helper()
	return m.run(m.start())
}

// run has an agent answer on real sockets for the length of the test.
func (m *machine) run(a *Agent) *serving {
	m.t.Helper()
	dir, err := os.MkdirTemp("", "pim")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &serving{Agent: a, m: m, pam: filepath.Join(dir, "pam.sock"), principals: filepath.Join(dir, "principals.sock")}
	sockets, err := ListenOwn(s.pam, s.principals, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := contextOf(m.t)
	go func() { done <- a.Run(ctx, sockets) }()
	s.stop = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			m.t.Errorf("agent: %v", err)
		}
		_ = a.Close()
	})
	m.t.Cleanup(s.stop)
	return s
}

// settled waits until the keeper has seen everything that was fed.
func (s *serving) settled() {
	s.m.t.Helper()
	rounds := func() uint64 { s.Agent.settled.L.Lock(); defer s.Agent.settled.L.Unlock(); return s.rounds }
	from := rounds()
	poke(s.wake)
	waitFor(s.m.t, "two rounds of the keeper", func() bool { poke(s.wake); return rounds() >= from+2 })
}

// read has the agent read its spool, and waits until that has had its effect.
func (s *serving) read() {
	s.m.t.Helper()
	n := strings.Count(s.m.log.String(), `msg="spool read"`)
	s.Reload()
	waitFor(s.m.t, "the spool read", func() bool { return strings.Count(s.m.log.String(), `msg="spool read"`) > n })
	s.settled()
}
