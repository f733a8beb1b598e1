package pamtest

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const profiles = "../../packaging/pam-configs/"

var update = flag.Bool("update", false, "write the golden files anew")

// ours are the profiles a host installs. pam-auth-update sorts by falling priority
// and then by falling name, so the second one's name is what puts it directly before
// "systemd" whatever else has priority 0: skipping one module must skip pam_systemd.
var ours = []string{"pim-ssh", "systemd+pim-ssh"}

// install puts our profiles beside Debian's and has pam-auth-update place them,
// together with others given as text.
func (s *sandbox) install(t testing.TB, others map[string]string) {
	t.Helper()
	enable := slices.Clone(ours)
	for _, name := range ours {
		text, err := os.ReadFile(profiles + name)
		must(t, err)
		s.write("/usr/share/pam-configs/"+name, string(text), 0o644)
	}
	for name, text := range others {
		s.write("/usr/share/pam-configs/"+name, text, 0o644)
		enable = append(enable, name)
	}
	s.profiles(t, "--enable", enable)
}

func (s *sandbox) profiles(t testing.TB, how string, names []string) {
	t.Helper()
	got := s.run(append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "pam-auth-update", "--package", how}, names...)...)
	if got.code != 0 || strings.Contains(got.out, "Local modifications") {
		t.Fatalf("pam-auth-update: exit %d: %s", got.code, got.out)
	}
}

// lines are a stack's lines without comments, each with single spaces.
func (s *sandbox) lines(file string) []string {
	var out []string
	for line := range strings.Lines(s.read(file)) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, strings.Join(words, " "))
		}
	}
	return out
}

var commonStacks = []string{"common-account", "common-auth", "common-password", "common-session", "common-session-noninteractive"}

func TestProfilesMakeExactlyTheseStacks(t *testing.T) {
	s := newSandbox(t)
	s.install(t, nil)
	for _, name := range commonStacks {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(s.lines("/etc/pam.d/"+name), "\n") + "\n"
			golden := profiles + "testdata/" + name
			if *update {
				must(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("stack (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProfilesTakenAwayLeaveWhatWasThere(t *testing.T) {
	s := newSandbox(t)
	before := map[string]string{}
	for _, name := range commonStacks {
		before[name] = strings.Join(s.lines("/etc/pam.d/"+name), "\n")
	}
	s.install(t, nil)
	s.profiles(t, "--disable", ours)
	for name, want := range before {
		if diff := cmp.Diff(want, strings.Join(s.lines("/etc/pam.d/"+name), "\n")); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
	}
}

func TestProfilesKeepTheirPlaceAmongOthers(t *testing.T) {
	s := newSandbox(t)
	others := map[string]string{}
	for name, priority := range map[string]string{"aaa": "0", "mkhomedir": "0", "sss": "128", "systemd-homed": "0", "tmpdir": "0", "wtmpdb": "0",
		"zzz": "0", "one": "1", "krb5": "704", "localuser": "1024"} {
		others[name] = "Name: " + name + "\nDefault: yes\nPriority: " + priority +
			"\nAccount-Type: Primary\nAccount:\n\tsufficient pam_" + name + ".so\nSession-Type: Additional\nSession:\n\toptional pam_" + name + ".so\n"
	}
	s.install(t, others)
	if account := s.lines("/etc/pam.d/common-account"); account[0] != "account required pam_pim.so" {
		t.Errorf("before us in account: %q", account[0])
	}
	session := s.lines("/etc/pam.d/common-session")
	inside := slices.Index(session, "session [success=1 default=ignore] pam_pim.so inside")
	if inside < 0 || session[inside+1] != "session optional pam_systemd.so" {
		t.Errorf("inside does not skip pam_systemd:\n%s", strings.Join(session, "\n"))
	}
	for _, name := range []string{"common-session", "common-session-noninteractive"} {
		if i := slices.Index(s.lines("/etc/pam.d/"+name), "session required pam_pim.so"); i != 3 {
			t.Errorf("%s: our session line is number %d, want it right after the primary block", name, i)
		}
	}
	if slices.ContainsFunc(s.lines("/etc/pam.d/common-session-noninteractive"), func(l string) bool { return strings.Contains(l, "inside") }) {
		t.Error("inside stands in common-session-noninteractive, which has no pam_systemd to skip")
	}
}

// TestEveryDoorsAccountPhaseReachesUs reads Debian's own service files: the ones
// that include common-account must do so before anything that could end the stack.
func TestEveryDoorsAccountPhaseReachesUs(t *testing.T) {
	s := newSandbox(t)
	s.install(t, nil)
	for service, want := range map[string]string{
		"sudo": "reached", "sudo-i": "reached", "su": "reached", "su-l": "reached", "sshd": "reached", "login": "reached", "other": "reached",
		// Only root may call runuser, and it has no account phase at all.
		"runuser": "no account phase", "runuser-l": "no account phase",
	} {
		if got := accountPhase(s, service); got != want {
			t.Errorf("%s: %s, want %s", service, got, want)
		}
	}
}

// accountPhase follows a service's account lines up to our module.
func accountPhase(s *sandbox, service string) string {
	for _, line := range s.lines("/etc/pam.d/" + service) {
		words := strings.Fields(line)
		if words[0] == "@include" && words[1] == "common-account" {
			words = []string{"account", "include", words[1]}
		}
		switch {
		case words[0] != "account":
		case words[1] == "include":
			return accountPhase(s, words[2])
		case words[2] == "pam_pim.so":
			return "reached"
		case words[1] != "required" && words[1] != "requisite":
			return "may end before us: " + line
		}
	}
	return "no account phase"
}
