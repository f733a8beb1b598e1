package cmd

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestEveryTestThatTheReadmeNamesExists: a promise with the name of a test that is gone is no promise.
func TestEveryTestThatTheReadmeNamesExists(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	all, _ := sources(t)
	known := map[string]bool{}
	for _, s := range all {
		for _, decl := range s.file.Decls {
			if f, is := decl.(*ast.FuncDecl); is && s.test {
				known[f.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9_]+)").FindAllStringSubmatch(string(readme), -1)
	if len(named) < 30 {
		t.Errorf("README.md names only %d tests", len(named))
	}
	for _, name := range named {
		if !known[name[1]] {
			t.Errorf("README.md names %s, and there is no such test", name[1])
		}
	}
}
