package main

import (
	"os"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
)

// ageKey VARIABLE FILE makes a key as age-keygen does: the secret half in a file, the public one in a variable.
func ageKey(ts *testscript.TestScript, _ bool, args []string) {
	key, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Setenv(args[0], key.Recipient().String())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte("# created by a test\n"+key.String()+"\n"), 0o600))
}
