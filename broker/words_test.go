package broker

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A refusal's kind, hint and words stand in events and in the digest: brokers of two builds that put one refusal differently
// would write two records, and stop. So the words are part of the rules. New ones may be added with new rules; to change one
// that any rules in use can reach, decide it by the rules in force.
func TestTheWordsOfRefusalsAreFrozen(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var words []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, is := n.(*ast.CallExpr)
			if name, named := callee(call, is); named && name == "Refuse" && len(call.Args) > 2 {
				words = append(words, source(t, set, call))
			}
			return true
		})
	}
	slices.Sort(words)
	if len(words) < 50 {
		t.Fatalf("only %d refusals found", len(words))
	}
	golden(t, "words", []byte(strings.Join(slices.Compact(words), "\n")+"\n"))
}

func callee(call *ast.CallExpr, is bool) (string, bool) {
	if !is {
		return "", false
	}
	name, named := call.Fun.(*ast.Ident)
	if !named {
		return "", false
	}
	return name.Name, true
}

// source prints a call on one line.
func source(t *testing.T, set *token.FileSet, call *ast.CallExpr) string {
	t.Helper()
	var text bytes.Buffer
	if err := printer.Fprint(&text, set, call); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(text.String()), " ")
}
