package enforce

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// An operator types `pim-hostd enforce` while the agent follows a new revision: two writers of one file. What is read there
// is always the one's or the other's, never the one's with the tail of the other's (FACTS F8).
func TestTwoWritersNeverTearAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zz-pim-ssh")
	short, long := strings.Repeat("a", 5000), strings.Repeat("b", 9000)
	var group sync.WaitGroup
	for _, content := range []string{short, long} {
		group.Go(func() {
			for range 150 {
				if err := write(path, content, 0o440); err != nil {
					t.Error(err)
					return
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != short && string(got) != long {
					t.Errorf("torn: %d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	group.Wait()
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// An operator's run that read revision 3 must not finish after the agent's that brought revision 4: accounts that 4 governs
// would stand open until 5.
func TestOneRunWaitsForTheOther(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	first, err := Alone(lock)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error)
	go func() {
		f, err := Alone(lock)
		second <- errors.Join(err, f.Close())
	}()
	select {
	case err := <-second:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := errors.Join(first.Close(), <-second); err != nil {
		t.Error(err)
	}
}
