//go:build lab

package lab

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/packaging/lab/labtest"
)

func TestLabVerbs(t *testing.T) {
	t.Parallel()
	l := labtest.Up(t, "--bare", "--hosts", "3")

	t.Run("a command's output, exit code, arguments and input are its own", func(t *testing.T) {
		for _, code := range []int{0, 1, 7, 126, 255} {
			l.Exec(t, "db1", "sh", "-c", "exit $1", "sh", strconv.Itoa(code)).Want(t, code)
		}
		l.Exec(t, "db1", "sh", "-c", "kill -9 $$").Want(t, 137)
		l.Exec(t, "db1", "no-such-program").Want(t, 127)
		awkward := []string{"$HOME", "${x}", "%h", "a b", "", "*", `"'\`, "\xff\n"}
		got := l.As(t, "alice", append([]string{"printf", `%s\0`}, awkward...)...).Want(t, 0)
		if diff := cmp.Diff(strings.Join(awkward, "\x00")+"\x00", got.Out); diff != "" {
			t.Errorf("arguments (-want +got):\n%s", diff)
		}
		got = l.Exec(t, "db1", "sh", "-c", "echo out; echo err >&2")
		if got.Out != "out\n" || got.Err != "err\n" {
			t.Errorf("out %q, err %q", got.Out, got.Err)
		}
		noise := bytes.Repeat([]byte{0, 255, '\r', '\n', 27}, 100_000)
		l.Put(t, "db1", "/root/noise", 0o600, noise)
		if !bytes.Equal(l.Get(t, "db1", "/root/noise"), noise) {
			t.Error("a file did not come back as it went")
		}
	})

	t.Run("a terminal of its own, when asked for", func(t *testing.T) {
		l.Exec(t, "db1", "test", "-t", "0").Want(t, 1)
		got := l.Do(t, "as", "alice", "-t", "--", "sh", "-c", `test -t 0 && tty && echo "$1"`, "sh", `$x "y"`)
		if !strings.HasPrefix(got.Out, "/dev/pts/") || !strings.Contains(got.Out, `$x "y"`) {
			t.Errorf("%q", got.Out)
		}
		if code := l.Command("exec", "db1", "-t", "--", "sh", "-c", "exit 5").Run(); code == nil || code.Error() != "exit status 5" {
			t.Errorf("%v, want exit status 5", code)
		}
	})

	t.Run("people have their account, keys and ssh-agent on desk, and log in everywhere unprivileged", func(t *testing.T) {
		for _, person := range []string{"alice", "erin", "bob", "carol", "gwen", "dave", "frank", "mallory"} {
			for _, host := range []string{"db1", "web1", "h3"} {
				got := l.As(t, person, "ssh", "-o", "BatchMode=yes", host, "id -un; hostname; sudo -n id").Want(t, 1)
				if want := person + "\n" + host + "\n"; got.Out != want {
					t.Errorf("%s on %s: %q, want %q", person, host, got.Out, want)
				}
			}
		}
		env := l.As(t, "alice", "sh", "-c", `echo $HOME $(stat -c %U:%a $XDG_RUNTIME_DIR) $(pwd) $(id -Gn); ssh-add -l | wc -l`).Want(t, 0).Out
		if want := "/home/alice alice:700 /home/alice alice\n1\n"; env != want {
			t.Errorf("alice's desk: %q, want %q", env, want)
		}
		l.As(t, "alice", "ssh", "-o", "BatchMode=yes", "postgres@db1", "true").Want(t, 255)
	})

	t.Run("a command runs inside the machine, with no more power than the machine has", func(t *testing.T) {
		here := l.Exec(t, "db1", "bash", "-c", "diff <(grep CapBnd /proc/1/status) <(grep CapBnd /proc/self/status) && tail -n 1 /proc/self/cgroup && cat /proc/sys/kernel/hostname").Want(t, 0).Out
		if want := "0::/system.slice/lab.service\ndb1\n"; here != want {
			t.Errorf("%q, want %q", here, want)
		}
	})

	t.Run("cut takes the network and nothing else; heal gives it back", func(t *testing.T) {
		l.Cut(t, "db1")
		ssh := []string{"ssh", "-o", "ConnectTimeout=1", "alice@db1", "true"}
		l.As(t, "alice", ssh...).Want(t, 255)
		l.Exec(t, "db1", "true").Want(t, 0)
		l.As(t, "alice", "ssh", "alice@web1", "true").Want(t, 0)
		l.Heal(t, "db1")
		l.As(t, "alice", ssh...).Want(t, 0)
	})

	t.Run("cut --to loses what goes one way, between those two alone", func(t *testing.T) {
		listener := l.BeginLab(t, "exec", "db1", "--", "perl", "-MSocket", "-e", `socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(999, INADDR_ANY)); $| = 1;
			print "listens\n"; while (recv(S, $m, 99, 0)) { print $m }`)
		listener.Expect(t, "listens", 10*time.Second)
		say := func(machine, word string) {
			l.Exec(t, machine, "perl", "-MSocket", "-e", `socket(S, PF_INET, SOCK_DGRAM, 0); send(S, "$ARGV[0]\n", 0, sockaddr_in(999, inet_aton("db1")))`, word).Want(t, 0)
		}
		l.CutTo(t, "web1", "db1")
		say("web1", "lost")
		say("h3", "from h3")
		listener.Expect(t, "from h3", 10*time.Second)
		l.As(t, "alice", "ssh", "alice@web1", "true").Want(t, 0)
		l.Heal(t, "web1")
		say("web1", "from web1")
		listener.Expect(t, "from web1", 10*time.Second)
		if said := listener.Output(); strings.Contains(said, "lost") {
			t.Errorf("db1 heard %q", said)
		}
	})

	t.Run("a machine that lost its power keeps its disk and comes back", func(t *testing.T) {
		l.Put(t, "db1", "/etc/kept", 0o644, []byte("kept"))
		open := l.Begin(t, "alice", "ssh", "alice@db1")
		open.Type(t, "echo I am on $(hostname)")
		open.Expect(t, "I am on db1", 10*time.Second)
		l.KillMachine(t, "db1")
		l.Exec(t, "db1", "true").Want(t, 1)
		l.Start(t, "db1")
		if got := l.Get(t, "db1", "/etc/kept"); string(got) != "kept" {
			t.Errorf("the disk says %q", got)
		}
		l.As(t, "alice", "ssh", "alice@db1", "true").Want(t, 0)
	})

	t.Run("a daemon that was killed stays dead until start", func(t *testing.T) {
		unit := "[Service]\nExecStart=/usr/bin/sleep infinity\nRestart=always\nRestartSec=0\n"
		l.Put(t, "db1", "/usr/lib/systemd/system/pim-hostd.service", 0o644, []byte(unit))
		l.Exec(t, "db1", "systemctl", "start", "pim-hostd").Want(t, 0)
		l.Kill(t, "db1")
		if got := l.Exec(t, "db1", "systemctl", "is-active", "pim-hostd").Out; got == "active\n" {
			t.Errorf("the daemon is %s", got)
		}
		l.Exec(t, "db1", "systemctl", "start", "pim-hostd").Refused(t)
		l.Start(t, "db1")
		l.Exec(t, "db1", "systemctl", "is-active", "pim-hostd").Want(t, 0)
	})

	t.Run("what cannot be is said, with exit code 2", func(t *testing.T) {
		for _, args := range [][]string{{"as", "nobody", "--", "true"}, {"exec", "db9", "--", "true"}, {"exec", "../db1", "--", "true"}, {"cut"}, {"up", "--hots"}, {"fly"}} {
			cmd := l.Command(args...)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "lab: ") {
				t.Errorf("lab %q: %v\n%s", args, err, out)
			}
		}
	})

	t.Run("a command in a machine costs little", func(t *testing.T) {
		var took []time.Duration
		for range 50 {
			took = append(took, l.Exec(t, "db1", "true").Want(t, 0).Took)
		}
		slices.Sort(took)
		t.Logf("lab exec: median %v, worst %v", took[25], took[49])
	})
}
