package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Window is what a grant's unit and reaper are made from.
type Window struct {
	Stem      broker.Stem
	Until     statement.Time // when what runs ends: the reapers' calendar
	Remaining time.Duration  // the reapers' stopwatch; > 0
	Most      time.Duration  // the longest that an extension may ever make of it
	Remove    []string       // absolute paths of files that end with the window
}

// Systemd holds grants' processes in PID 1's own units: pim-g-<stem>.service with a pause process, and two transient timers,
// pim-g-<stem>-end.timer and a moment later -last.timer, whose services kill everything in it: one stands armed while the
// other is armed anew. Once Open has returned, nothing of ours needs to live for the window to end. Every call makes its own connection to /run/systemd/private, so neither dbus-daemon's
// death nor daemon-reexec is felt.
type Systemd struct {
	Trees     []Tree
	Monotonic func() time.Duration // CLOCK_MONOTONIC, which timers count
	Pause     string               // /usr/bin/sleep
	Systemctl string               // /usr/bin/systemctl
	Rm        string               // /usr/bin/rm
}

const (
	unitTimeout = 5 * time.Second
	// spare is how much later than the first reaper the second strikes.
	spare statement.Seconds = 2
	// tolerance is how far a read-back stopwatch may lie behind the asked one: the time it took to arm it.
	tolerance = time.Second
)

// reapers are what ends a unit. The later one is armed first.
var reapers = []reaper{{"-last", spare}, {"-end", 0}}

// reaper is one of them: its name, and how much after the end it strikes.
type reaper struct {
	suffix string
	after  statement.Seconds
}

func (r reaper) timer(stem broker.Stem) string   { return stem.Principal() + r.suffix + ".timer" }
func (r reaper) service(stem broker.Stem) string { return stem.Principal() + r.suffix + ".service" }

// of is the window as far as the reaper is concerned.
func (r reaper) of(w Window) Window {
	w.Until, w.Remaining = w.Until.Add(r.after), w.Remaining+r.after.Std()
	return w
}

func property(name string, value any) sd.Property {
	return sd.Property{Name: name, Value: dbus.MakeVariant(value)}
}

func micro(d time.Duration) uint64 { return uint64(d.Microseconds()) }

// Open makes the grant's unit and arms its reapers, or adopts them when they stand, and returns the unit's place only
// after all were read back and are what they must be.
func (s Systemd) Open(ctx context.Context, w Window) (Place, error) {
	ctx, cancel := context.WithTimeout(ctx, unitTimeout)
	defer cancel()
	c, err := sd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return Place{}, fmt.Errorf("systemd: %w", err)
	}
	defer c.Close()
	if err := s.startUnit(ctx, c, w); err != nil {
		return Place{}, err
	}
	for _, r := range reapers {
		if err := s.arm(ctx, c, r, r.of(w)); err != nil {
			return Place{}, err
		}
	}
	return s.checkUnit(ctx, c, w)
}

func (s Systemd) startUnit(ctx context.Context, c *sd.Conn, w Window) error {
	state, err := activeState(ctx, c, w.Stem.Unit())
	if err != nil || state == "active" {
		return err
	}
	if state == "failed" {
		_ = c.ResetFailedUnitContext(ctx, w.Stem.Unit()) // only to free the name; starting it reports what is wrong
	}
	return start(ctx, c, w.Stem.Unit(), []sd.Property{
		property("Description", "pim-ssh grant "+string(w.Stem.Grant())),
		property("Type", "exec"),
		sd.PropExecStart([]string{s.Pause, "infinity"}, false),
		property("Delegate", true),
		property("KillMode", "control-group"),
		property("TimeoutStopUSec", micro(time.Second)),
		property("RuntimeMaxUSec", micro(w.Most+spare.Std())), // it cannot be set anew while the unit runs (F6)
		property("OOMPolicy", "continue"),                     // one process out of memory does not end the others' sessions
		property("TasksMax", uint64(math.MaxUint64)),
		property("CollectMode", "inactive-or-failed"),
	}, nil)
}

// arm starts a reaper unless it already stands armed as it must.
func (s Systemd) arm(ctx context.Context, c *sd.Conn, r reaper, w Window) error {
	if s.checkReaper(ctx, c, r, w) == nil {
		return nil
	}
	timer, service := r.timer(w.Stem), r.service(w.Stem)
	if state, err := activeState(ctx, c, timer); err != nil {
		return err
	} else if state != "inactive" {
		if err := stop(ctx, c, timer); err != nil {
			return err
		}
	}
	calendar := w.Until.Std().Format("2006-01-02 15:04:05") + " UTC"
	err := start(ctx, c, timer, []sd.Property{
		property("Description", "end of pim-ssh grant "+string(w.Stem.Grant())),
		property("TimersCalendar", []struct{ Base, At string }{{"OnCalendar", calendar}}),
		property("TimersMonotonic", []struct {
			Base  string
			After uint64
		}{{"OnActiveSec", micro(w.Remaining)}}),
		property("AccuracyUSec", micro(100*time.Millisecond)),
		property("RemainAfterElapse", false),
		property("CollectMode", "inactive-or-failed"),
	}, []sd.PropertyCollection{{Name: service, Properties: s.reaperService(w)}})
	if err != nil {
		return err
	}
	return s.checkReaper(ctx, c, r, w)
}

// reaperLines is what the reaper runs, in order: first nothing new may start, then what runs is killed. The second
// kill and the stop (TERM, and KILL after a second, to whatever is left) are for what was forked while the first kill
// walked the tree.
func (s Systemd) reaperLines(w Window) [][]string {
	remove := append([]string{s.Rm, "-f", "--"}, w.Remove...)
	kill := []string{s.Systemctl, "kill", "--signal=SIGKILL", "--kill-whom=all", w.Stem.Unit()}
	return [][]string{remove, kill, kill, {s.Systemctl, "stop", w.Stem.Unit()}}
}

func (s Systemd) reaperService(w Window) []sd.Property {
	type exec struct {
		Path          string
		Args          []string
		IgnoreFailure bool // a line that fails does not keep the next from running
	}
	var lines []exec
	for _, l := range s.reaperLines(w) {
		lines = append(lines, exec{l[0], l, true})
	}
	return []sd.Property{
		property("Description", "end of pim-ssh grant "+string(w.Stem.Grant())),
		property("Type", "oneshot"),
		property("ExecStart", lines),
		property("TimeoutStartUSec", micro(20*time.Second)),
		property("CollectMode", "inactive-or-failed"),
	}
}

// checkReaper reads back that the timer waits for the right moment by both clocks and starts the right service.
func (s Systemd) checkReaper(ctx context.Context, c *sd.Conn, r reaper, w Window) error {
	timer, service := r.timer(w.Stem), r.service(w.Stem)
	state, err := activeState(ctx, c, timer)
	if err != nil {
		return err
	}
	got, err := c.GetUnitTypePropertiesContext(ctx, timer, "Timer")
	if err != nil {
		return fmt.Errorf("%s: %w", timer, err)
	}
	latest := micro(s.Monotonic() + w.Remaining + tolerance)
	stopwatch, _ := got["NextElapseUSecMonotonic"].(uint64)
	if state != "active" || got["Unit"] != service || got["NextElapseUSecRealtime"] != uint64(w.Until)*1e6 || stopwatch == 0 || stopwatch > latest {
		return fmt.Errorf("%s is %s, starts %v at %v and after %d, want %s at %d and before %d", timer, state, got["Unit"],
			got["NextElapseUSecRealtime"], stopwatch, service, uint64(w.Until)*1e6, latest)
	}
	runs, err := c.GetUnitTypePropertiesContext(ctx, service, "Service")
	if err != nil {
		return fmt.Errorf("%s: %w", service, err)
	}
	if lines := execLines(runs["ExecStart"]); !slices.EqualFunc(lines, s.reaperLines(w), slices.Equal) {
		return fmt.Errorf("%s runs %q", service, lines)
	}
	return nil
}

// execLines takes the arguments out of D-Bus's a(sasbttttuii): of lines whose failure is ignored, as ours all are.
func execLines(value any) [][]string {
	entries, _ := value.([][]any)
	var lines [][]string
	for _, e := range entries {
		if len(e) < 3 || e[2] != true {
			return nil
		}
		args, _ := e[1].([]string)
		lines = append(lines, args)
	}
	return lines
}

// checkUnit reads back that the unit runs, ends as a whole and within a second, and finds its cgroup.
func (s Systemd) checkUnit(ctx context.Context, c *sd.Conn, w Window) (Place, error) {
	unit := w.Stem.Unit()
	state, err := activeState(ctx, c, unit)
	if err != nil {
		return Place{}, err
	}
	got, err := c.GetUnitTypePropertiesContext(ctx, unit, "Service")
	if err != nil {
		return Place{}, fmt.Errorf("%s: %w", unit, err)
	}
	if state != "active" || got["KillMode"] != "control-group" || got["TimeoutStopUSec"] != micro(time.Second) || got["Delegate"] != true ||
		got["SendSIGKILL"] != true {
		return Place{}, fmt.Errorf("%s is %s, KillMode %v, TimeoutStopUSec %v, Delegate %v: a drop-in changes it", unit, state, got["KillMode"],
			got["TimeoutStopUSec"], got["Delegate"])
	}
	group, _ := got["ControlGroup"].(string)
	place, err := placeOf(s.Trees, group)
	if err != nil {
		return Place{}, fmt.Errorf("%s: %w", unit, err)
	}
	return place, nil
}

// Place looks where systemd puts our units.
func (s Systemd) Place(stem broker.Stem) (Place, bool) {
	place, err := placeOf(s.Trees, "/system.slice/"+stem.Unit())
	return place, err == nil
}

// Close kills everything in the grant's unit and, once nothing of it lives, takes its reapers away. A unit that is
// not there is closed.
func (s Systemd) Close(ctx context.Context, stem broker.Stem) error {
	ctx, cancel := context.WithTimeout(ctx, unitTimeout)
	defer cancel()
	// First by hand, where our units are: PID 1 may be busy for seconds with a daemon-reload, or not answer at all.
	if place, stands := s.Place(stem); stands {
		if err := place.kill(ctx); err != nil {
			return err
		}
	}
	c, err := sd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	defer c.Close()
	if err := s.killUnit(ctx, c, stem.Unit()); err != nil {
		return fmt.Errorf("%s: %w", stem.Unit(), err)
	}
	for _, r := range reapers {
		if state, err := activeState(ctx, c, r.timer(stem)); err != nil {
			return err
		} else if state == "inactive" {
			continue
		}
		if err := stop(ctx, c, r.timer(stem)); err != nil {
			return err
		}
	}
	return nil
}

func (s Systemd) killUnit(ctx context.Context, c *sd.Conn, unit string) error {
	state, err := activeState(ctx, c, unit)
	if err != nil {
		return err
	}
	got, err := c.GetUnitTypePropertiesContext(ctx, unit, "Service")
	if err != nil {
		return err
	}
	group, _ := got["ControlGroup"].(string)
	if place, err := placeOf(s.Trees, group); group != "" && err == nil {
		if err := place.kill(ctx); err != nil {
			return err
		}
	}
	if state == "inactive" || state == "failed" {
		return nil
	}
	return stop(ctx, c, unit)
}

// Stems lists the grants that have a unit or a reaper armed, sorted.
func (s Systemd) Stems(ctx context.Context) ([]broker.Stem, error) {
	ctx, cancel := context.WithTimeout(ctx, unitTimeout)
	defer cancel()
	c, err := sd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	defer c.Close()
	units, err := c.ListUnitsByPatternsContext(ctx, nil, []string{"pim-g-*"})
	if err != nil {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	var stems []broker.Stem
	for _, u := range units {
		name := strings.TrimSuffix(u.Name, ".timer")
		for _, r := range reapers {
			name = strings.TrimSuffix(name, r.suffix)
		}
		stem, err := broker.ParsePrincipal(strings.TrimSuffix(name, ".service"))
		if err == nil && u.LoadState != "not-found" {
			stems = append(stems, stem)
		}
	}
	slices.Sort(stems)
	return slices.Compact(stems), nil
}

// activeState returns systemd's word for a unit; "inactive" when it does not exist.
func activeState(ctx context.Context, c *sd.Conn, unit string) (string, error) {
	p, err := c.GetUnitPropertyContext(ctx, unit, "ActiveState")
	if err != nil {
		return "", fmt.Errorf("%s: %w", unit, err)
	}
	state, _ := p.Value.Value().(string)
	return state, nil
}

func start(ctx context.Context, c *sd.Conn, unit string, properties []sd.Property, aux []sd.PropertyCollection) error {
	done := make(chan string, 1)
	if aux == nil {
		aux = []sd.PropertyCollection{}
	}
	if _, err := c.StartTransientUnitAux(ctx, unit, "replace", properties, aux, done); err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	}
	return await(ctx, unit, done)
}

func stop(ctx context.Context, c *sd.Conn, unit string) error {
	done := make(chan string, 1)
	if _, err := c.StopUnitContext(ctx, unit, "replace", done); err != nil {
		var gone dbus.Error
		if errors.As(err, &gone) && gone.Name == "org.freedesktop.systemd1.NoSuchUnit" {
			return nil
		}
		return fmt.Errorf("%s: %w", unit, err)
	}
	return await(ctx, unit, done)
}

func await(ctx context.Context, unit string, done <-chan string) error {
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s: systemd's job ended as %s", unit, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", unit, ctx.Err())
	}
}
