//go:build lab

package lab

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"pim-ssh/packaging/lab/forger"
)

// alternate runs sudo N times with our module and N times with pam_permit in its place, by turns, as alice in one shell,
// and prints median and 95th percentile of both in microseconds; starts come GAP seconds apart.
const alternate = `n=$1 gap=$2 module=$3
coproc setpriv --reuid alice --regid alice --init-groups bash -c 'while read -r _; do a=$EPOCHREALTIME; sudo -n -u postgres true || echo failed; b=$EPOCHREALTIME
  echo $((${b/./} - ${a/./})); done'
once() { sleep "$gap"; echo >&"${COPROC[1]}"; read -r took <&"${COPROC[0]}"; echo "$took" >>/run/took.$1; }
permit() { mount --bind "${module/pam_pim/pam_permit}" "$module"; once permit; umount "$module"; }
rm -f /run/took.*
for ((i = 0; i < n; i++)); do if ((i % 2)); then once pim; permit; else permit; once pim; fi; done
for which in pim permit; do sort -n /run/took.$which | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)], t[int(NR * 0.95)] }'; done
`

// TestWhatSudoCosts: alternated back-to-back pairs, ratio of medians, and starts 150 ms apart, at most 15 ms more. A run of pairs
// that is over the goal is measured again, six times in all, and the best counts. A quiet machine reads 1.09 to 1.12: what fails
// is what a busy one cannot explain.
func TestWhatSudoCosts(t *testing.T) {
	const goal, bound = 1.10, 1.20
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	s.opened(t, "db1", s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 3600, newKey(t), "bob")))
	s.Put(t, "db1", "/root/alternate", 0o600, []byte(alternate))
	module := strings.TrimSpace(s.root(t, "db1", "ls /usr/lib/*/security/pam_pim.so").Want(t, 0).Out)
	measure := func(n int, gap string) (pim, permit float64) {
		out := s.root(t, "db1", fmt.Sprintf("bash /root/alternate %d %s %s", n, gap, module)).Want(t, 0).Out
		var figures []float64
		for _, f := range strings.Fields(out) {
			v, err := strconv.ParseFloat(f, 64)
			if err != nil {
				t.Fatal(err)
			}
			figures = append(figures, v/1000)
		}
		t.Logf("%d pairs %s s apart: ours median %.2f ms, p95 %.2f; pam_permit %.2f ms, p95 %.2f; ratio %.3f", n, gap, figures[0], figures[1],
			figures[2], figures[3], figures[0]/figures[2])
		return figures[0], figures[2]
	}
	best := math.Inf(1)
	for run := 0; run < 6 && best > goal; run++ {
		pim, permit := measure(300, "0")
		best = min(best, pim/permit)
	}
	if best > bound {
		t.Errorf("back to back: at best %.3f times what it costs with pam_permit", best)
	}
	if pim, permit := measure(40, "0.15"); pim > permit+15 {
		t.Errorf("150 ms apart: %.2f ms against %.2f ms", pim, permit)
	}
}
