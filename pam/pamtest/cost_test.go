package pamtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkSudoAgainstPermit runs sudo in back-to-back pairs, once with our module
// and a peer that places and allows at once, once with pam_permit in its place, and reports
// the medians and their ratio. The lab measures the real agent.
func BenchmarkSudoAgainstPermit(b *testing.B) {
	s := installed(b)
	s.enforce("root")
	p := s.agent(b, placing(b, cgroup(b, session), "root"))
	p.incurious = true
	stacks := map[string]string{}
	for _, file := range []string{"common-account", "common-session-noninteractive"} {
		stacks[file] = s.read("/etc/pam.d/" + file)
	}
	with := func(module string) time.Duration {
		for file, text := range stacks {
			s.write("/etc/pam.d/"+file, strings.ReplaceAll(text, "pam_pim.so", module), 0o644)
		}
		return s.stopwatch(b)
	}
	var ours, permits []time.Duration
	for b.Loop() {
		ours = append(ours, with("pam_pim.so"))
		permits = append(permits, with("pam_permit.so"))
	}
	if heard := len(p.questions()); heard != 2*20*len(ours) {
		b.Fatalf("%d questions for %d runs with our module, want account's and the word that it begins of each", heard, 20*len(ours))
	}
	slices.Sort(ours)
	slices.Sort(permits)
	mine, permit := ours[len(ours)/2], permits[len(permits)/2]
	b.ReportMetric(float64(mine.Microseconds())/1000, "ms-ours")
	b.ReportMetric(float64(permit.Microseconds())/1000, "ms-permit")
	b.ReportMetric(float64(mine)/float64(permit), "ratio")
}

// stopwatch is the mean of 20 runs by one shell, so that nsenter's own start does not count.
func (s *sandbox) stopwatch(b *testing.B) time.Duration {
	b.Helper()
	got := s.as(aliceUID, "sh", "-c", "a=$(date +%s%N); for i in $(seq 20); do sudo -n true; done; echo $(($(date +%s%N) - a))")
	var ns int64
	if _, err := fmt.Sscan(got.out, &ns); err != nil {
		b.Fatalf("exit %d: %s", got.code, got.out)
	}
	return time.Duration(ns / 20)
}
