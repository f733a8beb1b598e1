//go:build lab

package lab

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/labtest"
)

const (
	recordDir = "/var/lib/pim-ssh/broker/record/"
	seenHead  = "/var/lib/pim-ssh/host/checkpoint"
)

// TestRecord has people do things on real machines and frank audit them; then b1 is the attacker's: its disk, and its log key.
func TestRecord(t *testing.T) {
	t.Parallel()
	s := settled{labtest.Up(t)}
	id := s.grant(t, "alice", "db-admin@db1", "10m", "bob")
	s.works(t, "db1", "alice", "sudo -n -u postgres true")
	s.pim(t, "alice", "return", id).Want(t, 0)
	labtest.WaitFor(t, "db1's report of the session in the record", 20*time.Second, func() bool {
		return strings.Contains(s.pim(t, "frank", "audit", "list").Out, "session closed")
	})
	t.Run("an auditor finds the record sound, and nobody else reads it", s.soundRecord)
	t.Run("one request's story, each signature with its verdict", func(t *testing.T) { s.toldStory(t, id) })
	t.Run("reports carry the head that the host has verified", s.reportedHeads)
	t.Run("a byte changed on the broker's disk is named, and a restart makes the record anew", s.flippedByte)
	t.Run("a host that was shown another log says so, and the audit names it", s.splitView)
}

func (s settled) soundRecord(t *testing.T) {
	if got := s.pim(t, "frank", "audit", "verify").Want(t, 0).Out; !strings.Contains(got, "b1: sound: ") {
		t.Errorf("it says %s", got)
	}
	for _, person := range []string{"alice", "dave", "mallory"} {
		s.pim(t, person, "audit", "verify").Want(t, 3)
	}
}

func (s settled) toldStory(t *testing.T, id string) {
	told := s.pim(t, "frank", "audit", "show", id).Want(t, 0).Out
	for _, line := range []string{"alice asks for db-admin", "holds: alice SHA256:", "bob approve", "holds: bob SHA256:", "alice may use db-admin on db1",
		"db1 session opened for postgres", "db1 session closed for postgres", "alice gives it back"} {
		if !strings.Contains(told, line) {
			t.Errorf("the story lacks %q:\n%s", line, told)
		}
	}
}

func (s settled) reportedHeads(t *testing.T) {
	heads := 0
	for line := range strings.Lines(s.pim(t, "frank", "audit", "list", "-o", "json").Want(t, 0).Out) {
		var event struct {
			Kind  string
			Proof statement.Proof
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		var report statement.Report
		if event.Kind == "HostReported" && statement.DecodeStrict(event.Proof.Payload, &report) == nil && report.Log.Size > 0 {
			heads++
		}
	}
	if heads == 0 {
		t.Error("no report carries a head")
	}
}

func (s settled) flippedByte(t *testing.T) {
	tile := strings.TrimSpace(s.Exec(t, "b1", "sh", "-c", "cd "+recordDir+" && ls -d tile/entries/*.p/*").Want(t, 0).Out)
	s.Exec(t, "b1", "sh", "-c", "printf X | dd of="+recordDir+tile+" bs=1 seek=300 conv=notrunc").Want(t, 0)
	got := s.pim(t, "frank", "audit", "verify").Want(t, 1)
	if !strings.Contains(got.Err, "the record of b1: "+tile) || !strings.Contains(got.Err, tile+": event 0: it was changed after it was signed") {
		t.Errorf("it says %s", got.Err)
	}
	s.Exec(t, "b1", "systemctl", "restart", "pim-brokerd").Want(t, 0)
	labtest.WaitFor(t, "a sound record again", 10*time.Second, func() bool { return s.pim(t, "frank", "audit", "verify").Code == 0 })
}

// splitView has b1 sign another log for db1 than for everybody else: db1 has verified that one first.
func (s settled) splitView(t *testing.T) {
	key, err := ssh.ParsePrivateKey(s.Get(t, "b1", "/var/lib/pim-ssh/broker/log"))
	if err != nil {
		t.Fatal(err)
	}
	origin, _, _ := strings.Cut(string(s.Get(t, "b1", recordDir+"checkpoint")), "\n")
	deployment, err := statement.ParseHash(strings.TrimPrefix(origin, "pim-ssh/"))
	if err != nil {
		t.Fatal(err)
	}
	another, err := audit.Sign(audit.Checkpoint{Deployment: deployment, LogHead: statement.LogHead{Size: 3, Root: statement.HashOf([]byte("another log"))}}, key)
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "db1", "systemctl", "stop", "pim-hostd.service").Want(t, 0)
	s.Put(t, "db1", seenHead, 0o600, another)
	s.Exec(t, "db1", "systemctl", "start", "pim-hostd.service").Want(t, 0)
	labtest.WaitFor(t, "db1's journal to tell of it", 15*time.Second, func() bool {
		return strings.Contains(s.Exec(t, "db1", "journalctl", "-u", "pim-hostd", "-b").Out, "A BROKER'S RECORD CONTRADICTS WHAT THIS HOST HAS SEEN")
	})
	labtest.WaitFor(t, "the audit to name it", 20*time.Second, func() bool {
		got := s.pim(t, "frank", "audit", "verify")
		return got.Code == 1 && strings.Contains(got.Err, "host db1 was shown a log of 3 events") && strings.Contains(got.Err, "host db1 reported")
	})
	if string(s.Get(t, "db1", seenHead)) != string(another) {
		t.Error("db1 has forgotten what it was shown")
	}

}
