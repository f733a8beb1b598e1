package policyfile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Lifetime is how long a revision lasts when the file does not say.
const Lifetime = 90 * statement.Day

// File is what a policy.yaml says.
type File struct {
	Document policy.Document   // sorted; revision, previous and expires are not filled in: Chain.Next does
	Lifetime statement.Seconds // from signing to expiry
}

// Error is one problem of a file. Line and Column count from 1.
type Error struct {
	File         string
	Line, Column int
	Msg          string
}

// Error returns "policy.yaml:12:5: unknown key …".
func (e Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg) }

// Errors is every problem of a file, in the order of its lines.
type Errors []Error

// Error returns one problem a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Read is Parse for those who need the document only.
func Read(name string, text []byte) (policy.Document, error) {
	file, err := Parse(name, text)
	return file.Document, err
}

// Parse reads a policy.yaml and checks it by the policy's own rules. The name only stands in errors, which are Errors.
func Parse(name string, text []byte) (File, error) {
	file, _, err := parse(name, text)
	return file, err
}

func parse(name string, text []byte) (File, ast.Node, error) {
	r := &reader{name: name}
	root := r.tree(text)
	var file File
	if len(r.found) == 0 {
		file = r.file(root)
	}
	if len(r.found) == 0 {
		r.check(root, &file.Document)
	}
	if len(r.found) > 0 {
		r.found.sort()
		return File{}, nil, r.found
	}
	return file, root, nil
}

// ParseWarned is Parse, and says besides, with their places, what the file may say and its stewards may regret: every one of
// policy's Warnings.
func ParseWarned(name string, text []byte, now statement.Time) (File, Errors, error) {
	file, root, err := parse(name, text)
	if err != nil {
		return File{}, nil, err
	}
	var warnings Errors
	for _, warning := range file.Document.Warnings(now) {
		p := locate(root, warning.Path)
		warnings = append(warnings, Error{File: name, Line: p.line, Column: p.column, Msg: warning.Error()})
	}
	warnings.sort()
	return file, warnings, nil
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b Error) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
}

// reader collects the problems of one file; what it returns is only used when it found none.
type reader struct {
	name  string
	found Errors
}

type place struct{ line, column int }

// maxProblems is how many problems of one file are told.
const maxProblems = 20

func (r *reader) say(p place, format string, args ...any) {
	if len(r.found) >= maxProblems {
		return
	}
	r.found = append(r.found, Error{File: r.name, Line: p.line, Column: p.column, Msg: fmt.Sprintf(format, args...)})
}

// tree returns the one mapping the file holds, made of nothing but mappings, lists and one-line scalars.
func (r *reader) tree(text []byte) ast.Node {
	if !r.plain(text) {
		return nil
	}
	tokens := lexer.Tokenize(string(text))
	if !r.scan(tokens) {
		return nil
	}
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		r.say(place{1, 1}, "the file is empty")
		return nil
	}
	return tree.Docs[0].Body
}

// syntax reports what the YAML parser refused.
func (r *reader) syntax(err error) {
	p, msg := place{1, 1}, err.Error()
	var syntax yaml.Error
	if errors.As(err, &syntax) {
		msg = syntax.GetMessage()
		if token := syntax.GetToken(); token != nil {
			p = place{token.Position.Line, token.Position.Column}
		}
	}
	r.say(p, "not YAML: %s", msg)
}

// check applies the policy's own rules and finds the lines they speak of.
func (r *reader) check(root ast.Node, doc *policy.Document) {
	var problems policy.Problems
	err := doc.CheckRules()
	if err != nil && !errors.As(err, &problems) {
		r.say(place{1, 1}, "%v", err)
	}
	for _, problem := range problems {
		r.say(locate(root, problem.Path), "%s", problem.Error())
	}
	if size := doc.Size(); len(r.found) == 0 && size > statement.MaxPolicy {
		r.say(place{1, 1}, "%d people and %d roles make a policy of %d bytes, and one is at most %d: every host keeps it in memory", len(doc.People), len(doc.Roles), size, statement.MaxPolicy)
	}
}
