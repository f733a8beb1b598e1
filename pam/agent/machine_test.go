package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// machine is a host for tests: a real spool, real cgroups, real sudo parsers, and clocks a test may set. Only PID 1 is
// missing: cgroupUnits stands in for systemd, which packaging/lab's tests have for real.
type machine struct {
	t      testing.TB
	world  *forger.World
	dir    string
	clock  *setClock
	units  *cgroupUnits
	bootID string
	log    *journalLines
	visudo string // another program in its place
	dial   string // the broker; nobody when empty
}

const (
	aliceUID    = 61001
	erinUID     = 61002
	postgresUID = 61010
	helperUID   = 61099
)

var accounts = map[statement.Account]uint32{"alice": aliceUID, "erin": erinUID, "postgres": postgresUID, "root": 0, "toor": 0, "backup": 61020}

// newMachine enrols host db1 (tier=db) in the world.
func newMachine(t testing.TB, w *forger.World) *machine {
	t.Helper()
	m := &machine{t: t, world: w, dir: t.TempDir(), clock: &setClock{}, bootID: "boot-1", log: &journalLines{}}
	m.units = newCgroupUnits(t)
	m.units.sudoers = filepath.Join(m.dir, "run", sudoersDir)
	if _, err := m.spool().Enrol(w.Token("db1", map[string]string{"tier": "db"}), HashMachineID("m1"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) spool() *Spool {
	m.t.Helper()
	s, err := NewSpool(filepath.Join(m.dir, "host"), m.log.logger(), m.clock.Wall)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *machine) config() Config {
	return Config{
		Spool: m.spool(), RunDir: filepath.Join(m.dir, "run"), Enforcing: filepath.Join(m.dir, "enforcing"), MachineID: HashMachineID("m1"),
		BootID: m.bootID, Clock: m.clock.clock(), Random: rand.Reader, Log: m.log.logger(), Units: m.units,
		Tools:    Tools{Visudo: cmp.Or(m.visudo, "/usr/sbin/visudo"), Cvtsudoers: "/usr/bin/cvtsudoers"},
		OwnProcs: m.ownProcs(), Lookup: lookupTest, Helper: helperUID, Exempt: []statement.Account{"backup"}, Broker: cmp.Or(m.dial, "127.0.0.1:1"), HostKeys: []statement.Key{hostKeyForTests},
	}
}

func (m *machine) ownProcs() string {
	m.t.Helper()
	path, err := OwnProcs(m.units.trees)
	if err != nil {
		m.t.Fatal(err)
	}
	return path
}

func lookupTest(a statement.Account) (uint32, error) {
	uid, known := accounts[a]
	if !known {
		return 0, errors.New("unknown account")
	}
	return uid, nil
}

// enforce makes the machine refuse.
func (m *machine) enforce() {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Join(m.dir, "enforcing"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// start recovers and returns an agent whose keeper does not run: tests call settle.
func (m *machine) start() *Agent {
	m.t.Helper()
	a, err := New(m.t.Context(), m.config())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = a.Close() })
	return a
}

// feed writes a dossier into the spool.
func (m *machine) feed(d broker.Dossier) broker.Stem {
	m.t.Helper()
	if err := m.spool().putDossier(d); err != nil {
		m.t.Fatal(err)
	}
	return d.Stem()
}

// stands says what of a grant is on the machine.
func (m *machine) stands(stem broker.Stem) (unit, sudoers, record bool) {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	return m.units.has(stem), exists(filepath.Join(m.dir, "run", sudoersDir, stem.SudoersFile())),
		exists(filepath.Join(m.dir, "run", openDir, string(stem)+".json"))
}

func (m *machine) wantStands(stem broker.Stem, want bool) {
	m.t.Helper()
	if u, s, r := m.stands(stem); u != want || s != want || r != want {
		m.t.Errorf("%s: unit %v, sudoers %v, record %v: want all %v\n%s", stem, u, s, r, want, m.log)
	}
}

// soonStands is wantStands for an agent that serves: its keeper may be in the middle of it.
func (m *machine) soonStands(stem broker.Stem, want bool) {
	m.t.Helper()
	waitFor(m.t, string(stem)+" stands whole, or not at all", func() bool {
		unit, sudoers, record := m.stands(stem)
		return unit == want && sudoers == want && record == want
	})
}

// setClock is both clocks: real ones plus what a test adds to each.
type setClock struct {
	mu         sync.Mutex
	wall, boot time.Duration
}

func (c *setClock) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.wall)
}

func (c *setClock) Boot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano()) + c.boot
}

// pass lets time go by on both clocks.
func (c *setClock) pass(d time.Duration) { c.set(d, d) }

// set moves the clocks apart.
func (c *setClock) set(wall, boot time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += wall
	c.boot += boot
}

func (c *setClock) clock() Clock { return Clock{Wall: c.Wall, Boot: c.Boot, After: time.After} }

// journalLines keeps what the agent logged.
type journalLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journalLines) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journalLines) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journalLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// cgroupUnits holds processes in real cgroups without a systemd: no timers, so a test ends windows by the agent.
type cgroupUnits struct {
	t       testing.TB
	trees   []Tree
	group   string
	sudoers string // no file of a grant may stand here before its unit does
	mu      sync.Mutex
	windows map[broker.Stem]Window
	broken  error // what Open says, when set
}

func newCgroupUnits(t testing.TB) *cgroupUnits {
	t.Helper()
	trees, err := Trees("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	u := &cgroupUnits{t: t, trees: trees, group: fmt.Sprintf("/pim-test-%d-%d", os.Getpid(), time.Now().UnixNano()), windows: map[broker.Stem]Window{}}
	for _, tree := range trees {
		if err := os.Mkdir(string(tree)+u.group, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, tree := range trees {
			removeTree(t, string(tree)+u.group)
		}
	})
	return u
}

// removeTree kills what lives in a cgroup and removes it with all below.
func removeTree(t testing.TB, dir string) {
	if err := (Place{dirs: []string{dir}}).kill(context.Background()); err != nil {
		t.Error(err)
	}
	waitFor(t, "cgroup gone: "+dir, func() bool {
		_ = exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
}

func (u *cgroupUnits) path(stem broker.Stem) string { return u.group + "/" + stem.Unit() }

func (u *cgroupUnits) Open(_ context.Context, w Window) (Place, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.broken != nil {
		return Place{}, u.broken
	}
	if _, err := os.Stat(filepath.Join(u.sudoers, w.Stem.SudoersFile())); err == nil && u.windows[w.Stem].Stem == "" {
		u.t.Errorf("%s: sudoers stood before the unit", w.Stem)
	}
	if w.Remaining <= 0 {
		u.t.Errorf("%s: opened with %v remaining", w.Stem, w.Remaining)
	}
	for _, tree := range u.trees {
		if err := os.MkdirAll(string(tree)+u.path(w.Stem), 0o755); err != nil {
			return Place{}, err
		}
	}
	u.windows[w.Stem] = w
	return placeOf(u.trees, u.path(w.Stem))
}

func (u *cgroupUnits) Place(stem broker.Stem) (Place, bool) {
	place, err := placeOf(u.trees, u.path(stem))
	return place, err == nil
}

func (u *cgroupUnits) Close(ctx context.Context, stem broker.Stem) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	place, err := placeOf(u.trees, u.path(stem))
	if err != nil {
		return nil
	}
	if err := place.kill(ctx); err != nil {
		return err
	}
	for _, dir := range place.dirs {
		removeTree(u.t, dir)
	}
	delete(u.windows, stem)
	return nil
}

func (u *cgroupUnits) Stems(context.Context) ([]broker.Stem, error) {
	var stems []broker.Stem
	entries, err := os.ReadDir(string(u.trees[0]) + u.group)
	for _, e := range entries {
		if stem, err := broker.ParseUnit(e.Name()); err == nil {
			stems = append(stems, stem)
		}
	}
	return stems, err
}

func (u *cgroupUnits) has(stem broker.Stem) bool {
	_, err := placeOf(u.trees, u.path(stem))
	return err == nil
}

// waitFor polls until holds is true.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// hostKeyForTests is what the machine's sshd would show.
const hostKeyForTests statement.Key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO1YgDRqgTId2asJUWA4dtw+eLHqmJmcKFCNJMt4+/tj"
