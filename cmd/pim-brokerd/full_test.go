package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// partition mounts 64 MiB where only this test sees them, and returns the directory: it is gone with the process that
// mounted it, which dies with the test.
func partition(t *testing.T, mount string) string {
	t.Helper()
	at := t.TempDir()
	flags := "-m"
	if os.Geteuid() != 0 {
		flags = "-Urm"
	}
	holder := exec.Command("unshare", flags, "sh", "-ec", mount+`; echo mounted; exec sleep 600`)
	holder.Env = append(os.Environ(), "AT="+at, "IMAGE="+filepath.Join(t.TempDir(), "image"))
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	holder.Stderr = os.Stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		holder.Process.Kill()
		holder.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "mounted\n" {
		t.Fatalf("nothing was mounted: %q, %v", line, err)
	}
	return fmt.Sprintf("/proc/%d/root%s", holder.Process.Pid, at)
}

// fill takes every byte that is left.
func fill(t *testing.T, dir string) (file string) {
	t.Helper()
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for size := 1 << 20; size > 0; {
		if _, err := filler.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return filler.Name()
}

// TestADiskFilledToTheBrimStillRecordsEnds has three real brokers on 64 MiB, which somebody else fills up.
func TestADiskFilledToTheBrimStillRecordsEnds(t *testing.T) {
	kinds := map[string]string{"tmpfs": `mount -t tmpfs -o size=64m none "$AT"`}
	if os.Geteuid() == 0 {
		kinds["ext4"] = `truncate -s 64M "$IMAGE"; mkfs.ext4 -q "$IMAGE"; mount -o loop "$IMAGE" "$AT"`
	}
	for kind, mount := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := partition(t, mount)
			r := newTrioOn(t, dir, os.Args[0])
			b := brim{trio: r}
			b.prepare()
			filler := fill(t, dir)
			r.within(10*time.Second, "what could lead to access is refused", func() bool { return b.refused(b.ask("erin")) })
			before := len(r.log(""))
			b.opensNothing()
			b.endsAll(0)
			for _, name := range r.names { // with the disk as full as before
				r.kill(name)
			}
			for _, name := range r.names {
				r.start(name)
			}
			r.must(r.caughtUp(r.names[0]))
			b.endsAll(1)
			b.opensNothing()
			r.within(40*time.Second, "the lapse is recorded", func() bool {
				return slices.ContainsFunc(r.log(""), func(e broker.Event) bool { return e.Head().Kind == "GrantLapsed" })
			})
			after := r.log("")
			r.must(os.Remove(filler))
			freed := time.Now()
			r.within(10*time.Second, "requests are taken again", func() bool { return !b.refused(b.ask("erin")) })
			t.Logf("full: %d events were recorded, nothing was opened; freed: requests are taken after %s", len(after)-before, time.Since(freed).Round(time.Millisecond))
			b.opened(after[before:])
			for _, name := range r.names {
				r.must(r.caughtUp(name))
				if events := r.log(name); len(events) < len(after) {
					t.Errorf("%s holds %d events", name, len(events))
				}
			}
		})
	}
}

// brim is a trio with access to end.
type brim struct {
	*trio
	granted [2][]statement.Proof // erin's, each the request of a live grant
	pending [2]statement.Proof   // alice's and bob's
	kept    statement.Proof      // erin's, whose grant nobody ends
	lapsing statement.Proof      // erin's, whose grant ends soon
}

const brimEach = 15

// prepare opens grants and requests, two lots of each, and a grant that lapses soon.
func (b *brim) prepare() {
	for lot := range 2 {
		for range brimEach {
			b.granted[lot] = append(b.granted[lot], b.file("erin", b.ask("erin")))
		}
		asker := []statement.Person{"alice", "bob"}[lot]
		b.pending[lot] = b.file(asker, b.world.Ask(asker, "root", "web1", 600, b.world.People[asker], nil))
	}
	b.kept = b.file("erin", b.ask("erin"))
	b.lapsing = b.file("erin", b.world.Ask("erin", "web-deploy", "web1", 20, b.world.People["erin"], nil))
}

func (b *brim) file(person statement.Person, p statement.Proof) statement.Proof {
	b.t.Helper()
	_, err := b.as(person).Submit(b.t.Context(), p)
	b.must(err)
	return p
}

// refused reports whether the brokers say that there is no room.
func (b *brim) refused(p statement.Proof) bool {
	b.t.Helper()
	var err error
	b.within(30*time.Second, "an answer", func() bool {
		ctx, cancel := context.WithTimeout(b.t.Context(), 1500*time.Millisecond) // a client would ask for longer
		defer cancel()
		_, err = b.as("alice").Submit(ctx, p)
		if err != nil && broker.KindOf(err) != broker.Unavailable {
			b.t.Fatalf("refused with %v", err)
		}
		return err == nil || strings.Contains(err.Error(), "the disk is almost full on b")
	})
	return err != nil
}

// opensNothing tries everything that could lead to access.
func (b *brim) opensNothing() {
	b.t.Helper()
	grant := broker.StemOf(b.kept.Hash()).Grant()
	for what, p := range map[string]statement.Proof{
		"a request":     b.ask("erin"),
		"an approval":   b.world.Approve("carol", b.pending[1], nil),
		"a certificate": b.world.Sign(statement.Certificate{Head: b.world.Head(statement.KindCertificate, "erin"), Grant: string(grant), Key: signtest.Public(forger.Key(b.t))}, "erin"),
	} {
		if !b.refused(p) {
			b.t.Errorf("%s is taken", what)
		}
	}
}

// endsAll ends one lot, in every way there is.
func (b *brim) endsAll(lot int) {
	b.t.Helper()
	for i, asked := range b.granted[lot] {
		if i%2 == 0 {
			b.file("erin", b.giveBack("erin", asked))
			continue
		}
		grant := broker.StemOf(asked.Hash()).Grant()
		b.file("dave", b.world.Sign(statement.End{Head: b.world.Head(statement.KindEnd, "dave"), Grant: string(grant), How: statement.Revoke, Reason: "full"}, "dave"))
	}
	if lot == 0 {
		b.file("bob", b.world.Approve("bob", b.pending[0], func(d *statement.Decision) { d.Verdict = statement.Deny; d.Reason = "full" }))
		return
	}
	request := broker.StemOf(b.pending[1].Hash()).Request()
	b.file("bob", b.world.Sign(statement.End{Head: b.world.Head(statement.KindEnd, "bob"), Request: string(request), How: statement.Withdraw}, "bob"))
}

// opened holds what was recorded on the full disk to ends alone, the lapse among them.
func (b *brim) opened(events []broker.Event) {
	b.t.Helper()
	counts := map[broker.EventKind]int{}
	for _, event := range events {
		counts[event.Head().Kind]++
	}
	want := fmt.Sprint(map[broker.EventKind]int{"GrantReturned": 16, "GrantRevoked": 14, "DecisionFiled": 1, "RequestDenied": 1, "RequestWithdrawn": 1, "GrantLapsed": 1})
	if got := fmt.Sprint(counts); got != want {
		b.t.Errorf("on a full disk\n%s\nwere recorded, want\n%s", got, want)
	}
}

// TestOneFullDiskOfThreeStopsNothing fills the disk of the broker that leads: another one leads, and grants go on.
func TestOneFullDiskOfThreeStopsNothing(t *testing.T) {
	full, dir := partition(t, `mount -t tmpfs -o size=64m none "$AT"`), t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(full, "b1"), 0o700), os.Symlink(filepath.Join(full, "b1"), filepath.Join(dir, "b1"))); err != nil {
		t.Fatal(err)
	}
	r := newTrioOn(t, dir, os.Args[0])
	for leader := r.leader(); leader != "b1"; leader = r.leader() {
		r.signal(leader, syscall.SIGTERM)
		r.must(r.all[leader].cmd.Wait())
		r.start(leader)
		r.must(r.caughtUp(leader))
	}
	fill(t, full)
	start := time.Now()
	r.within(20*time.Second, "another broker leads", func() bool {
		_, err := r.as("alice").Submit(t.Context(), r.ask("alice"))
		return err == nil && r.leader() != "b1"
	})
	t.Logf("another broker leads, and grants, after %s", time.Since(start).Round(time.Millisecond))
	for range 20 {
		asked := r.ask("alice")
		_, err := r.as("alice").Submit(t.Context(), asked)
		r.must(err)
	}
	status, err := r.as("dave").Cluster(t.Context())
	r.must(err)
	for _, b := range status.Brokers {
		if b.Low != (b.Name == "b1") {
			t.Errorf("%s: low %t", b.Name, b.Low)
		}
	}
}
