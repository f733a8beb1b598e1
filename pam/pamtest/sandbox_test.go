package pamtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The people and accounts of every sandbox.
const (
	aliceUID    = 61001
	malloryUID  = 61002
	postgresUID = 61010
)

// pg2 is postgres by another name, toor is root by another name.
const passwd = `root:x:0:0:root:/root:/bin/sh
toor:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
sshd:x:61099:65534::/run/sshd:/usr/sbin/nologin
alice:x:61001:61001::/:/bin/sh
mallory:x:61002:61001::/:/bin/sh
postgres:x:61010:61001::/:/bin/sh
pg2:x:61010:61001::/:/bin/sh
a-name-of-more-than-thirty-two-bytes:x:61011:61001::/:/bin/sh
.hidden:x:61012:61001::/:/bin/sh
`

const group = "root:x:0:\nsudo:x:27:\nnogroup:x:65534:\npeople:x:61001:\nutmp:x:43:\ntty:x:5:\nshadow:x:42:\n"

// secret is crypt(3) of "secret", so that su and login can be tried.
const secret = "$6$pim$mNV/T3NxMPIs4I2IcdFZx4p8Vj.j.nHiuLVjUWL.fh09V/mdjcZu0WoV8KrlRjRUVXbOFM.Ei6/H08U1dhimJ1"

// sandbox is a mount and PID namespace in which /etc, /var/lib, /run and the
// PAM modules are ours to write. When the test, or the whole test program,
// ends, the kernel kills what runs inside and the mounts are gone.
type sandbox struct {
	t    testing.TB
	init int // pid of its first process, as seen from here
}

const sandboxScript = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs "$1"
for d in etc var/lib var/cache/debconf usr/share/pam-configs "$2"; do
	mkdir -p "$1/up/$d" "$1/work/$d"
	mount -t overlay -o "lowerdir=/$d,upperdir=$1/up/$d,workdir=$1/work/$d" overlay "/$d"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/pim-ssh
umount -l "$1"
echo ready
exec cat
`

// newSandbox starts one with the accounts above, and ends it with the test.
func newSandbox(t testing.TB) *sandbox {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests drive real sudo and sshd in namespaces of their own and need root; next: sudo go test ./pam/pamtest")
	}
	cmd := exec.Command("sh", "-c", sandboxScript, "sandbox", t.TempDir(), strings.TrimPrefix(securityDir(t), "/"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe() // its end is the sandbox's end
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
	t.Cleanup(func() {
		hold.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the sandbox said %q (%v)", line, err)
	}
	s := &sandbox{t: t, init: cmd.Process.Pid}
	s.write("/etc/passwd", passwd, 0o644)
	s.write("/etc/group", group, 0o644)
	s.write("/etc/shadow", shadow(""), 0o600)
	s.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\nsudoers: files\n", 0o644)
	return s
}

// securityDir is where this machine's libpam looks for modules.
func securityDir(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/security/pam_unix.so")
	if err != nil || len(found) != 1 {
		t.Fatalf("pam_unix.so: found %q (%v)", found, err)
	}
	return filepath.Dir(found[0])
}

// shadow has everyone's password as "secret", but expired for the one named.
func shadow(expired string) string {
	var b strings.Builder
	for line := range strings.Lines(passwd) {
		name, _, _ := strings.Cut(line, ":")
		last := "20000"
		if name == expired {
			last = "0"
		}
		fmt.Fprintf(&b, "%s:%s:%s:0:99999:7:::\n", name, secret, last)
	}
	return b.String()
}

// path is where a file of the sandbox is found from outside.
func (s *sandbox) path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(s.init), "root", inside)
}

func (s *sandbox) write(path, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(path)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(path), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(s.path(path), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sandbox) read(path string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.path(path))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// enforce makes the host enforce over the accounts named.
func (s *sandbox) enforce(governed ...string) {
	s.t.Helper()
	if err := os.MkdirAll(s.path("/var/lib/pim-ssh/enforcing"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range governed {
		s.write("/var/lib/pim-ssh/enforcing/"+name, "", 0o644)
	}
}

// command is args run inside; its context ends it with the test.
func (s *sandbox) command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(s.init), "-m", "-p", "--wd=/", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	return cmd
}

// outcome is how a command ended.
type outcome struct {
	code   int
	out    string // standard output and error together
	lasted time.Duration
}

// as runs args inside as a person, all of whose uids are uid, and waits.
func (s *sandbox) as(uid int, args ...string) outcome {
	s.t.Helper()
	id := strconv.Itoa(uid)
	return s.run(append([]string{"setpriv", "--reuid=" + id, "--regid=61001", "--clear-groups"}, args...)...)
}

// run runs args inside as root and waits, 20 s at most.
func (s *sandbox) run(args ...string) outcome {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := s.command(ctx, args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	start := time.Now()
	err := cmd.Run()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		s.t.Fatalf("%q did not run to its end: %v, %v", args, err, ctx.Err())
	}
	return outcome{cmd.ProcessState.ExitCode(), b.String(), time.Since(start)}
}
