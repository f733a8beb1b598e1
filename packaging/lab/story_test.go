//go:build lab

package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/labtest"
)

// TestStory is DESIGN §1, told on one lab from the beginning to the end; each sentence builds on those before it.
func TestStory(t *testing.T) {
	t.Parallel()
	s := settled{labtest.Up(t)}
	for _, chapter := range []struct {
		sentence string
		tell     func(settled, *testing.T)
	}{
		{"without a grant ssh is refused, sudo exits 1, and nothing starts", settled.nobodyIsRoot},
		{"asked and approved it works on the hosts of the scope and nowhere else, in the session she had already", settled.granted},
		{"nobody approves a request of their own, and nobody counts twice", settled.quorum},
		{"a denied or a withdrawn request stays dead, also when its statements are sent again", settled.deadRequests},
		{"everybody sees what concerns them, in the fields that scripts rely on", settled.fields},
		{"each way to end has its exit code", settled.exitCodes},
		{"hosts are known, and open windows work, with the broker dead", settled.brokerDead},
		{"a window outlives the restart of broker and agent, kill -9 too", settled.restarts},
		{"every session and refusal reaches the broker's log", settled.reports},
	} {
		t.Run(chapter.sentence, func(t *testing.T) { chapter.tell(s, t) })
	}
}

func (s settled) nobodyIsRoot(t *testing.T) {
	for _, person := range []string{"alice", "bob", "dave"} { // eligible, approver, operator and steward
		s.closed(t, person, "db1", "postgres")
		s.closed(t, person, "db1", "root")
	}
	s.closed(t, "alice", "web1", "deploy")
	for _, line := range []string{"sudo -n -l", "sudo -n -v", "sudo -n -i id", "sudo -n -s id", "sudo -n systemctl restart postgresql"} {
		if got := s.ssh(t, "alice", "alice@db1", line); got.Code != 1 || strings.Contains(got.Out, "uid=") {
			t.Errorf("%s: exit code %d, want 1\n%s%s", line, got.Code, got.Out, got.Err)
		}
	}
}

func (s settled) granted(t *testing.T) {
	shell := s.Begin(t, "alice", "ssh", "-a", "-tt", "alice@db1", "exec bash --norc")
	shell.Type(t, "echo agent=[$SSH_AUTH_SOCK]; sudo -n -u postgres id -un; echo first=$?")
	shell.Expect(t, "first=1", 10*time.Second)
	shell.Expect(t, "agent=[]", time.Second)

	waiting := s.BeginLab(t, "as", "alice", "--", "pim-ssh", "request", "db-admin@db1", "--for", "10m", "--why", "INC-42 replica lag")
	waiting.Expect(t, "waiting for 1 of [bob, carol, gwen]", 10*time.Second)
	id, _, _ := strings.Cut(waiting.Output(), "\n")
	s.mallory(t, id)
	s.closed(t, "alice", "db1", "postgres")
	s.pim(t, "alice", "approve", "--yes", id).Want(t, 3)
	s.pim(t, "erin", "approve", "--yes", id).Want(t, 4)

	if inbox := s.pim(t, "bob", "inbox").Want(t, 0).Out; !strings.Contains(inbox, id[:9]) || !strings.Contains(inbox, "INC-42 replica lag") {
		t.Errorf("bob's inbox:\n%s", inbox)
	}
	s.approve(t, id, "bob")
	got := waiting.Wait(t, 5*time.Second).Want(t, 0)
	if !strings.Contains(got.Out, "\nssh postgres@db1\n") {
		t.Errorf("the request that waited said\n%s", got.Out)
	}
	begun := time.Now()
	if got := s.ssh(t, "alice", "postgres@db1", "id -un").Want(t, 0); got.Out != "postgres\n" {
		t.Errorf("plain ssh: %q", got.Out)
	}
	t.Logf("plain ssh, typed at once, took %v", time.Since(begun).Round(time.Millisecond))
	shell.Type(t, "sudo -n -u postgres id -un; sudo -n systemctl restart postgresql; echo second=$?")
	shell.Expect(t, "postgres\r\nsecond=0", 10*time.Second)
	shell.Type(t, "sudo -n id; echo third=$?")
	shell.Expect(t, "third=1", 10*time.Second)

	s.closed(t, "alice", "web1", "postgres")
	s.closed(t, "alice", "db1", "root")
	s.closed(t, "erin", "db1", "postgres")
	s.mallory(t, id)
	s.pim(t, "alice", "return", grantOf(id)).Want(t, 0)
}

func (s settled) quorum(t *testing.T) {
	id := s.ask(t, "bob", "root@db1", "5m")
	s.pim(t, "bob", "approve", "--yes", id).Want(t, 3)
	s.approve(t, id, "carol")
	s.pim(t, "carol", "approve", "--yes", id).Want(t, 7)
	s.closed(t, "bob", "db1", "root")
	if o := s.object(t, "gwen", id); o["state"] != "pending" || len(o["needs"].([]any)) != 1 {
		t.Errorf("one approval of two: %v", o)
	}
	s.approve(t, id, "gwen")
	s.works(t, "db1", "bob", "sudo -n id")
	s.pim(t, "bob", "ssh", "root@db1", "id").Want(t, 0)
	s.closed(t, "bob", "web1", "root") // a role that reaches every host, on the one that was asked for
	s.pim(t, "bob", "return", grantOf(id)).Want(t, 0)
}

func (s settled) deadRequests(t *testing.T) {
	denied, withdrawn := s.ask(t, "alice", "db-admin@db1", "3m"), s.ask(t, "erin", "db-admin@db1", "3m")
	s.pim(t, "carol", "deny", "--yes", denied, "--why", "not today").Want(t, 0)
	s.pim(t, "erin", "withdraw", withdrawn).Want(t, 0)
	replayed := append(s.proofs(t, denied), s.proofs(t, withdrawn)...)
	if len(replayed) != 4 {
		t.Fatalf("%d statements in the log, want 4", len(replayed))
	}
	for _, p := range replayed {
		if status := s.post(t, p); status != http.StatusOK {
			t.Errorf("the same statement again: status %d, want its first answer", status)
		}
	}
	for id, state := range map[string]string{denied: "denied", withdrawn: "withdrawn"} {
		if got := s.object(t, "bob", id)["state"]; got != state {
			t.Errorf("%s is %v, want %s", id, got, state)
		}
		s.pim(t, "bob", "approve", "--yes", id).Want(t, 7)
	}
	s.pim(t, "alice", "cert", grantOf(denied)).Want(t, 4)
	s.closed(t, "alice", "db1", "postgres")
	s.closed(t, "erin", "db1", "postgres")
	s.mallory(t, denied)
}

// post sends a statement to the broker as anybody on the network could, and returns the HTTP status.
func (s settled) post(t testing.TB, p statement.Proof) int {
	t.Helper()
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	status := 0
	s.Inside(t, func() error {
		conn, err := net.DialTimeout("tcp", "10.77.0.11:7443", 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		request, err := http.NewRequest(http.MethodPost, "https://b1:7443/v1/statements", bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		if err := request.Write(secure); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(secure), request)
		if err != nil {
			return err
		}
		status = response.StatusCode
		text, err := io.ReadAll(response.Body)
		t.Logf("the broker answers %d %s", status, bytes.TrimSpace(text))
		return err
	})
	return status
}

func (s settled) fields(t *testing.T) {
	id := s.ask(t, "alice", "db-admin@db1", "5m")
	request := []string{"brokers_say", "decisions", "duration", "expires_at", "filed_at", "grant", "id", "needs", "person", "reason", "role", "scope", "state", "ticket"}
	grant := []string{"accounts", "ended_by", "from", "hosts", "id", "person", "phase", "request", "role", "until"}
	holds := func(id, key, want string, all []string) {
		t.Helper()
		for _, person := range []string{"alice", "bob", "dave", "frank"} { // asker, approver, operator, auditor
			o := s.object(t, person, id)
			if diff := cmp.Diff(all, slices.Sorted(maps.Keys(o))); diff != "" {
				t.Errorf("%s's view of %s (-want +got):\n%s", person, id, diff)
			}
			if o[key] != want {
				t.Errorf("%s's view of %s: %s is %v, want %s", person, id, key, o[key], want)
			}
		}
	}
	holds(id, "state", "pending", request)
	s.approve(t, id, "gwen")
	holds(id, "state", "approved", request)
	holds(grantOf(id), "phase", "active", grant)
	for key, want := range map[string]any{"role": "db-admin", "person": "alice", "request": id, "ended_by": ""} {
		if got := s.object(t, "alice", grantOf(id)[:12])[key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	s.pim(t, "dave", "revoke", grantOf(id)).Want(t, 0)
	holds(grantOf(id), "phase", "revoked", grant)
	holds(grantOf(id), "ended_by", "dave", grant)
	for _, list := range [][]string{{"inbox"}, {"status", "--all"}, {"roles"}, {"whoami"}, {"host", "list"}} {
		got := s.pim(t, "bob", append(list, "-o", "json")...).Want(t, 0)
		for line := range strings.Lines(got.Out) {
			if !json.Valid([]byte(line)) || line[0] != '{' {
				t.Errorf("pim-ssh %v -o json: %s", list, line)
			}
		}
	}
}
