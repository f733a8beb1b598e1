package pamtest

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/pam/wire"
)

const denied = "Permission denied"

// stack is one module, its state and its socket, in a directory of their own.
type stack struct {
	*sandbox
	conf, state, socket string
}

// newStack lays out a PAM stack that is nothing but our module. Governed nil
// means this host observes.
func newStack(s *sandbox, t testing.TB, module string, governed []string) stack {
	t.Helper()
	dir := t.TempDir()
	st := stack{&sandbox{t, s.init}, filepath.Join(dir, "pam.d"), filepath.Join(dir, "enforcing"), filepath.Join(dir, "run", "pam.sock")}
	for _, d := range []string{st.conf, filepath.Dir(st.socket)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if governed != nil {
		if err := os.Mkdir(st.state, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range governed {
		if err := os.WriteFile(filepath.Join(st.state, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st.line(t, module+" socket="+st.socket+" state="+st.state)
	return st
}

// line has every service call the module so, in both stacks.
func (st stack) line(t testing.TB, call string) {
	t.Helper()
	text := "account required " + call + "\nsession required " + call + "\n"
	for _, service := range strings.Fields("sshd sudo sudo-i su su-l login doas polkit-1 runuser cron atd systemd-user chfn chsh other") {
		if err := os.WriteFile(filepath.Join(st.conf, service), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// builds is where the programs under test lie, for as long as the test program runs.
var builds string

var builtModule = sync.OnceValues(func() (string, error) { return Build(builds, Module(), Strict) })

func buildModule(t testing.TB) string {
	t.Helper()
	module, err := builtModule()
	must(t, err)
	return module
}

// a conversation of one service as one account by one real uid.
func by(service, user string, uid int, calls string) conversation {
	return conversation{Service: service, User: user, UID: uid, Calls: calls}
}

func TestWhoIsAskedAbout(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	governed := []string{"postgres", "root"}
	for sentence, c := range map[string]struct {
		governed []string
		by       conversation
		asked    string            // of a peer that refuses
		want     map[string]string // verdicts
	}{
		"sudo by a person is asked in account": {governed, by("sudo", "alice", aliceUID, "A"), "A sudo", says("account", denied)},
		"sudo -i is sudo":                      {governed, by("sudo-i", "alice", aliceUID, "A"), "A sudo-i", says("account", denied)},
		"sudo's session is asked too":          {governed, by("sudo", "root", aliceUID, "O"), "O sudo", says("open", denied)},
		"sudo's close is told and cannot fail": {governed, by("sudo", "root", aliceUID, "C"), "C sudo", says("close", "success")},
		"sudo by root is nobody's business":    {governed, by("sudo", "root", 0, "AOC"), "", says("account", "success", "open", "success", "close", "success")},
		"sudo whose account was skipped is not root's": {governed, by("sudo", "root", 0, "O"), "O sudo",
			says("open", denied)},
		"sshd to a governed account is asked":       {governed, by("sshd", "postgres", 0, "A"), "A sshd", says("account", denied)},
		"sshd to another account is not":            {governed, by("sshd", "alice", 0, "AOC"), "", says("account", "success", "open", "success", "close", "success")},
		"sshd to root by root's other name is":      {governed, by("sshd", "toor", 0, "A"), "A sshd", says("account", denied)},
		"sshd to an account by its other name is":   {governed, by("sshd", "pg2", 0, "A"), "A sshd", says("account", denied)},
		"sshd to a nonexistent account is":          {governed, by("sshd", "ghost", 0, "A"), "A sshd", says("account", denied)},
		"sshd to a name with a slash is":            {governed, by("sshd", "x/../alice", 0, "A"), "A sshd", says("account", denied)},
		"sshd to a name with a leading dot is":      {governed, by("sshd", ".hidden", 0, "A"), "A sshd", says("account", denied)},
		"sshd to a name over 32 bytes is":           {governed, by("sshd", "a-name-of-more-than-thirty-two-bytes", 0, "A"), "A sshd", says("account", denied)},
		"sshd's close is told and cannot fail":      {governed, by("sshd", "postgres", 0, "C"), "C sshd", says("close", "success")},
		"su to a governed account is asked":         {governed, by("su", "postgres", aliceUID, "A"), "A su", says("account", denied)},
		"su to root is asked":                       {governed, by("su", "root", aliceUID, "A"), "A su", says("account", denied)},
		"su to root's other name is asked":          {governed, by("su-l", "toor", aliceUID, "A"), "A su-l", says("account", denied)},
		"su to another account is not":              {governed, by("su", "mallory", aliceUID, "AOC"), "", says("account", "success", "open", "success", "close", "success")},
		"su by root is not":                         {governed, by("su", "postgres", 0, "AO"), "", says("account", "success", "open", "success")},
		"chfn by root, as adduser calls it, is not": {governed, by("chfn", "root", 0, "A"), "", says("account", "success")},
		"chsh by a governed account is asked":       {governed, by("chsh", "postgres", postgresUID, "A"), "A chsh", says("account", denied)},
		"login of a governed account by a person":   {governed, by("login", "postgres", aliceUID, "A"), "A login", says("account", denied)},
		"login of root on the console, by getty":    {governed, by("login", "root", 0, "A"), "A login", says("account", denied)},
		"login of another account is not":           {governed, by("login", "alice", 0, "AOC"), "", says("account", "success", "open", "success", "close", "success")},
		"a daemon's login of a governed account":    {governed, by("vsftpd", "postgres", 0, "A"), "A vsftpd", says("account", denied)},
		"a daemon's login of another is not":        {governed, by("vsftpd", "alice", 0, "AOC"), "", says("account", "success", "open", "success", "close", "success")},
		"doas is asked whoever PAM_USER is":         {governed, by("doas", "alice", aliceUID, "A"), "A doas", says("account", denied)},
		"polkit is asked whoever PAM_USER is":       {governed, by("polkit-1", "alice", aliceUID, "A"), "A polkit-1", says("account", denied)},
		"cron as a governed account goes on":        {governed, by("cron", "postgres", 0, "AOC"), "", says("account", "success", "open", "success", "close", "success")},
		"a user manager goes on":                    {governed, by("systemd-user", "postgres", 0, "AO"), "", says("account", "success", "open", "success")},
		"with nothing governed sudo is still asked": {[]string{}, by("sudo", "alice", aliceUID, "A"), "A sudo", says("account", denied)},
		"with root not governed su to root is not":  {[]string{"postgres"}, by("su", "toor", aliceUID, "A"), "", says("account", "success")},
		"observing: sudo is told and goes on":       {nil, by("sudo", "alice", aliceUID, "AOC"), "A sudo, O sudo, C sudo", says("account", "success", "open", "success", "close", "success")},
		"observing: sshd is told and goes on":       {nil, by("sshd", "postgres", 0, "AOC"), "A sshd, O sshd, C sshd", says("account", "success", "open", "success", "close", "success")},
		"observing: su is not even told":            {nil, by("su", "postgres", aliceUID, "AO"), "", says("account", "success", "open", "success")},
		"observing: doas is not even told":          {nil, by("doas", "alice", aliceUID, "AO"), "", says("account", "success", "open", "success")},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, c.governed)
			p := listen(t, st.socket, denying)
			c.by.ConfDir = st.conf
			got := st.hold(c.by)
			if diff := cmp.Diff(c.want, got.Results); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
			if asked := p.await(c.asked); asked != c.asked {
				t.Errorf("the agent was asked %q, want %q", asked, c.asked)
			}
			if c.governed == nil && len(got.Said) > 0 {
				t.Errorf("an observing host said %q", got.Said)
			}
		})
	}
}

func TestRootIsGovernedWhateverNameStandsFirst(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	lines := strings.SplitAfter(passwd, "\n")
	lines[0], lines[1] = lines[1], lines[0] // uid 0 is toor before it is root
	s.write("/etc/passwd", strings.Join(lines, ""), 0o644)
	st := newStack(s, t, module, []string{"root"})
	for _, name := range []string{"root", "toor"} {
		c := by("sshd", name, 0, "A")
		c.ConfDir = st.conf
		if got := st.hold(c); got.Results["account"] != denied {
			t.Errorf("%s: %s, want %s", name, got.Results["account"], denied)
		}
	}
}

// says is a map of calls to verdicts.
func says(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func TestWhatTheAgentHears(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	const auth = "publickey ssh-ed25519-cert-v01@openssh.com AAAA"
	login := conversation{Service: "sshd", User: "postgres", RHost: "192.0.2.7", TTY: "ssh", Auth: auth, Calls: "AOC"}
	sudo := conversation{Service: "sudo", User: "alice", UID: aliceUID, RUser: "alice", TTY: "/dev/pts/0", Calls: "A"}
	for sentence, c := range map[string]struct {
		by    conversation
		kinds string
		want  []wire.Question
	}{
		"of an sshd login": {login, "A sshd, O sshd, C sshd", []wire.Question{
			&wire.Account{Service: "sshd", User: "postgres", RHost: "192.0.2.7"},
			&wire.Open{Service: "sshd", User: "postgres", RHost: "192.0.2.7", TTY: "ssh", AuthInfo: auth},
			&wire.Close{Service: "sshd", User: "postgres", RHost: "192.0.2.7", TTY: "ssh", AuthInfo: auth},
		}},
		"of a sudo run": {sudo, "A sudo", []wire.Question{&wire.Account{Service: "sudo", User: "alice", RUser: "alice"}}},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{"postgres"})
			p := listen(t, st.socket, allowing)
			c.by.ConfDir = st.conf
			st.hold(c.by)
			p.await(c.kinds)
			var got []wire.Question
			for _, h := range p.questions() {
				got = append(got, h.q)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("questions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatThePersonHears(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	for sentence, c := range map[string]struct {
		answer wire.Answer
		silent bool
		want   []string
	}{
		"a refusal's reason":                      {wire.Answer{Text: "no grant"}, false, []string{"error: no grant"}},
		"a refusal's reason, PAM_SILENT or not":   {wire.Answer{Text: "no grant"}, true, []string{"error: no grant"}},
		"an allowance's remark":                   {wire.Answer{Allow: true, Text: "10 minutes left"}, false, []string{"info: 10 minutes left"}},
		"no remark under PAM_SILENT":              {wire.Answer{Allow: true, Text: "10 minutes left"}, true, nil},
		"nothing where nothing was said":          {wire.Answer{Allow: true}, false, nil},
		"no escapes and no percent signs at work": {wire.Answer{Text: "\x1b[2J%s%n"}, false, []string{"error: [2J%s%n"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			listen(t, st.socket, answering(c.answer))
			got := st.hold(conversation{Service: "sudo", User: "alice", UID: aliceUID, ConfDir: st.conf, Calls: "A", Silent: c.silent})
			if diff := cmp.Diff(c.want, got.Said); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
		})
	}
}

func frame(body string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// good is an allowance byte for byte.
var good = frame("PIM1\x01\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")

func TestOnlyAWellFormedAllowanceAllows(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	huge := append(frame("PIM1\x01\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00"), make([]byte, 1<<20)...)
	for sentence, c := range map[string]struct {
		do   script
		want string
	}{
		"an allowance":                       {sending(good), "success"},
		"an allowance in single bytes":       {dripping(good, 5*time.Millisecond), "success"},
		"an allowance just in time":          {after(500*time.Millisecond, sending(good)), "success"},
		"a refusal":                          {denying, denied},
		"nothing, and the line is closed":    {sending(nil), denied},
		"garbage":                            {sending([]byte("HTTP/1.1 200 OK\r\n\r\n")), denied},
		"verdict two":                        {sending(frame("PIM1\x02\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")), denied},
		"an allowance cut short":             {sending(good[:len(good)-1]), denied},
		"an allowance and one byte":          {sending(append(good[:len(good):len(good)], 0)), denied},
		"an allowance twice":                 {sending(append(good[:len(good):len(good)], good...)), denied},
		"a megabyte":                         {sending(huge), denied},
		"an allowance in another's language": {sending(frame("PIM2\x01\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")), denied},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			listen(t, st.socket, c.do)
			got := st.hold(conversation{Service: "sudo", User: "alice", UID: aliceUID, ConfDir: st.conf, Calls: "AO"})
			if diff := cmp.Diff(says("account", c.want, "open", c.want), got.Results); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

func dripping(b []byte, every time.Duration) script {
	return func(c *net.UnixConn, _ wire.Question) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil {
				return
			}
			<-tick.C
		}
	}
}

func after(d time.Duration, do script) script {
	return func(c *net.UnixConn, q wire.Question) {
		<-time.After(d)
		do(c, q)
	}
}

func TestCloseWaitsForNobody(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	st := newStack(s, t, module, []string{})
	p := listen(t, st.socket, silent)
	got := st.hold(conversation{Service: "sudo", User: "root", UID: aliceUID, ConfDir: st.conf, Calls: "C"})
	if got.Results["close"] != "success" || got.Lasted["close"] > 500*time.Millisecond || p.await("C sudo") != "C sudo" {
		t.Errorf("%s after %v, the agent heard %q", got.Results["close"], got.Lasted["close"], p.kinds())
	}
}

func TestAgentThatKeepsUsWaitingIsARefusalWithinTwoSeconds(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	for sentence, do := range map[string]script{
		"silence": silent,
		"an allowance whose line stays open": func(c *net.UnixConn, q wire.Question) {
			_, _ = c.Write(good)
			silent(c, q)
		},
		"an allowance that drips past the deadline": dripping(good, 200*time.Millisecond),
		"an allowance a moment too late":            after(900*time.Millisecond, sending(good)),
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			st := newStack(s, t, module, []string{})
			listen(t, st.socket, do)
			got := st.hold(conversation{Service: "sudo", User: "alice", UID: aliceUID, ConfDir: st.conf, Calls: "A"})
			lasted := got.Lasted["account"]
			if got.Results["account"] != denied || lasted < 700*time.Millisecond || lasted > 2*time.Second {
				t.Errorf("%s after %v, want %s after about 0.8 s", got.Results["account"], lasted, denied)
			}
		})
	}
}
