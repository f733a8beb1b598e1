//go:build lab

package lab

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/labtest"
)

// settled is a lab as `lab up` leaves it: a broker, a policy, people who joined, hosts that enforce. Tests do on it what people do.
type settled struct{ *labtest.Lab }

// pim runs pim-ssh on desk as a person.
func (s settled) pim(t testing.TB, person string, args ...string) labtest.Result {
	t.Helper()
	return s.As(t, person, append([]string{"pim-ssh"}, args...)...)
}

// ask files a request and returns its id.
func (s settled) ask(t testing.TB, person, target, length string) string {
	t.Helper()
	got := s.pim(t, person, "request", target, "--for", length, "--why", t.Name(), "--no-wait", "--quiet").Want(t, 0)
	return strings.TrimSpace(got.Out)
}

func (s settled) approve(t testing.TB, id string, by ...string) {
	t.Helper()
	for _, person := range by {
		s.pim(t, person, "approve", "--yes", "--quiet", id).Want(t, 0)
	}
}

// grant asks, has it approved and collects the certificate; it returns the grant's id.
func (s settled) grant(t testing.TB, person, target, length string, by ...string) string {
	t.Helper()
	id := s.ask(t, person, target, length)
	s.approve(t, id, by...)
	id = grantOf(id)
	s.pim(t, person, "cert", id).Want(t, 0)
	return id
}

func grantOf(request string) string { return "g-" + strings.TrimPrefix(request, "r-") }

// ssh is plain ssh of a person at desk, which never asks.
func (s settled) ssh(t testing.TB, person, destination, line string) labtest.Result {
	t.Helper()
	return s.As(t, person, sshLine(destination, line)...)
}

func sshLine(destination, line string) []string {
	return []string{"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", destination, line}
}

// works waits until a line that a person types in their own account on a machine succeeds: a host opens a grant a moment after the
// broker did, and sudo asks no network.
func (s settled) works(t testing.TB, machine, person, line string) {
	t.Helper()
	begun := time.Now()
	labtest.WaitFor(t, person+" on "+machine+": "+line, 3*time.Second, func() bool { return s.ExecAs(t, machine, person, "sh", "-c", line).Code == 0 })
	if took := time.Since(begun); took > time.Second {
		t.Logf("%s worked after %v", line, took.Round(time.Millisecond))
	}
}

// closed fails the test unless ssh is refused by the host, and sudo exits 1 and starts nothing.
func (s settled) closed(t *testing.T, person, machine, account string) {
	t.Helper()
	if got := s.ssh(t, person, account+"@"+machine, "id"); got.Code != 255 || got.Out != "" {
		t.Errorf("ssh %s@%s as %s: exit code %d, want 255\n%s%s", account, machine, person, got.Code, got.Out, got.Err)
	}
	got := s.ssh(t, person, person+"@"+machine, "sudo -n -u "+account+" touch /tmp/started")
	if got.Code != 1 || got.Out != "" {
		t.Errorf("sudo -u %s on %s as %s: exit code %d, want 1\n%s%s", account, machine, person, got.Code, got.Out, got.Err)
	}
	s.Exec(t, machine, "test", "!", "-e", "/tmp/started").Want(t, 0)
}

// mallory tries what she can at any step, on a request that is under way or over.
func (s settled) mallory(t *testing.T, id string) {
	t.Helper()
	s.closed(t, "mallory", "db1", "postgres")
	for _, try := range [][]string{
		{"request", "db-admin@db1", "--why", "mine"}, {"show", id}, {"approve", "--yes", id}, {"deny", "--yes", id}, {"cert", grantOf(id)},
		{"ssh", "postgres@db1", "id"},
	} {
		if got := s.pim(t, "mallory", try...); got.Code != 4 || strings.Contains(got.Out, "alice") {
			t.Errorf("mallory's pim-ssh %v: exit code %d, want 4\n%s%s", try, got.Code, got.Out, got.Err)
		}
	}
	for _, how := range [][]string{{"withdraw", id}, {"return", grantOf(id)}, {"revoke", grantOf(id)}} {
		s.pim(t, "mallory", how...).Refused(t)
	}
	if got := s.pim(t, "mallory", "inbox", "-o", "json").Want(t, 0); got.Out != "" {
		t.Errorf("mallory's inbox holds %s", got.Out)
	}
}

// object is what a person's pim-ssh prints with -o json about one request or grant.
func (s settled) object(t testing.TB, person, id string) map[string]any {
	t.Helper()
	var o map[string]any
	got := s.pim(t, person, "show", "-o", "json", id).Want(t, 0)
	if err := json.Unmarshal([]byte(got.Out), &o); err != nil {
		t.Fatalf("%v\n%s", err, got.Out)
	}
	return o
}

// event is a line of the broker's log, as far as these tests read it.
type event struct {
	Index uint64
	Kind  string
	Host  string
	Proof statement.Proof
}

var eventStart = regexp.MustCompile(`\{"v":1,"index":[0-9]+,`)

// log reads the committed events off b1's disk, in no particular order.
func (s settled) log(t testing.TB) map[uint64]event { t.Helper(); return s.logOf(t, "b1") }

func (s settled) logOf(t testing.TB, broker string) map[uint64]event {
	t.Helper()
	disk := s.Get(t, broker, "/var/lib/pim-ssh/broker/events.db")
	events := map[uint64]event{}
	for _, at := range eventStart.FindAllIndex(disk, -1) {
		var e event
		if json.NewDecoder(bytes.NewReader(disk[at[0]:])).Decode(&e) == nil {
			events[e.Index] = e
		}
	}
	return events
}

// proofs are the statements in the log that concern a request: its own, decisions on it, its end.
func (s settled) proofs(t testing.TB, id string) []statement.Proof {
	t.Helper()
	events := s.log(t)
	var hash string
	for _, e := range events {
		if e.Kind == "RequestFiled" && string(broker.StemOf(e.Proof.Hash()).Request()) == id {
			hash = e.Proof.Hash().String()
		}
	}
	var found []statement.Proof
	for _, e := range events {
		if hash != "" && (e.Proof.Hash().String() == hash || bytes.Contains(e.Proof.Payload, []byte(hash)) || bytes.Contains(e.Proof.Payload, []byte(id))) {
			found = append(found, e.Proof)
		}
	}
	return found
}

// running lists the processes on a machine whose whole command line is words, as seen from outside: it costs the machine nothing.
func (s settled) running(t testing.TB, machine, words string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	want := []byte(strings.ReplaceAll(words, " ", "\x00"))
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		if !bytes.Equal(bytes.TrimRight(line, "\x00"), want) {
			continue
		}
		cgroup, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup"))
		if strings.Contains(string(cgroup), "/pim-lab/"+s.Name()+"/"+machine+"/") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, pid)
		}
	}
	return found
}

// starts waits until such a process runs.
func (s settled) starts(t testing.TB, machine, words string) {
	t.Helper()
	labtest.WaitFor(t, words+" on "+machine, 10*time.Second, func() bool { return len(s.running(t, machine, words)) > 0 })
}
