//go:build lab

package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/packaging/lab/labtest"
)

func TestLabLeavesNothing(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T, lab func(args ...string) *exec.Cmd){
		"up and down": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			must(t, lab("up", "--bare"))
			must(t, lab("down"))
		},
		"down alone": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			must(t, lab("down"))
		},
		"up twice: the second says so and changes nothing": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			must(t, lab("up", "--bare"))
			before := must(t, lab("status", "-o", "json"))
			said := must(t, lab("up", "--bare", "--hosts", "3"))
			if !strings.Contains(said, "up already") || must(t, lab("status", "-o", "json")) != before {
				t.Errorf("the second up said %q", said)
			}
			must(t, lab("down"))
		},
		"a machine off, one cut, commands running": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			must(t, lab("up", "--bare"))
			must(t, lab("kill", "web1", "--machine"))
			must(t, lab("cut", "db1"))
			background := lab("exec", "db1", "--", "sh", "-c", "setsid sleep 1000 & trap '' TERM HUP INT; sleep 1000")
			if err := background.Start(); err != nil {
				t.Fatal(err)
			}
			must(t, lab("down"))
			if err := background.Wait(); err == nil {
				t.Error("a command outlived its machine")
			}
		},
		"up that cannot succeed": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			if out, err := lab("up", "--bare", "--hybrid", "db7").CombinedOutput(); err == nil {
				t.Errorf("up succeeded:\n%s", out)
			}
		},
		"kill -9 in the middle of up, then down": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			for _, after := range moments {
				interrupt(t, lab("up", "--bare"), after, syscall.SIGKILL)
				must(t, lab("down"))
			}
		},
		"kill -9 in the middle of up, then up again": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			interrupt(t, lab("up", "--bare"), 400*time.Millisecond, syscall.SIGKILL)
			must(t, lab("up", "--bare"))
			must(t, lab("exec", "db1", "--", "true"))
			must(t, lab("down"))
		},
		"down while another up is under way": func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			up := lab("up", "--bare")
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(400*time.Millisecond, func() { _ = lab("down").Run() })
			if err := up.Wait(); err == nil {
				t.Error("up says it succeeded")
			}
			must(t, lab("down"))
		},
	}
	for _, after := range moments {
		cases[fmt.Sprintf("Ctrl-C %v into up", after)] = func(t *testing.T, lab func(args ...string) *exec.Cmd) {
			if code := interrupt(t, lab("up", "--bare"), after, syscall.SIGINT); code == 0 {
				t.Error("up says it succeeded")
			}
		}
	}
	for what, live := range cases {
		t.Run(what, func(t *testing.T) {
			name := fmt.Sprintf("trace%d", os.Getpid())
			lab := func(args ...string) *exec.Cmd {
				cmd := exec.Command("./lab", args...)
				cmd.Env = append(os.Environ(), "LAB="+name)
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal's foreground job
				return cmd
			}
			t.Cleanup(func() { _ = lab("down").Run() })
			before := traces(t, name)
			live(t, lab)
			var diff string
			if !labtest.Poll(gone, func() bool { diff = cmp.Diff(before, traces(t, name)); return diff == "" }) {
				t.Errorf("what is there (-before +after):\n%s", diff)
			}
		})
	}
}

// gone is how long the kernel may take to bury what down killed.
const gone = 2 * time.Second

// moments of an up, which takes a second or two.
var moments = []time.Duration{30, 80, 150, 250, 400, 600, 900}

func init() {
	for i := range moments {
		moments[i] *= time.Millisecond
	}
}

// interrupt starts cmd, signals its whole group after a while and returns its exit code.
func interrupt(t *testing.T, cmd *exec.Cmd, after time.Duration, signal syscall.Signal) int {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(after, func() { _ = syscall.Kill(-cmd.Process.Pid, signal) })
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// traces is everything a lab could leave behind, other labs' things left out.
func traces(t *testing.T, name string) map[string][]string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]string{
		"mounts":    strings.Split(string(mounts), "\n"),
		"links":     names(t, "/sys/class/net"),
		"netns":     names(t, "/run/netns"),
		"cgroups":   within(t, "/sys/fs/cgroup", name),
		"run":       within(t, "/run", name),
		"processes": processes(t, name),
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

// within lists the tree under dir, without pim-lab and all in it but this lab.
func within(t *testing.T, dir, name string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err): // gone while we looked: somebody else's
			return nil
		case err != nil:
			return err
		case strings.Contains(path, "/pim-lab") && !strings.Contains(path, "/pim-lab/"+name), strings.Contains(path, "/pim-test-"): // package agent's
			return nil
		case entry.IsDir() || dir == "/run":
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// processes lists those in the lab's cgroups and those whose arguments or environment name it. A zombie is no process: it waits
// for its parent to look.
func processes(t *testing.T, name string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		stat, _ := os.ReadFile(dir + "/stat")
		if _, state, ok := bytes.Cut(stat, []byte(") ")); !ok || state[0] == 'Z' {
			continue
		}
		for _, file := range []string{"cgroup", "cmdline", "environ"} {
			content, _ := os.ReadFile(dir + "/" + file)
			if bytes.Contains(content, []byte(name)) {
				found = append(found, dir+" "+file+" "+string(content))
			}
		}
	}
	return found
}

// TestLabEndsWithItsTest runs itself again, to be killed while it holds a lab.
func TestLabEndsWithItsTest(t *testing.T) {
	t.Parallel()
	const held = "LAB_TEST_HELD"
	if os.Getenv(held) != "" {
		fmt.Println(labtest.Up(t, "--bare", "--brokers", "0").Name())
		select {}
	}
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), held+"=y")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	name, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	name = strings.TrimSpace(name)
	if len(processes(t, name)) == 0 {
		t.Error("there is no lab to begin with")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	labtest.WaitFor(t, "the lab of a killed test gone", 20*time.Second, func() bool {
		_, err := os.Stat("/run/pim-lab/" + name)
		return os.IsNotExist(err) && len(processes(t, name)) == 0
	})
}

func TestLabSixMachines(t *testing.T) {
	t.Parallel()
	const bound = 30 * time.Second
	l := labtest.Up(t, "--bare", "--brokers", "0", "--hosts", "1") // the tree is cached from here on
	begun := time.Now()
	six := labtest.Up(t, "--bare", "--brokers", "3", "--hosts", "2")
	took := time.Since(begun)
	t.Logf("six machines up in %v", took.Round(10*time.Millisecond))
	if took > bound {
		t.Errorf("six machines took %v, want at most %v", took, bound)
	}
	names := "b1 b2 b3 db1 web1 desk"
	for machine := range strings.FieldsSeq(names) {
		got := six.Exec(t, machine, append([]string{"getent", "-s", "files", "ahostsv4"}, strings.Fields(names)...)...).Want(t, 0)
		if lines := strings.Count(got.Out, " STREAM"); lines != 6 {
			t.Errorf("%s knows %d of 6 machines:\n%s", machine, lines, got.Out)
		}
	}
	// Two labs with the same names and addresses: neither sees the other.
	l.As(t, "alice", "ssh", "-o", "ConnectTimeout=1", "alice@10.77.0.22", "true").Want(t, 255)
	six.As(t, "alice", "ssh", "alice@web1", "true").Want(t, 0)
}

func TestLabHybridMachine(t *testing.T) {
	t.Parallel()
	l := labtest.Up(t, "--bare", "--brokers", "0", "--hybrid", "db1")
	for machine, want := range map[string]string{"db1": "tmpfs\ncgroup2fs\n", "web1": "cgroup2fs\n"} {
		got := l.Exec(t, machine, "sh", "-c", "stat -f -c %T /sys/fs/cgroup; stat -f -c %T /sys/fs/cgroup/unified 2>/dev/null; true").Want(t, 0)
		if got.Out != want {
			t.Errorf("%s: %q, want %q", machine, got.Out, want)
		}
	}
	l.As(t, "alice", "ssh", "alice@db1", "true").Want(t, 0)
	if got := l.Exec(t, "db1", "tail", "-n", "1", "/proc/self/cgroup").Out; !slices.Contains(strings.Fields(got), "0::/system.slice/lab.service") {
		t.Errorf("a command on the hybrid machine is in %s", got)
	}
}
