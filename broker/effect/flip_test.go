package effect

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// flip changes one byte of one file for as long as look takes: which ones, the seed says. A third each goes to entries,
// tiles and checkpoint, however long they are.
func flip(t *testing.T, dir string, seed int, look func(name string)) string {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(seed), 6962))
	kinds := [][]string{{}, {}, {}}
	for _, name := range files(t, dir) {
		switch {
		case name == "checkpoint":
			kinds[0] = append(kinds[0], name)
		case strings.HasPrefix(name, "tile/entries"):
			kinds[1] = append(kinds[1], name)
		default:
			kinds[2] = append(kinds[2], name)
		}
	}
	some := kinds[random.IntN(len(kinds))]
	name := some[random.IntN(len(some))]
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	must(t, err)
	at, by := random.IntN(len(data)), byte(1+random.IntN(255))
	data[at] ^= by
	must(t, os.WriteFile(path, data, 0o600))
	look(name)
	data[at] ^= by
	must(t, os.WriteFile(path, data, 0o600))
	return name
}
