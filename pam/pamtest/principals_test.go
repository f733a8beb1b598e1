package pamtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/pam/wire"
)

// principalsHelper is pim-principals under sanitizers, and the socket it asks at.
func principalsHelper(t testing.TB) (helper, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "principals.sock")
	helper, err := Build(t.TempDir(), Principals(socket), Sanitized)
	must(t, err)
	return helper, socket
}

var sshdArgs = []string{"postgres", "ssh-ed25519-cert-v01@openssh.com", "AAAAIHNz", "AAAAC3Nz"}

func TestPrincipalsHelperPrintsOneTokenOrNothing(t *testing.T) {
	helper, socket := principalsHelper(t)
	allow := func(p string) script {
		return answering(wire.Answer{Allow: true, Seconds: 60, Principal: p, Text: "hello"})
	}
	for sentence, c := range map[string]struct {
		do   script
		args []string
		want string
	}{
		"a grant's principal":                {allow(principal), sshdArgs, principal + "\n"},
		"refused, though it is named":        {answering(wire.Answer{Principal: principal}), sshdArgs, ""},
		"allowed without a principal":        {allow(""), sshdArgs, ""},
		"an option before it":                {allow(`permit-pty ` + principal), sshdArgs, ""},
		"a command before it":                {allow(`command="id" ` + principal), sshdArgs, ""},
		"a second line":                      {allow(principal + "\nroot"), sshdArgs, ""},
		"a comma and another":                {allow(principal + ",root"), sshdArgs, ""},
		"an account's name":                  {allow("root"), sshdArgs, ""},
		"a letter too few":                   {allow(principal[:31]), sshdArgs, ""},
		"a letter too many":                  {allow(principal + "a"), sshdArgs, ""},
		"a digit base32 does not have":       {allow(principal[:31] + "1"), sshdArgs, ""},
		"a capital":                          {allow(principal[:31] + "A"), sshdArgs, ""},
		"a space after it":                   {allow(principal[:31] + " "), sshdArgs, ""},
		"garbage":                            {sending([]byte("garbage")), sshdArgs, ""},
		"silence":                            {silent, sshdArgs, ""},
		"an argument too few":                {allow(principal), sshdArgs[:3], ""},
		"an argument too many":               {allow(principal), append(sshdArgs[:4:4], "x"), ""},
		"no argument":                        {allow(principal), nil, ""},
		"a certificate longer than the wire": {allow(principal), []string{"postgres", "x", strings.Repeat("A", 20000), "x"}, ""},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := listen(t, socket, c.do)
			begin := time.Now()
			out, code := runHelper(t, exec.Command(helper, c.args...))
			if (code == 0) != (c.want != "") || out != c.want || time.Since(begin) > 2*time.Second {
				t.Errorf("exit %d after %v, printed %q, want %q", code, time.Since(begin), out, c.want)
			}
			for _, h := range p.questions() {
				want := &wire.Principals{Account: c.args[0], KeyType: c.args[1], Certificate: c.args[2], CA: c.args[3]}
				if diff := cmp.Diff(wire.Question(want), h.q); diff != "" {
					t.Errorf("question (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestPrincipalsHelperInAHostileProcess(t *testing.T) {
	helper, socket := principalsHelper(t)
	listen(t, socket, answering(wire.Answer{Allow: true, Principal: principal}))
	for sentence, c := range map[string]struct {
		shell string
		ok    bool
	}{
		"standard input closed":      {`exec "$@" <&-`, true},
		"standard error closed":      {`exec "$@" 2>&-`, true},
		"standard output closed":     {`exec "$@" >&-`, false},
		"all three closed":           {`exec "$@" <&- >&- 2>&-`, false},
		"standard output full":       {`exec "$@" >/dev/full`, false},
		"no descriptor to be had":    {`ulimit -n 3; exec "$@"`, false},
		"an environment that tempts": {`PIM_SOCKET=/x LANG=/x TZ=:/etc/shadow exec "$@"`, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			out, code := runHelper(t, exec.Command("sh", append([]string{"-c", c.shell, "sh", helper}, sshdArgs...)...))
			if (code == 0) != c.ok || out != "" && out != principal+"\n" {
				t.Errorf("exit %d, printed %q", code, out)
			}
		})
	}
}

// runHelper returns standard output and exit code; a sanitizer's report fails the test.
func runHelper(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	var out, report bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &report
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if strings.Contains(report.String(), "runtime error") || strings.Contains(report.String(), "AddressSanitizer") {
		t.Error(report.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestSshdTakesOnlyThePrincipalTheAgentNames(t *testing.T) {
	h := newLoginHost(t)
	h.agent(t, allowing)
	another := "pim-g-" + strings.Repeat("z", 26)
	for sentence, c := range map[string]struct {
		do   script
		code int
	}{
		"the certificate's own":     {answering(wire.Answer{Allow: true, Principal: principal}), 0},
		"another grant's":           {answering(wire.Answer{Allow: true, Principal: another}), 255},
		"refused":                   {denying, 255},
		"garbage":                   {sending([]byte("garbage")), 255},
		"an option, then the right": {answering(wire.Answer{Allow: true, Principal: "permit-pty " + principal}), 255},
		"an account's name":         {answering(wire.Answer{Allow: true, Principal: "root"}), 255},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := h.principals(t, c.do)
			if got := h.loginAndRun("postgres", "true"); got.code != c.code {
				t.Errorf("exit %d: %s", got.code, got.out)
			}
			asked := p.questions()
			if len(asked) == 0 {
				t.Fatal("sshd asked nobody")
			}
			q := asked[0].q.(*wire.Principals)
			if want := strings.Fields(h.key("key-cert.pub"))[1]; q.Account != "postgres" || q.Certificate != want || asked[0].uid != "61050 61050 61050 61050" {
				t.Errorf("asked %+v as %s", q, asked[0].uid)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		must(t, os.RemoveAll(h.path("/run/pim-ssh/principals.sock")))
		if got := h.loginAndRun("postgres", "true"); got.code != 255 || got.lasted > 2*time.Second {
			t.Errorf("exit %d after %v: %s", got.code, got.lasted, got.out)
		}
	})
}
