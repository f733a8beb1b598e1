package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// built is where the real pim-ssh is, once a test needs it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// cli builds the real pim-ssh once.
func cli(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "pim-ssh"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, "pim-ssh"), "pim-ssh/cmd/pim-ssh")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("building pim-ssh: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "pim-ssh")
}

// desk is one person's: own directories, a key file, joined with the chain file.
type desk struct {
	t   *testing.T
	dir string
	cli string
}

func (r *trio) desk(person statement.Person) *desk {
	r.t.Helper()
	d := &desk{r.t, r.t.TempDir(), cli(r.t)}
	block, err := ssh.MarshalPrivateKey(r.world.Secrets[person], "")
	r.must(err)
	key := write(r.t, d.dir, "key", string(pem.EncodeToMemory(block)))
	if _, talk, code := d.run("join", r.chainFile(d.dir, r.world.Chain), "--person", string(person), "--key", key); code != 0 {
		r.t.Fatalf("%s cannot join:\n%s", person, talk)
	}
	return d
}

func (d *desk) run(words ...string) (out, talk string, code int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.cli, words...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "HOME="+d.dir, "XDG_CONFIG_HOME="+d.dir+"/config", "XDG_STATE_HOME="+d.dir+"/state", "XDG_RUNTIME_DIR="+d.dir, "SSH_AUTH_SOCK=", "PIM_SSH_BROKER=")
	var said, told strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &told
	_ = cmd.Run() // the exit code says it
	return said.String(), told.String(), cmd.ProcessState.ExitCode()
}

// does runs a command that must end with the code, and returns what it printed and said.
func (d *desk) does(code int, words ...string) string {
	d.t.Helper()
	out, talk, got := d.run(words...)
	if got != code {
		d.t.Fatalf("pim-ssh %v: exit %d, want %d\n%s%s", words, got, code, out, talk)
	}
	return out + talk
}

func (d *desk) file(name string) string { return filepath.Join(d.dir, name) }

// ageKey makes a key as age-keygen does: the file with the secret half, and the public one.
func (d *desk) ageKey() (file, public string) {
	d.t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		d.t.Fatal(err)
	}
	return write(d.t, d.dir, "age.key", key.String()+"\n"), key.Recipient().String()
}
