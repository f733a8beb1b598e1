// Package cmd holds the programs, one folder each: words and wiring, no rules. It decides nothing itself; its
// only code is layout_test.go, which keeps the house in order on every `go test`: who may import whom, sizes,
// comments, and why each dependency is here. Read layout_test.go first.
package cmd
