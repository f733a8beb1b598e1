package pamtest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// One run has its allowance from account already; every other is asked about in open_session, which refuses here.
func TestAccountsAllowanceOpensOnlyForTheAccountAndThePlaceItNames(t *testing.T) {
	s, module := newSandbox(t), buildModule(t)
	const asked, begun = "A sudo, O sudo", "A sudo, B sudo"
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
			want := says("account", "success", "open", "success")
			if c.kinds == asked {
				want["open"] = denied
			}
			if diff := cmp.Diff(want, got.Results); diff != "" || p.await(c.kinds) != c.kinds {
				t.Errorf("heard %q, want %q; verdicts (-want +got):\n%s", p.kinds(), c.kinds, diff)
			}
			last := p.questions()[1].q
			told, begins := last.(*wire.Begun)
			if begins && *told != (wire.Begun{Service: "sudo", User: c.target, RUser: "alice", Session: c.session}) {
				t.Errorf("told %+v", told)
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
		"sudo -i is sudo":     {service: "sudo-i", calls: "AO", kinds: "A sudo-i, B sudo-i", open: "success"},
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
		"it begins twice": {service: "sudo", calls: "AOO", kinds: "A sudo, B sudo, B sudo", open: "success"},
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
		after func(p *peer, st stack) // once account is answered
		want  string
	}{
		"it goes on":                  {func(*peer, stack) {}, "success"},
		"it is dead":                  {func(p *peer, _ stack) { _ = p.listener.Close() }, denied},
		"its socket is gone":          {func(_ *peer, st stack) { _ = os.Remove(st.socket) }, denied},
		"its directory is another's":  {func(_ *peer, st stack) { _ = os.Chown(filepath.Dir(st.socket), malloryUID, 0) }, denied},
		"its directory is everyone's": {func(_ *peer, st stack) { _ = os.Chmod(filepath.Dir(st.socket), 0o777) }, denied},
		"it stops reading": {func(p *peer, _ stack) {
			f, _ := p.listener.File()
			_ = syscall.SetNonblock(int(f.Fd()), true)
			_ = p.listener.SetDeadline(time.Now())
		}, "success"},
	} {
		t.Run(sentence, func(t *testing.T) {
			st := newStack(s, t, module, []string{})
			var p *peer
			ready := make(chan struct{})
			p = listen(t, st.socket, func(conn *net.UnixConn, q wire.Question) {
				<-ready
				if _, account := q.(*wire.Account); account {
					c.after(p, st)
				}
				placedAs(session, "root")(conn, q)
			})
			close(ready)
			got := st.hold(conversation{Service: "sudo", User: "alice", RUser: "alice", UID: aliceUID, ConfDir: st.conf, Target: "root", Calls: "AO", Cgroup: cgroup(t, session)})
			if got.Results["open"] != c.want || got.Lasted["open"] > time.Second {
				t.Errorf("%s after %v, want %s at once", got.Results["open"], got.Lasted["open"], c.want)
			}
		})
	}
}
