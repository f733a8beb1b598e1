//go:build lab

package lab

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"pim-ssh/packaging/lab/labtest"
)

// TestRestore is what an operator does when the brokers' disks are gone, on real machines, and what it does to a session that
// somebody has open. Each sentence builds on those before it.
func TestRestore(t *testing.T) {
	t.Parallel()
	r := &burnt{settled: settled{labtest.Up(t, "--brokers", "3")}, whole: t}
	for _, chapter := range []struct {
		sentence string
		tell     func(*burnt, *testing.T)
	}{
		{"a backup is made while people work, and nobody reads it without the key", (*burnt).backedUp},
		{"a backup that lacks what a host has seen is refused without a reason", (*burnt).refused},
		{"three wiped brokers are restored, and the session of a live grant ends on its host", (*burnt).restored},
		{"a grant that was revoked after the backup does not live again, and people ask anew", (*burnt).afterwards},
		{"a broker that returns with its old disk is refused with a sentence", (*burnt).oldDisk},
		{"two disks lost for ever: the survivor's is exported and restored, with the same effect", (*burnt).survivor},
	} {
		if !t.Run(chapter.sentence, func(t *testing.T) { chapter.tell(r, t) }) {
			return
		}
	}
}

// burnt is a deployment whose brokers lose their disks.
type burnt struct {
	settled
	public  string     // of the key that backups are for
	events  int        // in the first backup
	whole   *testing.T // sessions go on from chapter to chapter
	shell   *labtest.Session
	revoked string // erin's grant
	quarter string // where b3's old disk lies
}

const (
	ageKey = "/home/dave/backup.key"
	// whyBackup is in every event of alice's: nobody may read it in a backup.
	whyBackup = "INC-42-canary"
)

// works opens a session of alice's on db1 that goes on until somebody ends it.
func (r *burnt) works(t *testing.T, marker string) {
	t.Helper()
	id := strings.TrimSpace(r.pim(t, "alice", "request", "db-admin@db1", "--for", "30m", "--why", whyBackup, "--no-wait", "--quiet").Want(t, 0).Out)
	r.approve(t, id, "bob")
	r.pim(t, "alice", "cert", grantOf(id)).Want(t, 0)
	labtest.WaitFor(t, "db1 to hear of the grant", 20*time.Second, func() bool { return r.As(t, "alice", "ssh", "postgres@db1", "true").Code == 0 })
	r.shell = r.Begin(r.whole, "alice", "ssh", "-tt", "postgres@db1", "echo in; exec sleep "+marker)
	r.shell.Expect(t, "in", 10*time.Second)
	r.starts(t, "db1", "sleep "+marker)
}

func (r *burnt) backedUp(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r.public = key.Recipient().String()
	r.Put(t, "desk", ageKey, 0o600, []byte(key.String()+"\n"))
	r.Exec(t, "desk", "chown", "dave:", ageKey).Want(t, 0)
	r.works(t, "7001")
	begun := time.Now()
	got := r.pim(t, "dave", "cluster", "backup", "/home/dave/backup", "--to", r.public).Want(t, 0)
	t.Logf("backed up in %v: %s", time.Since(begun).Round(time.Millisecond), got.Err)
	if _, err := fmt.Sscan(got.Err, &r.events); err != nil {
		t.Fatalf("%v: %s", err, got.Err)
	}
	if copied := r.Get(t, "desk", "/home/dave/backup"); bytes.Contains(copied, []byte(whyBackup)) || bytes.Contains(copied, []byte("alice")) {
		t.Error("the backup can be read")
	}
	r.revoked = r.grant(t, "erin", "db-admin@db1", "30m", "carol")
	labtest.WaitFor(t, "db1 to hear of erin's grant", 20*time.Second, func() bool { return r.As(t, "erin", "ssh", "postgres@db1", "true").Code == 0 })
	r.pim(t, "dave", "revoke", r.revoked).Want(t, 0)
	labtest.WaitFor(t, "erin shut out", 10*time.Second, func() bool { return r.As(t, "erin", "ssh", "postgres@db1", "true").Code != 0 })
}

// sign has dave restore a backup, and returns the file for the brokers.
func (r *burnt) sign(t *testing.T, code int, backup, to string, more ...string) labtest.Result {
	t.Helper()
	words := []string{"cluster", "restore", backup, "--identity", ageKey, "--why", "fire in the machine room", "--yes", "-o", to}
	return r.pim(t, "dave", append(words, more...)...).Want(t, code)
}

func (r *burnt) refused(t *testing.T) {
	labtest.WaitFor(t, "db1 to have seen more than the backup", 90*time.Second, func() bool { // it proves a longer record once a minute
		seen := r.Get(t, "db1", "/var/lib/pim-ssh/host/checkpoint")
		r.Put(t, "desk", "/home/dave/seen", 0o644, seen)
		lines := strings.Split(string(seen), "\n")
		size, err := strconv.Atoi(lines[1])
		return err == nil && size > r.events
	})
	if got := r.sign(t, 7, "/home/dave/backup", "/home/dave/epoch", "--seen", "/home/dave/seen"); !strings.Contains(got.Err, "revocations too") {
		t.Errorf("it says\n%s", got.Err)
	}
	got := r.sign(t, 0, "/home/dave/backup", "/home/dave/epoch", "--seen", "/home/dave/seen", "--despite", "no newer backup is left")
	if !strings.Contains(got.Err, "despite") || !strings.Contains(got.Err, "restore, epoch 1") {
		t.Errorf("it says\n%s", got.Err)
	}
}

// lose takes the disks of brokers away, as a fire would: nothing of them is left but their keys.
func (r *burnt) lose(t *testing.T, names ...string) {
	t.Helper()
	for _, b := range names {
		r.Exec(t, b, "systemctl", "stop", "pim-brokerd").Want(t, 0)
	}
	for _, b := range names {
		r.Exec(t, b, "sh", "-c", "cd /var/lib/pim-ssh/broker && rm -rf disk raft.db events.db snapshots").Want(t, 0)
	}
}

// restoreAll gives the file to each broker and starts them.
func (r *burnt) restoreAll(t *testing.T, file string) {
	t.Helper()
	made := r.Get(t, "desk", file)
	for _, b := range brokers {
		r.Put(t, b, "/root/epoch", 0o600, made)
		got := r.Exec(t, b, "pim-brokerd", "restore", "/root/epoch").Want(t, 0)
		if b == "b1" {
			t.Log(got.Out)
		}
	}
	for _, b := range brokers {
		r.Exec(t, b, "systemctl", "start", "pim-brokerd").Want(t, 0)
	}
	r.back(t)
}

// ends waits until alice's session is gone from db1.
func (r *burnt) ends(t *testing.T, marker string, from time.Time) {
	t.Helper()
	labtest.WaitFor(t, "the end of what runs on db1", 30*time.Second, func() bool { return len(r.running(t, "db1", "sleep "+marker)) == 0 })
	t.Logf("alice's session was gone %v after the brokers were started", time.Since(from).Round(time.Millisecond))
	journal := r.Journal(t, "db1", "pim-hostd")
	if !strings.Contains(journal, "THE BROKERS WERE RESTORED") {
		t.Errorf("db1 does not say why:\n%s", journal)
	}
	if r.As(t, "alice", "ssh", "postgres@db1", "true").Code == 0 {
		t.Error("alice's certificate still opens db1")
	}
}

func (r *burnt) restored(t *testing.T) {
	r.quarter = "/root/old-disk"
	r.Exec(t, "b3", "systemctl", "stop", "pim-brokerd").Want(t, 0)
	r.Exec(t, "b3", "sh", "-c", "mkdir -p "+r.quarter+" && cp -a /var/lib/pim-ssh/broker/. "+r.quarter).Want(t, 0)
	r.lose(t, brokers...)
	if len(r.running(t, "db1", "sleep 7001")) == 0 {
		t.Error("the session ended with the brokers: a dead system ends nothing early")
	}
	begun := time.Now()
	r.restoreAll(t, "/home/dave/epoch")
	r.ends(t, "7001", begun)
}

func (r *burnt) afterwards(t *testing.T) {
	if r.As(t, "erin", "ssh", "postgres@db1", "true").Code == 0 {
		t.Error("erin's revoked grant lives again")
	}
	r.closed(t, "erin", "db1", "postgres")
	r.works(t, "7002")
	got := r.pim(t, "frank", "audit", "verify").Want(t, 0)
	if !strings.Contains(got.Err, "epoch 1 begins at event") || strings.Count(got.Out, ": sound: ") != 3 {
		t.Errorf("the auditor hears\n%s%s", got.Out, got.Err)
	}
}

func (r *burnt) oldDisk(t *testing.T) {
	r.Exec(t, "b3", "systemctl", "stop", "pim-brokerd").Want(t, 0)
	r.Exec(t, "b3", "pim-brokerd", "quarantine").Want(t, 0)
	r.Exec(t, "b3", "sh", "-c", "cp -a "+r.quarter+"/disk "+r.quarter+"/raft.db "+r.quarter+"/events.db "+r.quarter+"/snapshots /var/lib/pim-ssh/broker/").Want(t, 0)
	r.Exec(t, "b3", "systemctl", "start", "pim-brokerd").Want(t, 0)
	labtest.WaitFor(t, "b3 to say why nobody speaks to it", 30*time.Second, func() bool {
		return strings.Contains(r.Journal(t, "b3", "pim-brokerd"), "pim-brokerd quarantine, then pim-brokerd restore FILE")
	})
	r.pim(t, "alice", "whoami").Want(t, 0) // the other two go on
	if len(r.running(t, "db1", "sleep 7002")) == 0 {
		t.Error("the old broker ended a session of the new epoch")
	}
	r.Exec(t, "b3", "systemctl", "stop", "pim-brokerd").Want(t, 0)
	r.Exec(t, "b3", "pim-brokerd", "quarantine").Want(t, 0)
	r.Exec(t, "b3", "pim-brokerd", "restore", "/root/epoch").Want(t, 0)
	r.Exec(t, "b3", "systemctl", "start", "pim-brokerd").Want(t, 0)
	r.back(t)
}

func (r *burnt) survivor(t *testing.T) {
	survivor := r.leader(t)
	r.lose(t, theOthers(survivor)...)
	if got := r.Exec(t, survivor, "pim-brokerd", "export", "/root/survivor", "--to", r.public).Want(t, 1); !strings.Contains(got.Err, "systemctl stop pim-brokerd") {
		t.Errorf("while it runs: %s", got.Err)
	}
	r.Exec(t, survivor, "systemctl", "stop", "pim-brokerd").Want(t, 0)
	t.Log(r.Exec(t, survivor, "pim-brokerd", "export", "/root/survivor", "--to", r.public).Want(t, 0).Out)
	r.Put(t, "desk", "/home/dave/survivor", 0o644, r.Get(t, survivor, "/root/survivor"))
	r.Put(t, "desk", "/home/dave/seen-now", 0o644, r.Get(t, "db1", "/var/lib/pim-ssh/host/checkpoint"))
	r.sign(t, 0, "/home/dave/survivor", "/home/dave/epoch2", "--seen", "/home/dave/seen-now") // it lacks nothing that db1 has seen
	r.Exec(t, survivor, "pim-brokerd", "quarantine").Want(t, 0)
	begun := time.Now()
	r.restoreAll(t, "/home/dave/epoch2")
	r.ends(t, "7002", begun)
	r.works(t, "7003")
}
