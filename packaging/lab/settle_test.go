//go:build lab

package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pim-ssh/packaging/lab/labtest"
)

// TestLabSettles holds what DESIGN §9 says of a lab that is up: everybody joined, every host enrolled, enforcing and
// reached by its broker.
func TestLabSettles(t *testing.T) {
	t.Parallel()
	l := labtest.Up(t)
	for line := range strings.Lines(l.Do(t, "status", "-o", "json").Out) {
		var machine struct {
			Machine, Kind, Daemon string
		}
		if err := json.Unmarshal([]byte(line), &machine); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if want := map[string]string{"broker": "active", "host": "active", "desk": "none"}[machine.Kind]; machine.Daemon != want {
			t.Errorf("the daemon on %s is %s, want %s", machine.Machine, machine.Daemon, want)
		}
	}
	for _, person := range []string{"alice", "erin", "bob", "carol", "gwen", "dave", "frank", "mallory"} {
		l.As(t, person, "pim-ssh", "whoami").Want(t, 0)
	}
	hosts := l.As(t, "dave", "pim-ssh", "host", "list").Want(t, 0).Out
	for _, host := range []string{"db1", "web1"} {
		if !strings.Contains(hosts, host) {
			t.Errorf("dave's list of hosts lacks %s:\n%s", host, hosts)
		}
		l.Exec(t, host, "test", "-d", "/var/lib/pim-ssh/enforcing").Want(t, 0)
	}
	l.Kill(t, "b1")
	l.As(t, "alice", "pim-ssh", "whoami").Want(t, 69)
	l.Start(t, "b1")
	l.As(t, "alice", "pim-ssh", "whoami").Want(t, 0)
}

// TestLabTakesAnotherPolicy gives `lab up` a policy that names no role.
func TestLabTakesAnotherPolicy(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, _, found := strings.Cut(string(whole), "roles:\n")
	if !found {
		t.Fatal("policy.yaml has no roles")
	}
	other := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(other, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	l := labtest.Up(t, "--hosts", "1", "--policy", other)
	l.As(t, "alice", "pim-ssh", "request", "db-admin@db1", "--for", "1m", "--why", "x", "--no-wait").Want(t, 4)
}
