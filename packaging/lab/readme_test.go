//go:build lab

package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pim-ssh/packaging/lab/labtest"
)

// A line of the README that somebody types: "db1#" is root on db1, "dave$" is dave at desk.
var typedLine = regexp.MustCompile(`(?m)^    ([a-z0-9]+)([#$])  +(.+?)(?:  +#.*)?$`)

// TestTheReadmesOwnLines takes bare machines to a host that enforces by what README.md says, word for word. What it says in
// prose is done here: the packages lie where each is installed, files go from hand to hand, the policy is edited.
func TestTheReadmesOwnLines(t *testing.T) {
	t.Parallel()
	_, rest, found := strings.Cut(string(read(t, filepath.Join(top, "README.md"))), "\n## From nothing to a host that enforces\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	lines := typedLine.FindAllStringSubmatch(section, -1)
	if !found || len(lines) < 10 || !strings.Contains(section, "apt install ./pim-ssh-host_*.deb") {
		t.Fatalf("README.md has no such section any more:\n%s", section)
	}
	l := labtest.Up(t, "--bare")
	for machine, name := range map[string]string{"desk": "pim-ssh", "b1": "pim-ssh-broker", "db1": "pim-ssh-host"} {
		file := packages(t)[name]
		l.Put(t, machine, "/root/"+filepath.Base(file), 0o644, read(t, file))
	}
	r := &reading{Lab: l}
	for _, line := range lines {
		r.does(t, line[1], line[2] == "#", line[3])
	}
	r.enforces(t)
}

// reading is a README being followed.
type reading struct {
	*labtest.Lab
	stanza string // what pim-brokerd init printed
}

// does types one line, after what its words take for granted.
func (r *reading) does(t *testing.T, who string, root bool, line string) {
	t.Helper()
	t.Logf("%s: %s", who, line)
	for _, file := range []string{"chain", "db1.token"} {
		if root && strings.HasSuffix(line, " "+file) {
			r.Put(t, who, "/root/"+file, 0o600, r.Get(t, "desk", "/home/dave/"+file))
		}
	}
	var said labtest.Result
	if root {
		said = r.Exec(t, who, "bash", "-ec", line)
	} else {
		if strings.Contains(line, "EDITOR") {
			r.Put(t, "desk", "/srv/edited", 0o644, r.edited(t))
			r.Put(t, "desk", "/srv/edit", 0o755, []byte("#!/bin/sh\ntest -s \"$1\" && cp /srv/edited \"$1\"\n"))
		}
		said = r.As(t, who, "env", "EDITOR=/srv/edit", "bash", "-ec", line)
	}
	said.Want(t, 0)
	if strings.Contains(line, "pim-brokerd init") {
		r.stanza = said.Out
	}
}

// edited is the lab's policy with the people's keys and the broker's own lines.
func (r *reading) edited(t *testing.T) []byte {
	t.Helper()
	text := string(read(t, "policy.yaml"))
	for _, person := range regexp.MustCompile(`@([a-z]+)@"`).FindAllStringSubmatch(text, -1) {
		key, err := os.ReadFile(filepath.Join("/run/pim-lab", r.Name(), "keys", person[1]+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		text = strings.Replace(text, "@"+person[1]+"@", strings.TrimSpace(string(key)), 1)
	}
	return []byte(strings.Replace(text, "brokers:\n@brokers@\n", r.stanza, 1))
}

// enforces: nobody gets in without a grant, and alice does with one.
func (r *reading) enforces(t *testing.T) {
	t.Helper()
	labtest.WaitFor(t, "db1 enrolled at its broker", 10*time.Second, func() bool {
		return strings.Contains(r.As(t, "dave", "pim-ssh", "host", "list").Out, "db1")
	})
	r.Put(t, "db1", "/etc/sudoers.d/mallory", 0o440, []byte("mallory ALL=(ALL:ALL) NOPASSWD: ALL\n"))
	r.As(t, "mallory", "ssh", "db1", "sudo -n id").Refused(t)
	for _, person := range []string{"alice", "bob"} {
		r.Put(t, "desk", "/srv/chain", 0o644, r.Get(t, "desk", "/home/dave/chain"))
		r.As(t, person, "pim-ssh", "join", "/srv/chain").Want(t, 0)
	}
	r.As(t, "alice", "ssh", "postgres@db1", "true").Want(t, 255)
	asked := r.Begin(t, "alice", "pim-ssh", "request", "db-admin@db1", "--for", "5m", "--why", "INC-42 replica lag")
	asked.Expect(t, "waiting", 10*time.Second)
	id := regexp.MustCompile(`r-[a-z2-7]{9}`).FindString(asked.Output())
	r.As(t, "bob", "pim-ssh", "approve", "--yes", id).Want(t, 0)
	asked.Wait(t, 10*time.Second).Want(t, 0)
	if got := r.As(t, "alice", "ssh", "postgres@db1", "id -un").Want(t, 0).Out; got != "postgres\n" {
		t.Errorf("with her grant alice is %q", got)
	}
	r.As(t, "alice", "ssh", "db1", "sudo -n -u postgres id").Want(t, 0)
}
