package policyfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pim-ssh/broker/policy"
)

var update = flag.Bool("update", false, "rewrite what the corpus expects; read the difference before committing it")

// cases returns the corpus files matching a pattern.
func cases(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	return files
}

func content(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

const wantMark = "# want: "

// TestThreatPolicyFileIsRefused reads one case a file. What it must say stands at the end, in comments, where it moves no line.
// unindexed leaves out what a document that was parsed knows to find things quickly.
var unindexed = cmpopts.IgnoreUnexported(policy.Document{})

func TestThreatPolicyFileIsRefused(t *testing.T) {
	files := cases(t, "testdata/bad/*.yaml")
	if len(files) < 240 {
		t.Errorf("only %d cases", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text := content(t, file)
			doc, err := Read("policy.yaml", text)
			if err == nil {
				t.Fatal("was read without complaint")
			}
			if diff := cmp.Diff(policy.Document{}, doc, unindexed); diff != "" {
				t.Errorf("something was returned beside the error: %s", diff)
			}
			got := wantMark + strings.ReplaceAll(err.Error(), "\n", "\n"+wantMark) + "\n"
			body, want := split(text)
			if *update {
				write(t, file, append(body, got...))
			} else if diff := cmp.Diff(want, got, unindexed); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestWarningsHaveTheirPlaces reads one case a file, as TestThreatPolicyFileIsRefused does, of what is valid but may be regretted.
func TestWarningsHaveTheirPlaces(t *testing.T) {
	for _, file := range cases(t, "testdata/warned/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text := content(t, file)
			_, warnings, err := ParseWarned("policy.yaml", text, 1_800_000_000)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(warnings) > 0 {
				got = wantMark + strings.ReplaceAll(warnings.Error(), "\n", "\n"+wantMark) + "\n"
			}
			body, want := split(text)
			if *update {
				write(t, file, append(body, got...))
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestScenarioFilesAreHeldToThePolicy reads one case a file, for the lab's policy.
func TestScenarioFilesAreHeldToThePolicy(t *testing.T) {
	doc, err := Read("lab.yaml", content(t, "testdata/good/lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range cases(t, "testdata/scenarios/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text := content(t, file)
			read, err := ParseScenarios("scenarios.yaml", text, &doc, 1_800_000_000)
			got := ""
			if err != nil {
				got = wantMark + strings.ReplaceAll(err.Error(), "\n", "\n"+wantMark) + "\n"
			} else if len(read.List) == 0 {
				t.Error("no scenario, and no complaint")
			}
			body, want := split(text)
			if *update {
				write(t, file, append(body, got...))
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// split parts a case from the errors it expects.
func split(text []byte) ([]byte, string) {
	at := bytes.Index(text, []byte(wantMark))
	if at < 0 {
		return text, ""
	}
	return text[:at], string(text[at:])
}

// TestTooManyPeopleAreSaid: what could not be signed is not called sound.
func TestTooManyPeopleAreSaid(t *testing.T) {
	text := strings.Builder{}
	text.WriteString("version: 1\npeople:\n")
	for i := range 6500 {
		blob := fmt.Sprintf("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20%032d", i)
		fmt.Fprintf(&text, "  somebody-with-a-long-name-%05d: {keys: [\"ssh-ed25519 %s\"]}\n", i, base64.StdEncoding.EncodeToString([]byte(blob)))
	}
	_, rest, _ := strings.Cut(string(content(t, "testdata/good/smallest.yaml")), "\n")
	_, rest, _ = strings.Cut(rest, "\n")
	text.WriteString("  alice: {keys: [\"" + string(aliceKey) + "\"]}\n" + rest)
	_, err := Parse("policy.yaml", []byte(text.String()))
	if err == nil || !strings.HasPrefix(err.Error(), "policy.yaml:1:1: 6501 people and 0 roles make a policy of ") {
		t.Errorf("%.200v", err)
	}
}

// BenchmarkParse reads about the largest policy that can be signed.
func BenchmarkParse(b *testing.B) {
	text := strings.Builder{}
	text.WriteString("version: 1\npeople:\n  alice: {keys: [\"" + aliceKey + "\"]}\n")
	for i := range 5000 {
		blob := fmt.Sprintf("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20%032d", i)
		fmt.Fprintf(&text, "  p%05d: {keys: [\"ssh-ed25519 %s\"]}\n", i, base64.StdEncoding.EncodeToString([]byte(blob)))
	}
	smallest, err := os.ReadFile("testdata/good/smallest.yaml")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(smallest), "stewards:")
	text.WriteString("stewards:" + rest + "roles:\n")
	for i := range 500 {
		fmt.Fprintf(&text, "  r%04d:\n    hosts: {labels: {tier: t%d}}\n    accounts: [a%d]\n    eligible: [p%05d]\n", i, i, i, i)
		fmt.Fprintf(&text, "    approvals: {count: 1, from: [p%05d, p%05d]}\n    longest: 1h\n", i+1, i+2)
	}
	for b.Loop() {
		if _, _, err := ParseWarned("policy.yaml", []byte(text.String()), 1_800_000_000); err != nil {
			b.Fatal(err)
		}
	}
}

const aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmrtdEvDNK8qeHW20laJXJNFRXlVjs39H9pxaq+QZ1H"

// TestGoodFilesCompile holds each file to the JSON it becomes.
func TestGoodFilesCompile(t *testing.T) {
	for _, file := range cases(t, "testdata/good/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			parsed, err := Parse(filepath.Base(file), content(t, file))
			if err != nil {
				t.Fatal(err)
			}
			payload, err := policy.Draft(policy.Chain{}.Next(parsed.Document, 1_800_000_000))
			if err != nil {
				t.Fatal(err)
			}
			var indented bytes.Buffer
			if err := json.Indent(&indented, append(payload, '\n'), "", "  "); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".json"
			if *update {
				write(t, golden, indented.Bytes())
			}
			if diff := cmp.Diff(string(content(t, golden)), indented.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
