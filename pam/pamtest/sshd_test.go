package pamtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pim-ssh/pam/wire"
)

const principal = "pim-g-abcdefghijklmnopqrstuvwxy2"

const sshdConfig = `HostKey /etc/ssh/test_host_key
UsePAM yes
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
Subsystem sftp internal-sftp
AuthorizedKeysFile none
Match User alice
	AuthorizedKeysFile /etc/ssh/test_keys
Match User postgres,pg2,root
	TrustedUserCAKeys /etc/ssh/test_ca.pub
	AuthorizedPrincipalsCommand /etc/pim-test/pim-principals %u %t %k %K
	AuthorizedPrincipalsCommandUser pim-principals
`

var builtHelper = sync.OnceValues(func() (string, error) {
	return Build(builds, Principals("/run/pim-ssh/principals.sock"), Strict)
})

// loginHost is an installed sandbox with an sshd that governs postgres and root.
type loginHost struct {
	*sandbox
	keys string // directory of the client's key and certificate
}

func newLoginHost(t testing.TB) loginHost {
	t.Helper()
	h := loginHost{installed(t), t.TempDir()}
	h.enforce("postgres", "root")
	for _, args := range [][]string{
		{"-t", "ed25519", "-N", "", "-f", "host"}, {"-t", "ed25519", "-N", "", "-f", "ca"}, {"-t", "ed25519", "-N", "", "-f", "key"},
		{"-s", "ca", "-I", "test", "-n", principal, "-V", "+10m", "key.pub"},
	} {
		cmd := exec.Command("ssh-keygen", append([]string{"-q"}, args...)...)
		cmd.Dir = h.keys
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
		}
	}
	for from, to := range map[string]string{"host": "test_host_key", "ca.pub": "test_ca.pub", "key.pub": "test_keys"} {
		h.write("/etc/ssh/"+to, h.key(from), 0o644)
	}
	must(t, os.Chmod(h.path("/etc/ssh/test_host_key"), 0o600))
	h.write("/etc/ssh/test_config", sshdConfig, 0o600)
	helper, err := builtHelper()
	must(t, err)
	program, err := os.ReadFile(helper)
	must(t, err)
	h.write("/etc/pim-test/pim-principals", string(program), 0o755)
	h.write("/etc/passwd", passwd+"pim-principals:x:61050:61050::/:/usr/sbin/nologin\n", 0o644)
	return h
}

func (h loginHost) key(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.keys, name))
	must(h.t, err)
	return string(b)
}

// principals starts a peer where pim-principals looks for one.
func (h loginHost) principals(t testing.TB, do script) *peer {
	t.Helper()
	path := h.path("/run/pim-ssh/principals.sock")
	p := listen(t, path, do)
	must(t, os.Chown(path, 0, 61050))
	must(t, os.Chmod(path, 0o660))
	return p
}

// ssh logs in to an sshd of its own, which speaks over a pipe and ends with it.
// Options stand before the account, a command may follow it.
func (h loginHost) ssh(options []string, account string, command ...string) outcome {
	h.t.Helper()
	args := append([]string{"ssh", "-F", "none"}, options...)
	args = append(args, "-o", "ProxyCommand=/usr/sbin/sshd -i -f /etc/ssh/test_config -E /run/sshd.log", "-i", h.keys+"/key",
		"-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "BatchMode=yes", account+"@host")
	return h.run(append(args, command...)...)
}

// loginAndRun is the plainest login there is.
func (h loginHost) loginAndRun(account, command string) outcome {
	h.t.Helper()
	return h.ssh([]string{"-T"}, account, command)
}

func TestF4OpenHoldsTheWholeCertificateAndAccountDoesNot(t *testing.T) {
	h := newLoginHost(t)
	h.principals(t, answering(wire.Answer{Allow: true, Principal: principal}))
	p := h.agent(t, allowing)
	h.write("/etc/pam.d/sshd", "account optional pam_exec.so log=/run/account.env /usr/bin/env\n"+h.read("/etc/pam.d/sshd"), 0o644)
	if got := h.loginAndRun("postgres", "id -un"); got.code != 0 || got.out != "postgres\n" {
		t.Fatalf("exit %d: %s\n%s", got.code, got.out, h.read("/run/sshd.log"))
	}
	if env := h.read("/run/account.env"); !strings.Contains(env, "PAM_TYPE=account") || !strings.Contains(env, "SSH_AUTH_INFO_0=\n") {
		t.Errorf("PAM environment in account:\n%s", env)
	}
	kinds := p.await("A sshd, O sshd, C sshd")
	heard := p.questions()
	if len(heard) != 3 {
		t.Fatalf("asked %q", kinds)
	}
	open := heard[1].q.(*wire.Open)
	if want := "publickey " + strings.Join(strings.Fields(h.key("key-cert.pub"))[:2], " "); strings.TrimSpace(open.AuthInfo) != want {
		t.Errorf("auth info is %q, want %q", open.AuthInfo, want)
	}
	if open.User != "postgres" || open.RUser != "" || open.TTY != "ssh" {
		t.Errorf("open is %+v", open)
	}
	for i, q := range heard[:2] { // by the third it may be gone
		if q.uid != "0 0 0 0" || q.pid != heard[0].pid {
			t.Errorf("question %d came from pid %d with uids %q, want pid %d and root", i, q.pid, q.uid, heard[0].pid)
		}
	}
}

// TestF24TheAskingSshdIsAnAncestorOfTheSession: whoever moves the asking pid into
// a cgroup takes along all that the login starts.
func TestF24TheAskingSshdIsAnAncestorOfTheSession(t *testing.T) {
	h := newLoginHost(t)
	h.principals(t, answering(wire.Answer{Allow: true, Principal: principal}))
	p := h.agent(t, allowing)
	got := h.loginAndRun("postgres", ancestors)
	if asking := p.questions()[1].inner; !slices.Contains(strings.Fields(got.out), asking) {
		t.Errorf("pid %s asked, the session's ancestors are %q", asking, strings.Fields(got.out))
	}
}

func TestF19ExitInOpenSessionRefusesTheConnection(t *testing.T) {
	h := newLoginHost(t)
	h.principals(t, answering(wire.Answer{Allow: true, Principal: principal}))
	onlyAccount := func(c *net.UnixConn, q wire.Question) {
		_, account := q.(*wire.Account)
		_ = wire.WriteAnswer(c, wire.Answer{Allow: account})
	}
	for sentence, c := range map[string]struct{ options, command []string }{
		"a command":           {[]string{"-T"}, []string{"touch", "/dev/shm/pim-ran"}},
		"a shell":             {[]string{"-T"}, nil},
		"a shell with a pty":  {[]string{"-tt"}, nil},
		"no command at all":   {[]string{"-N"}, nil},
		"the sftp subsystem":  {[]string{"-s"}, []string{"sftp"}},
		"a forwarded channel": {[]string{"-N", "-L", "/run/forward:/run/x"}, nil},
		"a forward by stdio":  {[]string{"-W", greeter(t)}, nil},
		"a control master":    {[]string{"-N", "-M", "-S", "/run/master"}, nil},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := h.agent(t, onlyAccount)
			if got := h.ssh(c.options, "postgres", c.command...); got.code != 255 || got.lasted > 5*time.Second {
				t.Errorf("exit %d after %v: %s", got.code, got.lasted, got.out)
			}
			if p.kinds() != "A sshd, O sshd" {
				t.Errorf("asked %q", p.kinds())
			}
		})
	}
	if err := os.Remove("/dev/shm/pim-ran"); err == nil {
		t.Error("the command ran")
	}
}

// TestF3SshdGoesOnAfterAFailedOpenSession: FACTS read it in the source; what 9.2p1
// then does is keep the connection, end every command with 254 and refuse to
// forward. Our _exit (F19) does not lean on that.
func TestF3SshdGoesOnAfterAFailedOpenSession(t *testing.T) {
	h := newLoginHost(t)
	h.write("/etc/pam.d/common-session", "session required pam_deny.so\n", 0o644)
	if got := h.loginAndRun("alice", "id -un"); got.code != 254 || strings.Contains(got.out, "alice\n") {
		t.Errorf("a command: exit %d: %s", got.code, got.out)
	}
	if got := h.ssh([]string{"-W", greeter(t)}, "alice"); got.code != 255 || !strings.Contains(got.out, "stdio forwarding failed") {
		t.Errorf("a forward: exit %d: %s", got.code, got.out)
	}
}

// greeter is a TCP address of this machine that says hello.
func greeter(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello"))
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestGovernedLoginNeedsAnAllowanceAndOthersDoNot(t *testing.T) {
	h := newLoginHost(t)
	h.principals(t, answering(wire.Answer{Allow: true, Principal: principal}))
	for sentence, start := range map[string]func(t *testing.T){
		"refuses":  func(t *testing.T) { h.agent(t, denying) },
		"dead":     func(*testing.T) {},
		"stopped":  func(t *testing.T) { h.agent(t, silent) },
		"garbage":  func(t *testing.T) { h.agent(t, sending([]byte("\x00\xff garbage"))) },
		"a forger": func(t *testing.T) { listenAs(t, h.path("/run/pim-ssh/pam.sock"), malloryUID, allowing) },
	} {
		t.Run(sentence, func(t *testing.T) {
			start(t)
			plain := h.loginAndRun("alice", "id -un")
			if plain.code != 0 || plain.out != "alice\n" {
				t.Errorf("alice: exit %d after %v: %s", plain.code, plain.lasted, plain.out)
			}
			for _, account := range []string{"postgres", "pg2", "root"} {
				if got := h.loginAndRun(account, "id -un"); got.code != 255 || got.lasted > plain.lasted+2*time.Second {
					t.Errorf("%s: exit %d after %v: %s", account, got.code, got.lasted, got.out)
				}
			}
		})
	}
}

func TestRefusedLoginTellsThePersonWhy(t *testing.T) {
	h := newLoginHost(t)
	h.principals(t, answering(wire.Answer{Allow: true, Principal: principal}))
	h.agent(t, denying)
	if got := h.ssh([]string{"-o", "LogLevel=INFO"}, "postgres", "id"); !strings.Contains(got.out, "no grant here; next: pim-ssh request") {
		t.Errorf("exit %d: %s", got.code, got.out)
	}
}

func TestObservingHostLetsEveryLoginOn(t *testing.T) {
	h := newLoginHost(t)
	must(t, os.RemoveAll(h.path("/var/lib/pim-ssh/enforcing")))
	h.principals(t, answering(wire.Answer{Allow: true, Principal: principal}))
	p := h.agent(t, denying)
	for _, account := range []string{"postgres", "alice"} {
		if got := h.loginAndRun(account, "id -un"); got.code != 0 || got.out != account+"\n" {
			t.Errorf("%s: exit %d: %s", account, got.code, got.out)
		}
	}
	if !strings.HasPrefix(p.kinds(), "A sshd, O sshd, ") || strings.Count(p.kinds(), "A sshd, O sshd") != 2 {
		t.Errorf("the agent heard %q", p.kinds())
	}
}
