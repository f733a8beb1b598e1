package pamtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"pim-ssh/pam/wire"
)

const session = principal + ".service/s-7"

// placedAs is an agent that says of whoever asks in account that it put them into the session, and refuses to open one.
func placedAs(session, runAs string) script {
	return func(c *net.UnixConn, q wire.Question) {
		a := wire.Answer{Text: "no grant here"}
		if _, account := q.(*wire.Account); account {
			a = wire.Answer{Allow: true, Seconds: 600, Session: session, RunAs: runAs}
		}
		_ = wire.WriteAnswer(c, a)
	}
}

// placing is an honest agent: it does put whoever asks in account into the session's cgroup.
func placing(t testing.TB, where, runAs string) script {
	say := placedAs(session, runAs)
	return func(c *net.UnixConn, q wire.Question) {
		raw, err := c.SyscallConn()
		if err == nil {
			_ = raw.Control(func(fd uintptr) {
				var cred *unix.Ucred
				if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
					err = os.WriteFile(filepath.Join(where, "cgroup.procs"), fmt.Append(nil, cred.Pid), 0)
				}
			})
		}
		if err != nil {
			t.Errorf("not placed: %v", err)
			return
		}
		say(c, q)
	}
}

// One run has its allowance from account already; every other is asked about in open_session, which refuses here.
func TestAccountsAllowanceOpensOnlyForTheAccountAndThePlaceItNames(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	const asked, begun = "A sudo, O sudo", "A sudo, B "
	for sentence, c := range map[string]struct {
		session, runAs string // what account's answer says
		in             string // where the process lives
		target         string
		kinds          string
	}{
		"in its session, as one of the accounts":    {session, "postgres root", session, "postgres", begun},
		"in its session, as the other":              {session, "postgres root", session, "root", begun},
		"under a slice":                             {session, "root", "x.slice/" + session, "root", begun},
		"as an account that is not named":           {session, "postgres", session, "root", asked},
		"as an account, where none is named":        {session, "", session, "root", asked},
		"as the beginning of an account":            {session, "rootless", session, "root", asked},
		"as all the accounts":                       {session, "postgres root", session, "postgres root", asked},
		"outside of every unit":                     {session, "root", "system.slice", "root", asked},
		"in the unit but in no session":             {session, "root", principal + ".service", "root", asked},
		"in another session of the unit":            {session, "root", principal + ".service/s-8", "root", asked},
		"in a session whose number goes on":         {session, "root", session + "1", "root", asked},
		"below its session":                         {session, "root", session + "/x", "root", asked},
		"in another grant's unit":                   {session, "root", "pim-g-" + strings.Repeat("b", 26) + ".service/s-7", "root", asked},
		"in its session, below another grant's":     {session, "root", "pim-g-" + strings.Repeat("b", 26) + ".service/" + session, "root", asked},
		"in a scope of the unit's name":             {session, "root", principal + ".scope/s-7", "root", asked},
		"where an answer says no session":           {"", "root", session, "root", asked},
		"where an answer says a unit":               {principal + ".service", "root", session, "root", asked},
		"where an answer says a slash more":         {session + "/", "root", session, "root", asked},
		"where an answer says a path":               {"/" + session, "root", session, "root", asked},
		"where an answer says where all things are": {"/", "root", "system.slice", "root", asked},
		"in no unit, where an answer says so":       {"system.slice", "root", "system.slice", "root", asked},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			p := listen(t, st.socket, placedAs(c.session, c.runAs))
			got := st.hold(conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Target: c.target, Calls: "AO", Cgroup: cgroup(t, c.in)})
			want := says("account", "success", "open", denied)
			if c.kinds == begun {
				want["open"] = "success"
				c.kinds += c.target
			}
			if diff := cmp.Diff(want, got.Results); diff != "" || p.await(c.kinds) != c.kinds {
				t.Errorf("heard %q, want %q; verdicts (-want +got):\n%s", p.kinds(), c.kinds, diff)
			}
			if last := p.questions()[1]; last.line != (want["open"] == "success") {
				t.Errorf("said on the first connection: %v", last.line)
			}
		})
	}
}

// Where two hierarchies of systemd disagree, one of them is not where the reaper looks.
func TestASessionInOneHierarchyOnlyIsNoSession(t *testing.T) {
	const other = "/sys/fs/cgroup/systemd"
	if _, err := os.Stat(other + "/cgroup.procs"); err != nil {
		t.Logf("this machine has one hierarchy: %v", err)
		return
	}
	s, module := newSandbox(t), buildModule(t)
	another := "pim-g-" + strings.Repeat("b", 26) + ".service/s-7"
	for sentence, c := range map[string]struct{ one, two, want string }{
		"in the same":                       {session, session, "success"},
		"in no unit":                        {session, "system.slice", "success"}, // a hierarchy that knows no units says nothing
		"in no unit in the first":           {"system.slice", session, "success"},
		"in no unit in both":                {"system.slice", "system.slice", denied},
		"in another's":                      {session, another, denied},
		"in another's in the first":         {another, session, denied},
		"in another session's":              {session, principal + ".service/s-8", denied},
		"in another session's in the first": {principal + ".service/s-8", session, denied},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := filepath.Join(other, "pamtest-two", c.two)
			must(t, os.MkdirAll(dir, 0o755))
			t.Cleanup(func() {
				for ; dir != other; dir = filepath.Dir(dir) {
					removeWhenEmpty(t, dir)
				}
			})
			st := newStack(s, t, module, []string{})
			listen(t, st.socket, placedAs(session, "root"))
			conv := conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Target: "root", Calls: "AO", Cgroup: cgroup(t, c.one)}
			conv.Also = dir
			if got := st.hold(conv); got.Results["open"] != c.want {
				t.Errorf("%s, want %s", got.Results["open"], c.want)
			}
		})
	}
}

func TestAccountsAllowanceIsSudosAndTheLastOneCounts(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	place := placedAs(session, "root postgres alice")
	for sentence, c := range map[string]struct {
		service, calls string
		governed       []string
		do             func(p **peer) script
		kinds          string
		open           string
	}{
		"sudo -i is sudo":     {service: "sudo-i", calls: "AO", kinds: "A sudo-i, B alice", open: "success"},
		"not without account": {service: "sudo", calls: "O", kinds: "O sudo", open: denied},
		"not for sshd":        {service: "sshd", calls: "AO", governed: []string{"postgres", "alice"}, kinds: "A sshd, O sshd", open: ""},
		"an account refused after it": {service: "sudo", calls: "AAO", kinds: "A sudo, A sudo, O sudo", open: denied, do: func(p **peer) script {
			return func(c *net.UnixConn, q wire.Question) {
				if len((*p).questions()) == 1 {
					place(c, q)
					return
				}
				denying(c, q)
			}
		}},
		"an account that placed nobody after it": {service: "sudo", calls: "AAO", kinds: "A sudo, A sudo, O sudo", open: denied, do: func(p **peer) script {
			return func(c *net.UnixConn, q wire.Question) {
				switch _, account := q.(*wire.Account); {
				case len((*p).questions()) == 1:
					place(c, q)
				case account:
					allowing(c, q)
				default:
					denying(c, q)
				}
			}
		}},
		"a refusal that names a session": {service: "sudo", calls: "AO", kinds: "A sudo, O sudo", open: denied, do: func(**peer) script {
			return answering(wire.Answer{Session: session, RunAs: "root alice"})
		}},
		"garbage for account": {service: "sudo", calls: "AO", kinds: "A sudo, O sudo", open: denied, do: func(**peer) script {
			return sending([]byte("\xff" + session))
		}},
		"it begins twice": {service: "sudo", calls: "AOO", kinds: "A sudo, B alice, B alice", open: "success"},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, append([]string{}, c.governed...))
			var p *peer
			do := place
			if c.do != nil {
				do = c.do(&p)
			}
			ready := make(chan struct{})
			p = listen(t, st.socket, func(conn *net.UnixConn, q wire.Question) { <-ready; do(conn, q) })
			close(ready)
			uid := aliceUID
			if c.service == "sshd" {
				uid = 0
			}
			got := st.hold(conversation{Service: c.service, User: "alice", RUser: "alice", UID: uid, ConfDir: st.conf, Calls: c.calls, Cgroup: cgroup(t, session)})
			if got.Results["open"] != c.open || p.await(c.kinds) != c.kinds {
				t.Errorf("open %q, want %q; heard %q, want %q", got.Results["open"], c.open, p.kinds(), c.kinds)
			}
		})
	}
}

// An agent that is not there to be told opens nothing; one that is there and does not read keeps nobody waiting.
func TestAnAgentThatDiesBetweenAccountAndOpenRefuses(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	for sentence, c := range map[string]struct {
		die  func(p *peer, conn *net.UnixConn) // once account is answered
		want string
	}{
		"it goes on":               {func(*peer, *net.UnixConn) {}, "success"},
		"it is dead":               {func(p *peer, conn *net.UnixConn) { _ = errors.Join(p.listener.Close(), conn.Close()) }, denied},
		"another is in its place":  {func(_ *peer, conn *net.UnixConn) { _ = conn.Close() }, denied},
		"it reads no more":         {func(_ *peer, conn *net.UnixConn) { _ = conn.CloseRead() }, denied},
		"it listens no more alone": {func(p *peer, _ *net.UnixConn) { _ = p.listener.Close() }, "success"},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			var p *peer
			ready := make(chan struct{})
			p = listen(t, st.socket, func(conn *net.UnixConn, q wire.Question) {
				<-ready
				placedAs(session, "root")(conn, q)
				if _, account := q.(*wire.Account); account {
					c.die(p, conn)
				}
			})
			close(ready)
			conv := conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Target: "root", Calls: "AO", Cgroup: cgroup(t, session)}
			conv.Pause = 50 * time.Millisecond
			if got := st.hold(conv); got.Results["open"] != c.want || got.Lasted["open"] > time.Second {
				t.Errorf("%s after %v, want %s at once", got.Results["open"], got.Lasted["open"], c.want)
			}
		})
	}
}

// An agent that was stopped before it read is no reason to wait: the run has its place, and its end.
func TestAnAgentThatStopsReadingKeepsNobodyWaiting(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	st := newStack(s, t, module, []string{})
	done := make(chan struct{})
	defer close(done)
	listen(t, st.socket, func(conn *net.UnixConn, q wire.Question) {
		placedAs(session, "root")(conn, q)
		_ = conn.CloseWrite()
		<-done
	})
	got := st.hold(conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Target: "root", Calls: "AOC", Cgroup: cgroup(t, session)})
	if got.Results["open"] != "success" || got.Lasted["open"]+got.Lasted["close"] > 500*time.Millisecond {
		t.Errorf("%+v", got)
	}
}

// The line stays where it is: not on descriptors 0, 1 and 2, not in what sudo runs, not beyond PAM's end, and what took its
// number meanwhile is neither written to nor closed.
func TestTheLineIsNobodyElses(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	for sentence, c := range map[string]struct {
		change func(*conversation)
		open   string
		kinds  string
	}{
		"as it is":                            {func(*conversation) {}, "success", "A sudo, B root"},
		"descriptors 0, 1 and 2 closed":       {func(c *conversation) { c.CloseLow = true }, "success", "A sudo, B root"},
		"somebody closed it":                  {func(c *conversation) { c.Swap = "close" }, denied, "A sudo, O sudo"},
		"a file of somebody's has its number": {func(c *conversation) { c.Swap = "file" }, denied, "A sudo, O sudo"},
		"a socket of somebody's has it":       {func(c *conversation) { c.Swap = "socket" }, denied, "A sudo, O sudo"},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			p := listen(t, st.socket, placedAs(session, "root"))
			conv := conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Target: "root", Calls: "AO", Cgroup: cgroup(t, session)}
			c.change(&conv)
			got := st.hold(conv)
			if got.Results["open"] != c.open || p.await(c.kinds) != c.kinds {
				t.Errorf("open %q, want %q; heard %q, want %q", got.Results["open"], c.open, p.kinds(), c.kinds)
			}
			if got.Swapped != "" {
				t.Error(got.Swapped)
			}
		})
	}
}

// Real sudo, in every shape that opens a session: placed by account, it begins on the connection that placed it, its command
// has no part of that, and the connection ends with sudo. What opens no session says nothing.
func TestF2SudoBeginsOnTheConnectionThatPlacedIt(t *testing.T) {
	s := installed(t)
	s.enforce("postgres", "root")
	where := cgroup(t, session)
	const sockets = `for f in /proc/$$/fd/*; do case $(readlink $f) in socket:*) echo has $(readlink $f);; esac; done`
	for _, defaults := range []string{"Defaults use_pty\n", "Defaults !use_pty\n"} {
		s.write("/etc/sudoers", defaults+s.read("/etc/sudoers"), 0o440)
		for sentence, c := range map[string]struct {
			args []string
			want string
		}{
			"a command":           {[]string{"-u", "postgres", "sh", "-c", sockets}, "A sudo, B postgres"},
			"a login shell":       {[]string{"-i", "sh", "-c", sockets}, "A sudo-i, B root"},
			"in the background":   {[]string{"-b", "sh", "-c", sockets}, "A sudo, B root"},
			"another group":       {[]string{"-g", "sudo", "true"}, "A sudo, B alice"},
			"what does not exist": {[]string{"-u", "postgres", "/run/no-such-file"}, "A sudo"},
			"listing":             {[]string{"-l"}, "A sudo"},
			"validating":          {[]string{"-v"}, "A sudo"},
		} {
			t.Run(strings.TrimSpace(defaults)+", "+sentence, func(t *testing.T) {
				ended := make(chan struct{})
				p := s.agent(t, placing(t, where, "root postgres alice"))
				p.hungUp = ended
				got := s.as(aliceUID, append([]string{"sudo", "-n"}, c.args...)...)
				if strings.Contains(got.out, "has socket") || got.code != 0 && sentence != "what does not exist" {
					t.Errorf("exit %d: %s", got.code, got.out)
				}
				select {
				case <-ended:
				case <-time.After(2 * time.Second):
					t.Error("the connection did not end with sudo")
				}
				if p.kinds() != c.want {
					t.Errorf("heard %q, want %q", p.kinds(), c.want)
				}
			})
		}
	}
}
