package policy

import "slices"

// Nearest returns the candidate that a mistyped word most likely means: the one fewest letters away, at most a third
// of the word and never more than three; of equals the first in alphabetical order.
func Nearest(word string, candidates []string) (string, bool) {
	limit := min(3, (len(word)+2)/3)
	best, found := "", false
	for _, candidate := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(word, candidate); d <= limit && candidate != word {
			best, found, limit = candidate, true, d-1
		}
	}
	return best, found
}

// distance counts the letters to insert, delete, replace or swap with their neighbour to get from a to b.
func distance(a, b string) int {
	before, row, next := []int(nil), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			replace := row[j]
			if a[i] != b[j] {
				replace++
			}
			next[j+1] = min(replace, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = slices.Clone(row), next, row
	}
	return row[len(b)]
}
