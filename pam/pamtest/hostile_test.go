package pamtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/pam/wire"
)

// sudoByAlice is the conversation an attacker would bend first.
func sudoByAlice(st stack) conversation {
	return conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Calls: "A"}
}

func TestSquattedOrForeignSocketIsRefused(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	for sentence, c := range map[string]struct {
		lay  func(t *testing.T, st stack)
		want string
	}{
		"root listens in root's directory": {func(t *testing.T, st stack) { listen(t, st.socket, allowing) }, "success"},
		"another uid listens":              {func(t *testing.T, st stack) { listenAs(t, st.socket, malloryUID, allowing) }, denied},
		"the directory is another's": {func(t *testing.T, st stack) {
			listen(t, st.socket, allowing)
			must(t, os.Chown(filepath.Dir(st.socket), malloryUID, 0))
		}, denied},
		"the directory is group-writable": {func(t *testing.T, st stack) {
			listen(t, st.socket, allowing)
			must(t, os.Chmod(filepath.Dir(st.socket), 0o775))
		}, denied},
		"the directory is world-writable, sticky or not": {func(t *testing.T, st stack) {
			listen(t, st.socket, allowing)
			must(t, os.Chmod(filepath.Dir(st.socket), 0o777|os.ModeSticky))
		}, denied},
		"the directory is a link": {func(t *testing.T, st stack) {
			real := filepath.Join(t.TempDir(), "real")
			must(t, os.Mkdir(real, 0o755))
			listen(t, filepath.Join(real, "pam.sock"), allowing)
			must(t, os.Remove(filepath.Dir(st.socket)))
			must(t, os.Symlink(real, filepath.Dir(st.socket)))
		}, denied},
		"nobody listens": {func(*testing.T, stack) {}, denied},
		"a file lies there": {func(t *testing.T, st stack) {
			must(t, os.WriteFile(st.socket, good, 0o600))
		}, denied},
		"a socket without a listener": {func(t *testing.T, st stack) {
			fd, err := bound(st.socket)
			must(t, err)
			must(t, syscall.Close(fd))
		}, denied},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			c.lay(t, st)
			got := st.hold(sudoByAlice(st))
			if got.Results["account"] != c.want || got.Lasted["account"] > time.Second {
				t.Errorf("%s after %v, want %s at once", got.Results["account"], got.Lasted["account"], c.want)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFullBacklogIsARefusalWithinTwoSeconds(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	st := newStack(s, t, module, []string{})
	fd, err := bound(st.socket)
	must(t, err)
	defer syscall.Close(fd)
	must(t, syscall.Listen(fd, 0))
	waiting, err := net.Dial("unix", st.socket) // nobody accepts: the queue is full
	must(t, err)
	defer waiting.Close()
	got := st.hold(sudoByAlice(st))
	if got.Results["account"] != denied || got.Lasted["account"] > 2*time.Second {
		t.Errorf("%s after %v", got.Results["account"], got.Lasted["account"])
	}
}

func TestWhatAHostileCallerMayChangeChangesNothing(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	env := []string{"LANG=tr_TR.UTF-8", "LC_ALL=../../tmp", "TZ=:/etc/shadow", "HOME=/tmp", "TMPDIR=/tmp", "MALLOC_ARENA_MAX=x",
		"NLSPATH=/tmp/%N", "PIM_SOCKET=/tmp/evil", "SSH_AUTH_INFO_0=publickey x", "USER=root", "SUDO_USER=root"}
	type change func(*conversation)
	for sentence, c := range map[string]struct {
		change        change
		account, open string // with a willing agent; an unwilling one always refuses
	}{
		"a hostile environment":             {func(c *conversation) { c.Env = env }, "success", "success"},
		"descriptors 0, 1 and 2 closed":     {func(c *conversation) { c.CloseLow = true }, "success", "success"},
		"a signal every millisecond":        {func(c *conversation) { c.Signals = true }, "success", "success"},
		"no descriptor to be had":           {func(c *conversation) { c.Files = 3 }, denied, denied},
		"none, with 0, 1 and 2 closed":      {func(c *conversation) { c.Files, c.CloseLow = 3, true }, denied, denied},
		"one, and it is descriptor 0":       {func(c *conversation) { c.Files, c.CloseLow = 1, true }, denied, denied},
		"a caller's name that is a command": {func(c *conversation) { c.RUser = "$(id)`id`;id\n%s%n" }, "success", "success"},
		"a certificate of 16 KiB":           {func(c *conversation) { c.Auth = strings.Repeat("x", 16384) }, "success", denied},
		"a certificate of 60 kB":            {func(c *conversation) { c.Auth = strings.Repeat("x", 60000) }, "success", denied},
		"a terminal of 16 KiB":              {func(c *conversation) { c.TTY = strings.Repeat("x", 16384) }, denied, denied},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			verdicts := func(do script) map[string]string {
				st := newStack(s, t, module, []string{})
				listen(t, st.socket, after(100*time.Millisecond, do))
				conv := sudoByAlice(st)
				conv.Calls = "AO"
				c.change(&conv)
				got := st.hold(conv).Results
				for call, verdict := range got {
					if verdict == "System error" { // libpam's audit record fails first; a refusal too
						got[call] = denied
					}
				}
				return got
			}
			if diff := cmp.Diff(says("account", c.account, "open", c.open), verdicts(allowing)); diff != "" {
				t.Errorf("a willing agent (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(says("account", denied, "open", denied), verdicts(denying)); diff != "" {
				t.Errorf("an unwilling agent (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSignalsDoNotPutTheDeadlineOff(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	st := newStack(s, t, module, []string{})
	listen(t, st.socket, silent)
	conv := sudoByAlice(st)
	conv.Signals = true
	got := st.hold(conv)
	if lasted := got.Lasted["account"]; got.Results["account"] != denied || lasted < 700*time.Millisecond || lasted > 2*time.Second {
		t.Errorf("%s after %v, want %s after about 0.8 s", got.Results["account"], lasted, denied)
	}
}

func TestCallerStoppedOverTheDeadlineIsRefused(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	st := newStack(s, t, module, []string{})
	var p *peer
	ready := make(chan struct{})
	p = listen(t, st.socket, func(c *net.UnixConn, _ wire.Question) {
		<-ready
		pid := int(p.questions()[0].pid)
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
		_ = wire.WriteAnswer(c, wire.Answer{Allow: true, Seconds: 9})
		<-time.After(1000 * time.Millisecond)
		must(t, syscall.Kill(parent(t, pid), syscall.SIGCONT)) // nsenter stops with its child
		must(t, syscall.Kill(pid, syscall.SIGCONT))
	})
	close(ready)
	if got := st.hold(sudoByAlice(st)); got.Results["account"] != denied {
		t.Errorf("an allowance read late gave %s", got.Results["account"])
	}
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	var ppid int
	_, rest, _ := strings.Cut(string(b), ") ")
	_, err = fmt.Sscanf(rest, "%s %d", new(string), &ppid)
	must(t, err)
	return ppid
}

func TestStateThatCannotBeReadIsEnforced(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	for sentence, lay := range map[string]func(t *testing.T, st stack) string{
		"a loop of links": func(t *testing.T, st stack) string {
			must(t, os.Symlink("loop", filepath.Join(filepath.Dir(st.state), "loop")))
			return filepath.Join(filepath.Dir(st.state), "loop", "enforcing")
		},
		"a name too long": func(*testing.T, stack) string { return "/" + strings.Repeat("x", 300) },
		"a file on the way": func(t *testing.T, st stack) string {
			must(t, os.WriteFile(st.state, nil, 0o644))
			return filepath.Join(st.state, "enforcing")
		},
		"a link to nothing": func(t *testing.T, st stack) string {
			must(t, os.Symlink("/nonexistent", st.state))
			return st.state
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, nil)
			st.line(t, module+" socket="+st.socket+" state="+lay(t, st))
			for _, c := range []conversation{by("sudo", "alice", aliceUID, "A"), by("sshd", "postgres", 0, "A")} {
				c.ConfDir = st.conf
				if got := st.hold(c); got.Results["account"] != denied {
					t.Errorf("%s: %s, want %s", c.Service, got.Results["account"], denied)
				}
			}
		})
	}
}

func TestModuleArgumentNobodyDefinedRefuses(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	st := newStack(s, t, module, nil)
	for _, arg := range []string{"insde", "socket", "STATE=/x", "debug"} {
		st.line(t, module+" "+arg)
		got := st.hold(conversation{Service: "cron", User: "root", ConfDir: st.conf, Calls: "AO"})
		if diff := cmp.Diff(says("account", denied, "open", denied), got.Results); diff != "" {
			t.Errorf("%q (-want +got):\n%s", arg, diff)
		}
	}
}

func TestAuthLineNamingTheModuleFails(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	s.write("/etc/pam.d/su", "auth sufficient "+module+"\nauth required pam_deny.so\naccount required pam_permit.so\n", 0o644)
	if got := s.as(aliceUID, "su", "postgres", "-c", "id"); got.code == 0 {
		t.Errorf("su let alice in by an auth line: %s", got.out)
	}
}

func TestModuleUnderSanitizers(t *testing.T) {
	s := newSandbox(t)
	module, err := Build(t.TempDir(), Module(), Sanitized)
	must(t, err)
	asan, err := exec.Command("gcc", "-print-file-name=libasan.so").Output()
	must(t, err)
	for sentence, c := range map[string]struct {
		do   script
		want string
	}{
		"allowed":            {answering(wire.Answer{Allow: true, Text: strings.Repeat("ü", 300)}), "success"},
		"refused":            {denying, denied},
		"garbage":            {sending([]byte(strings.Repeat("\xff", 4096))), denied},
		"the longest answer": {sending(frame("PIM1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xef\x03" + strings.Repeat("\xe6", 1007))), denied},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			listen(t, st.socket, c.do)
			conv := sudoByAlice(st)
			conv.Calls, conv.Preload, conv.Auth = "AOC", strings.TrimSpace(string(asan)), strings.Repeat("t", 9000)
			conv.Env = []string{"ASAN_OPTIONS=detect_leaks=0"} // Go's own heap is not ASan's to judge
			got := st.hold(conv)
			// After a refused open libpam repeats open's verdict for close, whatever the module says.
			if diff := cmp.Diff(says("account", c.want, "open", c.want, "close", c.want), got.Results); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
			if got.stderr != "" || got.code != 0 {
				t.Errorf("exit %d, stderr:\n%s", got.code, got.stderr)
			}
		})
	}
}
