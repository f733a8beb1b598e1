//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
	"pim-ssh/packaging/lab/labtest"
)

// window is long enough to open every shape on a busy machine, and then some.
const window = 50 * time.Second

// A shape is one way in which a process could outlive its window. Its marker, sleep 77NN, tells its processes apart.
type shape struct {
	name string
	// open runs on the host as alice; $S is her ssh to postgres@localhost under the grant. It must end with the process left
	// behind (logged out, detached) unless held says that somebody goes on looking at it.
	open   string
	held   bool
	tty    bool
	mayNot bool // refused inside the window already, and so needs no process
	seen   string
}

// shapes: every row of DESIGN §6's table and of THREATS' list of escapes.
var shapes = []shape{
	{name: "an open shell on a terminal", open: "$S -tt 'exec bash -c \"sleep 7701; true\"'", held: true, tty: true, seen: "sleep 7701"},
	{name: "a shell without a terminal", open: "$S 'sleep 7702; true'", held: true, seen: "sleep 7702"},
	{name: "a shell that traps TERM and HUP, on a terminal", open: "$S -tt \"trap '' TERM HUP; sleep 7703; true\"", held: true, tty: true, seen: "sleep 7703"},
	{name: "a shell that traps TERM and HUP, without", open: "$S \"trap '' TERM HUP; sleep 7704; true\"", held: true, seen: "sleep 7704"},
	{name: "a logged-out nohup", open: "$S 'nohup sleep 7705 >/dev/null 2>&1 </dev/null &'", seen: "sleep 7705"},
	{name: "a logged-out setsid", open: "$S 'setsid -f sleep 7706 >/dev/null 2>&1 </dev/null'", seen: "sleep 7706"},
	{name: "a double fork that traps TERM", open: "$S '(trap \"\" TERM HUP; setsid sh -c \"sleep 7707; true\" >/dev/null 2>&1 </dev/null &) &'", seen: "sleep 7707"},
	{name: "a ControlMaster", open: "$S -M -S /home/alice/master -fN && ssh -S /home/alice/master postgres@localhost 'setsid -f sleep 7708 >/dev/null 2>&1 </dev/null'", seen: "sleep 7708"},
	{name: "sftp", open: "$S -s sftp", held: true, seen: "sftp-server"},
	{name: "-N -L", open: "$S -N -L 7709:localhost:22", held: true, seen: "sshd: postgres$"},
	{name: "tmux", open: "$S 'tmux -L pim new-session -d \"sleep 7710\"'", seen: "sleep 7710"},
	{name: "systemd-run --user", open: "$S 'systemd-run --user sleep 7711'", mayNot: true, seen: "sleep 7711"},
	{name: "at", open: "$S 'echo sleep 7712 | at now'", mayNot: true, seen: "sleep 7712"},
	{name: "cron", open: "$S 'echo \"* * * * * sleep 7713\" | crontab -'", mayNot: true, seen: "sleep 7713"},
	{name: "a fork storm: each child leaves before it is looked at", seen: "sleep 7722", // ten at a time
		open: `$S 'H="timeout 1 sleep 7722 & sleep 0.1; setsid -f sh -c \"\$H\""; export H; setsid -f sh -c "$H" >/dev/null 2>&1 </dev/null'`},
	{name: "linger enabled by hand", open: "sudo -n loginctl enable-linger postgres; $S 'systemd-run --user sleep 7723'", mayNot: true, seen: "sleep 7723"},
	{name: "sudo", open: "sudo -n -u postgres sleep 7714", held: true, seen: "^ *[0-9]+ postgres .*sleep 7714"},
	{name: "sudo on a terminal", open: "sudo -n -u postgres sleep 7715", held: true, tty: true, seen: "^ *[0-9]+ postgres .*sleep 7715"},
	{name: "sudo -b", open: "sudo -n -b -u postgres sleep 7716 >/dev/null 2>&1 </dev/null", seen: "^ *[0-9]+ postgres .*sleep 7716"},
	{name: "sudo -i", open: "sudo -n -i sleep 7717", held: true, tty: true, seen: "^ *[0-9]+ root .*sleep 7717"},
	{name: "sudo su -", open: "sudo -n su - -c 'sleep 7718; true'", held: true, tty: true, seen: "^ *[0-9]+ root .*sleep 7718"},
	{name: "sudo runuser -l", open: "sudo -n runuser -l postgres -c 'sleep 7719; true'", held: true, seen: "^ *[0-9]+ postgres .*sleep 7719"},
	{name: "sudo, logged out with setsid", open: "sudo -n setsid -f sleep 7720 >/dev/null 2>&1 </dev/null", seen: "^ *[0-9]+ root .*sleep 7720"},
	{name: "sudo that traps TERM and HUP", open: "sudo -n sh -c \"trap '' TERM HUP; sleep 7721; true\"", held: true, tty: true, seen: "^ *[0-9]+ root .*sleep 7721"},
}

// TestDeadSystemLapse is promise two: each shape is opened, then everything of ours is killed and masked and the network
// cut; after the end nothing starts and nothing lives. It runs on an ordinary machine, on one whose logind was dead before
// anybody logged in, and on a cgroup-hybrid one, all with no broker anywhere.
func TestDeadSystemLapse(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), []string{"db1", "web1", "h3"}, "--hybrid", "h3")
	for sentence, host := range map[string]string{"an ordinary machine": "db1", "logind dead before login": "web1", "a cgroup-hybrid machine": "h3"} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			s.lapse(t, host, sentence == "logind dead before login")
		})
	}
}

func (s *stage) lapse(t *testing.T, host string, logindDead bool) {
	if logindDead {
		s.root(t, host, "systemctl mask --now --runtime systemd-logind.service").Want(t, 0)
	}
	// Two overlapping grants: each sudo run belongs to both, and must end with the first although the other goes on.
	key := newKey(t)
	first := s.w.Granted("alice", "db-admin", hostName(host), seconds(window), key, "bob")
	grant, err := broker.Prove(s.w.Chain, first)
	if err != nil {
		t.Fatal(err)
	}
	other := s.w.Granted("alice", "root", hostName(host), seconds(window)+15, key, "bob", "carol")
	s.opened(t, host, s.feed(t, host, first))
	s.opened(t, host, s.feed(t, host, other))
	login := "ssh " + strings.Join(s.carry(t, host, "k", key, s.w.Certificate(first, key, nil)), " ") + " postgres@localhost"
	until := grant.Until.Std()

	s.openShapes(t, host, login)
	s.root(t, host, "systemctl daemon-reload").Want(t, 0)
	if !logindDead {
		s.root(t, host, "systemctl restart systemd-logind").Want(t, 0)
	}
	s.allInside(t, host)
	if time.Now().After(until) {
		t.Fatalf("this machine is too slow: the window of %v ended while shapes were opened", window)
	}

	s.Kill(t, host)
	s.root(t, host, "pkill -KILL -f '^/usr/(sbin|lib)/pim-' || true")
	s.Cut(t, host)
	t.Logf("everything of ours is dead and the network cut %v before the end", time.Until(until).Round(time.Second))

	// The last probes before T+1 may still start; whatever starts at or after it is a hole.
	<-time.After(time.Until(until.Add(time.Second)))
	for _, line := range []string{login + " id", "sudo -n -u postgres id", "sudo -n id"} {
		if got := s.ExecAs(t, host, "alice", "sh", "-c", line); got.Code == 0 || strings.Contains(got.Out, "uid=") {
			t.Errorf("started after the end: %s\n%s", line, got.Out)
		}
	}
	<-time.After(time.Until(until.Add(5 * time.Second)))
	if left := s.alive(t, host, "sleep 77[0-9][0-9]|sftp-server|sshd: postgres|tmux -L pim"); left != "" {
		t.Errorf("alive 5 s after the end:\n%s", left)
	}
	if got := s.ExecAs(t, host, "alice", "sh", "-c", "ssh -S /home/alice/master -o BatchMode=yes postgres@localhost id"); got.Code == 0 {
		t.Error("the ControlMaster opened a session after the end")
	}
	if rule := s.root(t, host, "ls /run/pim-ssh/sudoers.d/").Out; strings.Contains(rule, grant.Stem.SudoersFile()) {
		t.Errorf("the grant's sudoers file outlived it: %s", rule)
	}
}

// openShapes opens them all at once and waits until each is there.
func (s *stage) openShapes(t *testing.T, host, login string) {
	t.Helper()
	for _, shape := range shapes {
		args := []string{"exec", host, "--as", "alice"}
		if shape.tty {
			args = append(args, "-t")
		}
		args = append(args, "--", "sh", "-c", "S='"+strings.ReplaceAll(login, "'", `'\''`)+"'; "+shape.open)
		if shape.held {
			s.BeginLab(t, args...)
			continue
		}
		s.BeginLab(t, args...).Wait(t, 20*time.Second)
	}
	for _, shape := range shapes {
		if shape.mayNot {
			continue
		}
		labtest.WaitFor(t, shape.name+" on "+host, 15*time.Second, func() bool { return s.alive(t, host, shape.seen) != "" })
	}
}

// allInside sees every marked process in a grant's unit, also after a daemon-reload and a restart of logind.
func (s *stage) allInside(t *testing.T, host string) {
	t.Helper()
	seen := 0
	const elevated = `ps -eo pid,user:12,cgroup:200,args | awk '$4 == "sleep" && $5 ~ /^77/ || $4 ~ /sftp-server$/ || $4 == "sshd:" && $5 ~ /^postgres/'`
	for line := range strings.Lines(s.root(t, host, elevated).Out) {
		seen++
		if !strings.Contains(line, "pim-g-") {
			t.Errorf("outside every grant's unit: %s", line)
		}
	}
	if seen < 18 {
		t.Errorf("only %d elevated processes seen", seen)
	}
	if sessions := s.root(t, host, "loginctl list-sessions --no-legend 2>/dev/null | grep -E 'postgres|root' || true").Out; sessions != "" {
		t.Errorf("logind holds sessions of governed accounts:\n%s", sessions)
	}
}

func seconds(d time.Duration) statement.Seconds { return statement.Seconds(d / time.Second) }

func hostName(machine string) statement.HostName { return statement.HostName(machine) }
