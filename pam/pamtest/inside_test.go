package pamtest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// cgroup makes a cgroup below one of this test's own and removes both with the test.
func cgroup(t testing.TB, path string) string {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/unified/cgroup.procs"); err == nil {
		root += "/unified" // a hybrid machine
	}
	own := filepath.Join(root, "pamtest-"+strconv.Itoa(os.Getpid()))
	must(t, os.MkdirAll(filepath.Join(own, path), 0o755))
	t.Cleanup(func() {
		for dir := filepath.Join(own, path); len(dir) >= len(own); dir = filepath.Dir(dir) {
			removeWhenEmpty(t, dir)
		}
	})
	return filepath.Join(own, path)
}

// removeWhenEmpty waits for the last process to be gone, 5 s at most.
func removeWhenEmpty(t testing.TB, dir string) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		err := os.Remove(dir)
		if !errors.Is(err, syscall.EBUSY) {
			tick.Stop()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("rmdir: %v", err)
		case <-tick.C:
		}
	}
}

// in is a shell that first moves itself into a cgroup and then becomes args.
func in(cgroup string, args ...string) []string {
	return append([]string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, cgroup}, args...)
}

func TestInsideIsSaidOnlyInAGrantsUnit(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	unit := principal + ".service"
	for sentence, c := range map[string]struct {
		path   string
		inside bool
	}{
		"in the unit":                       {unit, true},
		"in a session of the unit":          {unit + "/s-1", true},
		"in the unit under a slice":         {"x.slice/" + unit, true},
		"in a user's cgroup of that name":   {"user.slice/user-1.slice/" + unit + "/x", true},
		"outside":                           {"system.slice", false},
		"in a scope of that name":           {principal + ".scope", false},
		"in a name with more behind":        {unit + "x", false},
		"in a name with more in front":      {"x" + unit, false},
		"in a name a letter short":          {principal[:31] + ".service", false},
		"in a name with a letter too many":  {principal + "a.service", false},
		"in a name with a capital":          {strings.ToUpper(principal) + ".service", false},
		"in a name with a digit not base32": {principal[:31] + "1.service", false},
		"in the reaper's unit":              {principal + "-end.service", false},
		"in the bare principal":             {principal, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			// Inside skips the line that denies.
			text := "session [success=1 default=ignore] " + module + " inside\nsession required pam_deny.so\nsession required pam_permit.so\n" +
				"account [ignore=1 default=ignore] " + module + " inside\naccount required pam_deny.so\naccount required pam_permit.so\n"
			must(t, os.WriteFile(filepath.Join(st.conf, "sudo-i"), []byte(text), 0o644))
			got := st.hold(conversation{Service: "sudo-i", User: "root", ConfDir: st.conf, Calls: "AO", Cgroup: cgroup(t, c.path)})
			want := says("account", "success", "open", "success")
			if !c.inside {
				want["open"] = "Cannot make/remove an entry for the specified session"
			}
			if diff := cmp.Diff(want, got.Results); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestF18InsideKeepsLoginShellsOutOfANewSession has pam_exec in pam_systemd's
// place, in Debian's own stacks as pam-auth-update leaves them.
func TestF18InsideKeepsLoginShellsOutOfANewSession(t *testing.T) {
	s := installed(t)
	s.enforce("root", "postgres")
	s.agent(t, allowing)
	for _, file := range []string{"common-session", "runuser-l"} {
		text := strings.ReplaceAll(s.read("/etc/pam.d/"+file), "pam_systemd.so", "pam_exec.so /bin/touch /run/systemd-ran")
		s.write("/etc/pam.d/"+file, text, 0o644)
	}
	unit := cgroup(t, principal+".service/s-1")
	for sentence, c := range map[string]struct {
		args  string
		skips bool
	}{
		"sudo -i":  {"setpriv --reuid=61001 --regid=61001 --clear-groups sudo -n -i true", true},
		"su -":     {"su - postgres -c true", true},
		"su":       {"su postgres -c true", true},
		"sudo su":  {"setpriv --reuid=61001 --regid=61001 --clear-groups sudo -n su - -c true", true},
		"runuser":  {"runuser postgres -c true", true},
		"sudo":     {"setpriv --reuid=61001 --regid=61001 --clear-groups sudo -n true", true},
		"runuser-": {"runuser -l postgres -c true", false}, // its own pam_systemd line is util-linux's
	} {
		t.Run(sentence, func(t *testing.T) {
			ran := func(args []string) bool {
				t.Helper()
				if got := s.run(args...); got.code != 0 {
					t.Fatalf("%q: exit %d: %s", args, got.code, got.out)
				}
				return os.Remove(s.path("/run/systemd-ran")) == nil
			}
			if ran(in(unit, strings.Fields(c.args)...)) == c.skips {
				t.Errorf("inside the unit pam_systemd skipped: %v, want %v", !c.skips, c.skips)
			}
			if interactive := sentence != "sudo" && sentence != "runuser"; ran(strings.Fields(c.args)) != interactive {
				t.Errorf("outside the unit pam_systemd ran: %v, want %v", !interactive, interactive)
			}
		})
	}
}

// TestF18OneLineMakesRunuserLoginStayInside: what has to stand in runuser-l.
func TestF18OneLineMakesRunuserLoginStayInside(t *testing.T) {
	s := installed(t)
	const systemd = "-session\toptional\tpam_systemd.so"
	debians := s.read("/etc/pam.d/runuser-l")
	if !strings.Contains(debians, systemd) {
		t.Fatalf("runuser-l has no line %q:\n%s", systemd, debians)
	}
	stands := "session [success=1 default=ignore] pam_pim.so inside\n-session optional pam_exec.so /bin/touch /run/systemd-ran"
	s.write("/etc/pam.d/runuser-l", strings.Replace(debians, systemd, stands, 1), 0o644)
	for _, c := range []struct {
		args []string
		ran  bool
	}{{in(cgroup(t, principal+".service"), "runuser", "-l", "postgres", "-c", "true"), false}, {[]string{"runuser", "-l", "postgres", "-c", "true"}, true}} {
		if got := s.run(c.args...); got.code != 0 {
			t.Fatalf("%q: exit %d: %s", c.args, got.code, got.out)
		}
		if ran := os.Remove(s.path("/run/systemd-ran")) == nil; ran != c.ran {
			t.Errorf("%q: pam_systemd ran: %v, want %v", c.args, ran, c.ran)
		}
	}
}
