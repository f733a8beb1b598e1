package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigIsReadStrictly(t *testing.T) {
	for sentence, c := range map[string]struct{ text, want string }{
		"empty":                     {"", ""},
		"only a comment":            {"# nothing\n", ""},
		"an exempt account":         {"exempt:\n  - {account: backup, commands: [\"/usr/bin/rsync --server\"]}\n", ""},
		"an unknown key":            {"exempted: []\n", ":1:1: unknown field \"exempted\": did you mean \"exempt\"?"},
		"an unknown key inside":     {"exempt:\n  - {account: backup, command: x}\n", ":2:"},
		"a key twice":               {"broker: a:1\nbroker: b:1\n", ":2:1: "},
		"an account of uid grammar": {"exempt:\n  - {account: \"#0\", commands: [/bin/true]}\n", "account"},
		"a command with a wildcard": {"exempt:\n  - {account: backup, commands: [\"/bin/* x\"]}\n", "command"},
		"a relative command":        {"exempt:\n  - {account: backup, commands: [rsync]}\n", "command"},
		"not a map":                 {"- exempt\n", ":1:1: "},
	} {
		t.Run(sentence, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "host.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readConfig(path)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
				t.Errorf("%+v, %v; want %q", got, err, c.want)
			}
		})
	}
	if _, err := readConfig(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no file at all: %v", err)
	}
}
