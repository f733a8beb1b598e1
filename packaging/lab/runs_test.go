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
	s := newStage(t, forger.New(t, nil), []string{"db1"})
	s.opened(t, "db1", s.feed(t, "db1", s.w.Granted("alice", "db-admin", "db1", 3600, newKey(t), "bob")))
	const runs = "n=0; while [ $n -lt 2000 ]; do timeout 5 sudo -n -u postgres true || { echo run $n: exit $?; exit 1; }; n=$((n + 1)); done; echo $n"
	got := s.ExecAs(t, "db1", "alice", "sh", "-c", runs).Want(t, 0)
	if got.Out != "2000\n" {
		t.Errorf("%q", got.Out)
	}
	t.Logf("2000 runs in %v", got.Took.Round(time.Millisecond))
}
