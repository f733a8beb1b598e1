package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// hinted is a command of ours as texts name it: its words, and what follows up to the end of the command.
var hinted = regexp.MustCompile(`pim-ssh ([a-z](?:[a-z-]+ ?)+)([^;|\n]*)`)

var longFlag = regexp.MustCompile(`(?:^| )--([a-z][a-z-]*)`)

// TestEveryHintNamesACommandThatExists: whatever a text of ours tells people to type, in the rules, at the edge or here, is a
// command of this program with flags that it takes.
func TestEveryHintNamesACommandThatExists(t *testing.T) {
	root := commands(&desk{world: realWorld()})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	hints := 0
	for _, folder := range []string{"../../broker", "../../cmd", "../../cluster"} {
		eachText(t, folder, func(place, text string) {
			for _, hint := range hinted.FindAllStringSubmatch(text, -1) {
				hints++
				checkHint(t, root, place, strings.Fields(hint[1]), hint[2])
			}
		})
	}
	if hints < 150 {
		t.Errorf("only %d hints were found", hints)
	}
}

// checkHint holds one hint to the commands there are. Words that no command starts with are prose: "pim-ssh itself".
func checkHint(t *testing.T, root *cobra.Command, place string, words []string, rest string) {
	t.Helper()
	cmd, left, err := root.Find(words)
	if cmd == root || err != nil {
		if !prose[words[0]] {
			t.Errorf("%s: pim-ssh %s is no command", place, strings.Join(words, " "))
		}
		return
	}
	if cmd.HasSubCommands() && len(left) > 0 && !prose[left[0]] {
		t.Errorf("%s: pim-ssh %s is no command", place, strings.Join(words, " "))
	}
	for _, flag := range longFlag.FindAllStringSubmatch(rest, -1) {
		if cmd.Flag(flag[1]) == nil && flag[1] != "help" && cmd.Name() != "ssh" {
			t.Errorf("%s: pim-ssh %s takes no --%s", place, strings.Join(words, " "), flag[1])
		}
	}
}

// prose are words that follow the program's name where no command is meant.
var prose = map[string]bool{"command": true, "itself": true, "sign": true, "this": true, "at": true}

// eachText visits every string that the programs of a folder may print; tests aside.
func eachText(t *testing.T, folder string, visit func(place, text string)) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if _, isImport := node.(*ast.ImportSpec); isImport {
				return false
			}
			literal, isLiteral := node.(*ast.BasicLit)
			if !isLiteral || literal.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil {
				visit(fset.Position(literal.Pos()).String(), text)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
