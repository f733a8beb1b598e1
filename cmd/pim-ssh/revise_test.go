package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// revise FILE has dave, the steward, sign and publish the policy of `broker` with the roles of FILE added. In FILE, @3d@ is a moment
// three days from now; whatever number stands there. Whoever sits at a desk goes on sitting there.
func (s *stage) revise(ts *testscript.TestScript, _ bool, args []string) {
	before, err := os.ReadFile(filepath.Join(s.work, "dev", "policy.yaml"))
	ts.Check(err)
	roles := regexp.MustCompile(`@([0-9]+)d@`).ReplaceAllStringFunc(ts.ReadFile(args[0]), func(in string) string {
		days, err := strconv.Atoi(strings.Trim(in, "@d"))
		ts.Check(err)
		return time.Now().UTC().AddDate(0, 0, days).Format(time.RFC3339)
	})
	before = s.withTokens(ts, before)
	revised := filepath.Join(s.work, "revised.yaml")
	ts.Check(os.WriteFile(revised, append(before, roles...), 0o600))
	sitting := map[string]string{"SSH_AUTH_SOCK": ts.Getenv("SSH_AUTH_SOCK")}
	for key := range seatEnvironment("") {
		sitting[key] = ts.Getenv(key)
	}
	s.as(ts, false, []string{"dave"})
	ts.Check(ts.Exec("pim-ssh", "policy", "sign", revised, "--yes", "-o", filepath.Join(s.work, "revised.chain")))
	ts.Check(ts.Exec("pim-ssh", "policy", "apply", filepath.Join(s.work, "revised.chain")))
	for key, value := range sitting {
		ts.Setenv(key, value)
	}
}

// withTokens lists everybody's security key beside their plain one.
func (s *stage) withTokens(ts *testscript.TestScript, policy []byte) []byte {
	listed := regexp.MustCompile(`(?m)^  (alice|erin|bob|carol|gwen): \{keys: \["([^"]*)"\]\}$`)
	return listed.ReplaceAllFunc(policy, func(line []byte) []byte {
		person := string(listed.FindSubmatch(line)[1])
		public, err := statement.KeyOf(signtest.SecurityEd25519(person).PublicKey())
		ts.Check(err)
		return bytes.Replace(line, []byte(`"]}`), []byte(`", "`+string(public)+`"]}`), 1)
	})
}

// token PERSON [FLAGS] puts the person's security key into an ssh-agent beside their plain one: an agent that loads no certificates.
// Flags are what the key reports of its holder: `touched`, or both that and `verified`, which is what it does without them.
func (s *stage) token(ts *testscript.TestScript, _ bool, args []string) {
	key := signtest.SecurityEd25519(args[0])
	if len(args) > 1 && args[1] == "touched" {
		key = key.WithFlags(signtest.Presence)
	}
	data, err := os.ReadFile(filepath.Join(s.keys, args[0]))
	ts.Check(err)
	plain, err := ssh.ParsePrivateKey(data)
	ts.Check(err)
	ts.Setenv("SSH_AUTH_SOCK", signtest.Agent(s.t, plain, key))
}

// code NAME PERSON STEPS keeps the code of a person's phone in a variable: of the present step of 30 s, or of one so many away.
func (s *stage) code(ts *testscript.TestScript, _ bool, args []string) {
	away, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	ts.Setenv(args[0], codeOf(s.seeds[args[1]], time.Now().Unix()/30+away))
}

// codeOf is RFC 6238 as it stands there, so that our own is not its only witness.
func codeOf(seed []byte, step int64) string {
	mac := hmac.New(sha1.New, seed)
	binary.Write(mac, binary.BigEndian, step)
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 15
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:])&0x7fffffff%1000000)
}

// phone PERSON STEPS COMMAND ARG... runs a command on a terminal of its own, takes the secret that it shows into the person's
// phone, and types the code of so many steps away. What the terminal showed is in the file "terminal", what went to
// standard output in "printed", and to standard error in "said".
func (s *stage) phone(ts *testscript.TestScript, neg bool, args []string) {
	away, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	s.onTerminal(ts, neg, args[2:], "shows now: ", func(shown string) string {
		secret := shownSecret.FindStringSubmatch(shown)
		if secret == nil {
			ts.Fatalf("no secret is shown")
		}
		seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret[1])
		ts.Check(err)
		if s.seeds == nil {
			s.seeds = map[string][]byte{}
		}
		s.seeds[args[0]] = seed
		return codeOf(seed, time.Now().Unix()/30+away)
	})
}

var shownSecret = regexp.MustCompile(`secret=([A-Z2-7]+)`)

// overtake PERSON ID has whoever sits here read a request, somebody else approve it meanwhile, and the reader say yes then. The
// reader's command fails, and what it said is in the file "said".
func (s *stage) overtake(ts *testscript.TestScript, _ bool, args []string) {
	s.onTerminal(ts, true, []string{"pim-ssh", "approve", args[1]}, "[y/N] ", func(string) string {
		s.as(ts, false, args[:1])
		ts.Check(ts.Exec("pim-ssh", "approve", args[1], "--yes"))
		return "y"
	})
}

// onTerminal runs a command on a terminal of its own and answers the one question it asks there.
func (s *stage) onTerminal(ts *testscript.TestScript, fails bool, args []string, question string, answer func(shown string) string) {
	near, far, err := terminalPair()
	ts.Check(err)
	defer near.Close()
	program, err := lookIn(ts.Getenv("PATH"), args[0])
	ts.Check(err)
	var out, talk bytes.Buffer
	cmd := exec.Command(program, args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = far, &out, &talk, s.work
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	for _, name := range []string{"PATH", "HOME", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	ts.Check(cmd.Start())
	far.Close()
	shown := converse(near, question, answer)
	err = cmd.Wait()
	ts.Logf("[terminal]\n%s[stdout]\n%s[stderr]\n%s", shown, out.String(), talk.String())
	ts.Check(os.WriteFile(filepath.Join(s.work, "terminal"), []byte(shown), 0o600))
	ts.Check(os.WriteFile(filepath.Join(s.work, "printed"), out.Bytes(), 0o600))
	ts.Check(os.WriteFile(filepath.Join(s.work, "said"), talk.Bytes(), 0o600))
	if (err != nil) != fails {
		ts.Fatalf("%v: %v", args, err)
	}
}

// converse reads a terminal to its end, and answers the first time that the question is asked.
func converse(near *os.File, question string, answer func(shown string) string) string {
	var shown strings.Builder
	buffer := make([]byte, 4096)
	for answered := false; ; {
		n, err := near.Read(buffer)
		shown.Write(buffer[:n])
		if err != nil {
			return shown.String()
		}
		if !answered && strings.HasSuffix(shown.String(), question) {
			answered = true
			fmt.Fprintln(near, answer(shown.String()))
		}
	}
}

func lookIn(path, program string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if found := filepath.Join(dir, program); exists(found) {
			return found, nil
		}
	}
	return "", errors.New("no " + program)
}

// terminalPair is a pseudo-terminal: the near end is ours.
func terminalPair() (near, far *os.File, err error) {
	near, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(int(near.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(near.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	return near, far, err
}
