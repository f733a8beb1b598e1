//go:build lab

package lab

import (
	"testing"
	"time"

	"pim-ssh/packaging/lab/forger"
)

// TestTwoThousandSudosNeverHang: a Go module in the same place hung in 28 of 5 691 (FACTS G2).
func TestTwoThousandSudosNeverHang(t *testing.T) {
	t.Parallel()
	hosts := []string{"db1", "web1"}
	s := newStage(t, forger.New(t, nil), hosts)
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s.opened(t, host, s.feed(t, host, s.w.Granted("alice", "db-admin", hostName(host), 3600, newKey(t), "bob")))
			const runs = "n=0; while [ $n -lt 1000 ]; do timeout 5 sudo -n -u postgres true || { echo run $n: exit $?; exit 1; }; n=$((n + 1)); done; echo $n"
			got := s.ExecAs(t, host, "alice", "sh", "-c", runs).Want(t, 0)
			if got.Out != "1000\n" {
				t.Errorf("%q", got.Out)
			}
			t.Logf("1000 runs in %v", got.Took.Round(time.Millisecond))
		})
	}
}
