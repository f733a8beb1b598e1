package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestManualNamesWhatUsageNames, every word and every key of host.yaml, and nothing else.
func TestManualNamesWhatUsageNames(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/pim-hostd.8")
	if err != nil {
		t.Fatal(err)
	}
	synopsis, rest, _ := strings.Cut(string(text), ".Sh DESCRIPTION")
	told, want := named(synopsis, `(?m)^\.Cm ([a-z]+)`), named(usage, `(?m)^  pim-hostd ([a-z]+)`)
	if !slices.Equal(told, want) {
		t.Errorf("the manual names %v, usage %v", told, want)
	}
	for _, key := range keys {
		if !regexp.MustCompile(`(?m)^\.Cm ` + key + `$|\b` + key + `:`).MatchString(rest) {
			t.Errorf("the manual does not name %s of host.yaml", key)
		}
	}
}

// named are the pattern's matches, sorted, each once.
func named(text, pattern string) []string {
	var all []string
	for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		all = append(all, found[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}
