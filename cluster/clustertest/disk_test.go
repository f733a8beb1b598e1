package clustertest

import (
	"bytes"
	"fmt"
	randv2 "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestATornWriteLeavesTheStateBefore tears the same write in many ways: whatever reached the disk, the database opens as it
// was, and is whole. A torn image that a real crash could not leave would accuse the innocent.
func TestATornWriteLeavesTheStateBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	had, has := twoStates(t, path)
	l := &life{random: randv2.New(randv2.NewPCG(1, 1))}
	different := 0
	for range 200 {
		torn := l.torn(had, has)
		if !bytes.Equal(torn[:len(had)], had) {
			different++
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := count(t, path); n != 40 {
			t.Fatalf("%d keys, want the 40 of before", n)
		}
	}
	if different == 0 {
		t.Error("nothing was ever torn")
	}
}

// twoStates returns a database with 40 keys, and with one write more.
func twoStates(t *testing.T, path string) (had, has []byte) {
	t.Helper()
	for n := range 41 {
		if had = has; n > 0 {
			had = read(t, path)
		}
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put(fmt.Appendf(nil, "%04d", n), bytes.Repeat([]byte{byte(n)}, 3000))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return had, read(t, path)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// count returns how many keys there are, after checking every page.
func count(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		for wrong := range tx.Check() {
			t.Error(wrong)
		}
		n = tx.Bucket([]byte("b")).Inspect().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
