package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestManualNamesWhatUsageNames, every word and flag, every key of broker.yaml, and nothing else.
func TestManualNamesWhatUsageNames(t *testing.T) {
	text, err := os.ReadFile("../../packaging/man/pim-brokerd.8")
	if err != nil {
		t.Fatal(err)
	}
	synopsis, rest, _ := strings.Cut(string(text), ".Sh DESCRIPTION")
	commands := named(synopsis, `(?m)^\.Cm ([a-z]+)`)
	if want := named(usage, `(?m)^  pim-brokerd ([a-z]+)`); !slices.Equal(commands, want) {
		t.Errorf("the manual names %v, usage %v", commands, want)
	}
	flags := named(synopsis, `Fl -([a-z]+)`)
	if want := named(usage, `--([a-z]+)`); !slices.Equal(slices.DeleteFunc(flags, func(f string) bool { return f == "help" }), want) {
		t.Errorf("the manual names the flags %v, usage %v", flags, want)
	}
	if want := ".Cm " + strings.Join(keys, " , ") + " ."; !strings.Contains(rest, want) {
		t.Errorf("the manual does not say %q", want)
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
