package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/backup"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// ageKey VARIABLE FILE makes a key as age-keygen does: the secret half in a file, the public one in a variable.
func ageKey(ts *testscript.TestScript, _ bool, args []string) {
	key, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Setenv(args[0], key.Recipient().String())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte("# created by a test\n"+key.String()+"\n"), 0o600))
}

// backup writes the book as a backup, signed with a log key, and the key that opens it.
func (b *book) backup(dir string, head []byte) (file, identity string) {
	b.t.Helper()
	key, err := age.GenerateX25519Identity()
	b.must(err)
	file, identity = filepath.Join(dir, "backup"), filepath.Join(dir, "age.key")
	b.must(os.WriteFile(identity, []byte(key.String()+"\n"), 0o600))
	b.must(os.RemoveAll(file))
	b.must(writeSealed(file, backup.Record, head, []age.Recipient{key.Recipient()}, func(w *backup.Writer) error {
		for _, leaf := range b.leaves {
			b.must(w.Add(leaf))
		}
		return nil
	}))
	return file, identity
}

// checkpoint is what the scene's broker signs of the book.
func (b *book) checkpoint() []byte {
	b.t.Helper()
	tree := &audit.Tree{}
	for _, leaf := range b.leaves {
		tree.Add(leaf)
	}
	head, _ := tree.Head(tree.Size())
	signer, err := ssh.NewSignerFromSigner(b.log)
	b.must(err)
	text, err := audit.Sign(audit.Checkpoint{Deployment: b.chain.Deployment(), LogHead: head, State: b.state.Digest()}, signer)
	b.must(err)
	return text
}

// restored opens what a restore wrote as the scene's broker does.
func (s *scene) restored(path string) (statement.Restore, []broker.Event) {
	s.t.Helper()
	data, err := os.ReadFile(path)
	s.must(err)
	key, err := agessh.NewEd25519Identity(s.identity)
	s.must(err)
	head, all, err := backup.Open(bytes.NewReader(data), backup.Restore, key)
	s.must(err)
	proof, err := statement.ParseProof(head)
	s.must(err)
	opened, err := statement.Open(proof)
	s.must(err)
	var events []broker.Event
	for leaf, err := range all {
		s.must(err)
		event, err := broker.DecodeEvent(leaf)
		s.must(err)
		events = append(events, event)
	}
	return opened.Body.(statement.Restore), events
}

// TestARecordFromTheFutureIsRestoredAtTheOperatorsClock: the leader's clock had run a year ahead, and nobody's statement was taken any more.
func TestARecordFromTheFutureIsRestoredAtTheOperatorsClock(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	b := s.newBook()
	command, err := broker.CommandFor(s.revise(s.chain, func(doc *policy.Document) { doc.Expires++ }), s.now()+365*statement.Time(statement.Day))
	s.must(err)
	b.take(command)
	dave := s.seat("dave")
	file, identity := b.backup(dave.dir, b.checkpoint())
	made := filepath.Join(dave.dir, "made")
	out, talk, code := dave.run("cluster", "restore", file, "--identity", identity, "--why", "a clock ran ahead", "--yes", "-o", made)
	if code != 0 || !strings.Contains(talk, "a broker's clock ran ahead") {
		t.Fatalf("exit %d\n%s%s", code, out, talk)
	}
	body, events := s.restored(made)
	if now := s.now(); body.Created > now || body.Created < now-60 || int(body.Size) != len(events) || len(events) != len(b.leaves) {
		t.Errorf("signed at %s, %d events of %d", body.Created, len(events), len(b.leaves))
	}
}

// TestARestoreGoesByTheNewestPolicyThatTheOperatorKnows: it was signed when the brokers were gone already.
func TestARestoreGoesByTheNewestPolicyThatTheOperatorKnows(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	b := s.newBook()
	first := s.chain
	next, err := first.Advance(s.revise(first, func(doc *policy.Document) {
		doc.Groups = map[policy.GroupName][]statement.Person{"approvers": doc.Groups["approvers"], "engineers": {"erin"}}
	}))
	s.must(err)
	s.chain = next
	dave := s.seat("dave")
	s.chain = first
	file, identity := b.backup(dave.dir, b.checkpoint())
	made := filepath.Join(dave.dir, "made")
	if out, talk, code := dave.run("cluster", "restore", file, "--identity", identity, "--why", "fire", "--yes", "-o", made); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, talk)
	}
	body, events := s.restored(made)
	if len(events) != len(b.leaves)+2 || int(body.Size) != len(events) || body.Policy != next.Ref() {
		t.Fatalf("%d events of %d, under revision %d", len(events), len(b.leaves), body.Policy.Revision)
	}
	adopted, isPolicy := events[len(b.leaves)].(*broker.PolicyAdopted)
	revoked, isEnd := events[len(b.leaves)+1].(*broker.GrantRevoked)
	if !isPolicy || adopted.Revision != 2 || !isEnd || revoked.Proof != nil {
		t.Errorf("%T, then %T", events[len(b.leaves)], events[len(b.leaves)+1])
	}
}

// TestABackupThatSomebodyElseMadeIsRefused: whoever stores backups knows the public key, and can encrypt what they like to it.
func TestABackupThatSomebodyElseMadeIsRefused(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	other := newScene(t, "127.0.0.1:1")
	dave := s.seat("dave")
	for does, c := range map[string]struct {
		make func() (*book, []byte)
		says string
	}{
		"leaves out the end of a grant": {func() (*book, []byte) {
			b := s.newBook()
			text := b.checkpoint()
			return b.fork(len(b.leaves) - 1), text
		}, "does not sign these entries"},
		"signs as a broker with a key of its own": {func() (*book, []byte) {
			b := s.newBook()
			b.scene = &scene{t: t, chain: s.chain, log: newKey(t)}
			return b, b.checkpoint()
		}, "not signed by the log key of a broker"},
		"is another deployment's": {func() (*book, []byte) {
			b := other.newBook()
			return b, b.checkpoint()
		}, "another deployment"},
		"holds nothing": {func() (*book, []byte) { return &book{scene: s, state: broker.NewState()}, []byte("nothing") }, "no sound record"},
	} {
		b, head := c.make()
		file, identity := b.backup(dave.dir, head)
		out, talk, code := dave.run("cluster", "restore", file, "--identity", identity, "--why", "fire", "--yes", "-o", filepath.Join(dave.dir, "made"))
		if code != 1 || !strings.Contains(talk, c.says) {
			t.Errorf("one that %s: exit %d, want %q\n%s%s", does, code, c.says, out, talk)
		}
		if _, err := os.Lstat(filepath.Join(dave.dir, "made")); err == nil {
			t.Errorf("one that %s: a file was made", does)
		}
	}
}

// TestABackupIsMadeOfASoundRecord: b2 is owned and shows the longest record; b1's and b3's are backed up all the same.
func TestABackupIsMadeOfASoundRecord(t *testing.T) {
	three := newTrio(t)
	honest := three.newBook()
	forged := honest.fork(len(honest.leaves) - 2)
	for range 3 {
		forged.file(three.asks("erin"))
	}
	forged.leaves[len(forged.leaves)-1] = bytes.Replace(forged.leaves[len(forged.leaves)-1], []byte(`"person":"erin"`), []byte(`"person":"alice"`), 1)
	for name, log := range map[string]*book{"b1": honest, "b2": forged, "b3": honest} {
		log.publish(three.dirs[name], three.logs[name])
	}
	key, err := age.GenerateX25519Identity()
	three.must(err)
	dave := three.seat("dave")
	path := filepath.Join(dave.dir, "backup")
	out, talk, code := dave.run("cluster", "backup", path, "--to", key.Recipient().String())
	if code != 0 || !strings.Contains(talk, "the record of b2 is not sound") || !strings.Contains(talk, "signed by b1") {
		t.Fatalf("exit %d\n%s%s", code, out, talk)
	}
	three.down["b1"], three.down["b3"] = true, true
	if out, talk, code := dave.run("cluster", "backup", path+"2", "--to", key.Recipient().String()); code != 1 || !strings.Contains(talk, "nothing was backed up") {
		t.Errorf("with b2 alone: exit %d\n%s%s", code, out, talk)
	}
	if left, err := filepath.Glob(filepath.Join(dave.dir, "*tmp*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
