package main

import (
	"os"
	"path/filepath"
	"testing"

	"pim-ssh/broker/statement"
)

func TestLookup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	p := newPasswd(path)
	write("alice:x:61001:61001::/home/alice:/bin/sh\nalice:x:0:0::/root:/bin/sh\nshort:x:5\nodd:x:minus:0::/:/bin/sh\n")
	for sentence, c := range map[string]struct {
		account statement.Account
		uid     uint32
		found   bool
	}{
		"an account of the file":                     {"alice", 61001, true},
		"one only the name service knows, uid 0":     {"root", 0, true},
		"one nobody knows":                           {"nobody-at-all", 0, false},
		"a line cut short is left to the C library":  {"short", 0, false},
		"an odd number is left to the C library too": {"odd", 0, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			uid, err := p.lookup(c.account)
			if (err == nil) != c.found || uid != c.uid {
				t.Errorf("%d, %v", uid, err)
			}
		})
	}
	write("alice:x:61009:61001::/home/alice:/bin/sh\n")
	if uid, err := p.lookup("alice"); err != nil || uid != 61009 {
		t.Errorf("after the file was replaced: %d, %v", uid, err)
	}
}
