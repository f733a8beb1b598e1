package policyfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/policy"
)

// TestThreatHostileFilesEndSoon reads files that make careless readers recurse, expand or crawl.
func TestThreatHostileFilesEndSoon(t *testing.T) {
	const half = maxFile / 2
	for what, text := range map[string]string{
		"open brackets":          strings.Repeat("[", half),
		"open braces":            strings.Repeat("{", half),
		"pairs of brackets":      "a: " + strings.Repeat("[]", half/2),
		"entries in entries":     strings.Repeat("- ", half/2),
		"complex keys":           strings.Repeat("? ", half/2),
		"deeper and deeper":      staircase(700),
		"anchors":                strings.Repeat("&a ", half/3),
		"aliases":                strings.Repeat("*a ", half/3),
		"one long word":          strings.Repeat("a", half),
		"one long quote":         `"` + strings.Repeat(`\"`, half/2),
		"documents":              strings.Repeat("---\n", half/4),
		"pairs up to the limit":  "a: " + strings.Repeat("[]", maxTokens/2-2),
		"keys up to the limit":   strings.Repeat("a: ", maxTokens/2-2),
		"keys in braces":         "a: {" + strings.Repeat("a: ", maxTokens/2-2),
		"keys in braces, lines":  "a: {" + strings.Repeat("a:\n ", maxTokens/2-2),
		"lists in lists":         "a: " + strings.Repeat("[[],", maxTokens/3-2),
		"many short lists":       "a: [" + strings.Repeat("[],", maxTokens/3-2) + "]",
		"many pairs in braces":   "a: [" + strings.Repeat("{a: b},", maxTokens/6-2) + "]",
		"many lines of a list":   "a:\n" + strings.Repeat("- b\n", maxTokens/2-2),
		"many lines of keys":     manyKeys(maxTokens/3 - 2),
		"one key many times":     strings.Repeat("a: b\n", 2000),
		"many keys":              manyKeys(10_000),
		"colons":                 strings.Repeat(":", half),
		"newlines":               strings.Repeat("\n", half),
		"comments":               strings.Repeat("#\n", half/2),
		"more than the limit":    strings.Repeat("# more\n", maxFile/6),
		"controls":               strings.Repeat("\x00", half),
		"bytes that are no text": strings.Repeat("\xff", half),
	} {
		t.Run(what, func(t *testing.T) {
			start := worked(t)
			_, err := Parse("policy.yaml", []byte(text))
			var found Errors
			if !errors.As(err, &found) || len(found) > maxProblems {
				t.Errorf("%d problems told: %.80v", len(found), err)
			}
			if took := worked(t) - start; took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// worked is how long this process has been on a processor: what else the machine does is no fault of a file's.
func worked(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func staircase(steps int) string {
	var b strings.Builder
	for i := range steps {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "key%d: 1\n", i)
	}
	return b.String()
}

// FuzzParse: whatever the bytes, the answer is either problems with places, or a document that drafts and says the same.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/yaml_*.yaml", "testdata/bad/key_*.yaml", "testdata/bad/dated_*.yaml", "testdata/bad/hours_*.yaml",
		"testdata/bad/approvals_*.yaml", "testdata/bad/fa*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("policy.yaml", text)
		if err != nil {
			var found Errors
			if !errors.As(err, &found) || len(found) == 0 || found[0].Line < 1 || found[0].Column < 1 {
				t.Fatalf("a problem without a place: %v", err)
			}
			return
		}
		payload, err := policy.Draft(policy.Chain{}.Next(file.Document, 1_800_000_000))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := policy.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		if lines := policy.Difference(&file.Document, doc); len(lines) != 1 || file.Lifetime < 1 {
			t.Fatalf("says something else once signed: %q", lines)
		}
	})
}

// TestExampleIsRead keeps the example people start from true: it parses, and it writes out the defaults.
func TestExampleIsRead(t *testing.T) {
	text, err := os.ReadFile("../../../packaging/examples/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := Parse("policy.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	short, err := Parse("policy.yaml", []byte(withoutDefaults(string(text))))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(file, short, unindexed); diff != "" {
		t.Errorf("a line marked default is not one: %s", diff)
	}
	if short := strings.Count(withoutDefaults(string(text)), "\n"); strings.Count(string(text), "\n")-short < 4 {
		t.Error("the example writes out too few defaults")
	}
}

// withoutDefaults drops the lines that say of themselves that they are the default.
func withoutDefaults(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if code, comment, _ := strings.Cut(line, "#"); strings.TrimSpace(code) == "" || !strings.Contains(strings.ToLower(comment), "the default") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestManualNamesEveryField holds policy.yaml(5) to the fields that are read: each has an entry, with an example, and no other has.
func TestManualNamesEveryField(t *testing.T) {
	told := manualEntries(t, "DESCRIPTION")
	for name, text := range told {
		if !strings.Contains(text, ".Dl ") {
			t.Errorf("policy.yaml(5) gives no example of %s", name)
		}
		if !strings.Contains(text, "Default") && !strings.Contains(text, "Required") && !slices.Contains([]string{"names", "labels", "grace"}, name) {
			t.Errorf("policy.yaml(5) says neither that %s is required nor what its default is", name)
		}
	}
	sameNames(t, told, fieldNames(t, "fields.go", "fields_limits.go"), 40)
}

// TestManualNamesEveryFieldOfScenarios likewise.
func TestManualNamesEveryFieldOfScenarios(t *testing.T) {
	sameNames(t, manualEntries(t, "SCENARIOS"), fieldNames(t, "scenarios.go"), 18)
}

// manualEntries are the fields that a section of policy.yaml(5) has an entry for, with what it says.
func manualEntries(t *testing.T, section string) map[string]string {
	t.Helper()
	manual, err := os.ReadFile("../../../packaging/man/policy.yaml.5")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(manual), "\n.Sh "+section+"\n")
	if !found {
		t.Fatalf("policy.yaml(5) has no section %s", section)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	told := map[string]string{}
	for _, entry := range strings.Split(text, "\n.It Cm ")[1:] {
		name, text, _ := strings.Cut(entry, "\n")
		told[name] = text
	}
	return told
}

func sameNames(t *testing.T, told map[string]string, names []string, least int) {
	t.Helper()
	if len(names) < least {
		t.Fatalf("only %d fields found", len(names))
	}
	for _, name := range names {
		if _, is := told[name]; !is {
			t.Errorf("policy.yaml(5) has no entry for %s", name)
		}
	}
	for name := range told {
		if !slices.Contains(names, name) {
			t.Errorf("policy.yaml(5) tells of %s, which nobody reads", name)
		}
	}
}

// TestManualMarksBrokersWord: what hosts cannot check is marked, and nothing else.
func TestManualMarksBrokersWord(t *testing.T) {
	manual, err := os.ReadFile("../../../packaging/man/policy.yaml.5")
	if err != nil {
		t.Fatal(err)
	}
	var marked []string
	for _, entry := range strings.Split(string(manual), "\n.It Cm ")[1:] {
		if name, text, _ := strings.Cut(entry, "\n"); strings.Contains(text, "rokers' word") {
			marked = append(marked, name)
		}
	}
	if diff := cmp.Diff([]string{"second_factor", "budget", "hours", "networks", "hook"}, marked); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// fieldNames are the first strings of the tables of fields that are read.
func fieldNames(t *testing.T, files ...string) []string {
	t.Helper()
	var names []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`\{"([a-z_]+)", (true|false), `).FindAllStringSubmatch(string(source), -1) {
			names = append(names, found[1])
		}
	}
	return names
}
