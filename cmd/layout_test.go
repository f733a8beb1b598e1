package cmd

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// The house as a table: what each package's own files may import of ours, and why nothing more. A package that is not
// listed fails: whoever adds a room writes down what it may lean on.
var mayImport = map[string]struct {
	ours []string
	why  string
}{
	"broker/statement": {nil, "signed bytes are a leaf: nothing of ours may change what they mean"},
	"broker/statement/signtest": {[]string{"broker/statement"},
		"software security keys for tests"},
	"broker/policy":            {[]string{"broker/statement"}, "who may what stands on signed bytes alone"},
	"broker/policy/policyfile": {[]string{"broker/policy", "broker/statement"}, "YAML becomes a document here and nowhere else"},
	"broker/policy/rehearse": {[]string{"broker", "broker/edge/judge", "broker/policy", "broker/policy/policyfile", "broker/statement"},
		"a policy is tried by the rules that will judge it, and by no copy of them"},
	"broker":                {[]string{"broker/policy", "broker/statement"}, "the rules: pure, so that three judges reach one verdict"},
	"broker/api":            {[]string{"broker", "broker/audit", "broker/policy", "broker/statement", "certs"}, "what travels between programs"},
	"broker/audit":          {[]string{"broker/statement"}, "a leaf: trees and checkpoints know no events"},
	"broker/audit/refold":   {[]string{"broker", "broker/audit", "broker/policy", "broker/statement"}, "the auditor's judge: pure, like the broker's"},
	"broker/totp":           {[]string{"broker/statement"}, "a leaf beside statement: seeds and codes; whether one may be used is the state's"},
	"broker/audit/backup":   {nil, "a leaf beside audit: one encrypted file, whose entries others judge"},
	"broker/edge/judge":     {[]string{"broker", "broker/policy", "broker/statement", "broker/totp"}, "what only the broker that proposes can see; hooks are called here and nowhere else"},
	"broker/edge":           {[]string{"broker", "broker/api", "broker/audit", "broker/edge/judge", "broker/policy", "broker/statement", "broker/totp", "broker/effect", "certs"}, "edge and cluster meet only in cmd/*/wire.go"},
	"broker/effect":         {[]string{"broker", "broker/api", "broker/audit", "broker/policy", "broker/statement"}, "consumers of committed events"},
	"certs":                 {[]string{"broker/statement"}, "a leaf: grant to certificate and back, on signed words only"},
	"certs/signer":          {[]string{"broker/statement"}, "the only place that holds a CA key"},
	"cluster":               {[]string{"broker", "broker/policy", "broker/statement"}, "raft carries commands between the brokers that policy lists; it knows no routes"},
	"cluster/clustertest":   {[]string{"*"}, "a cluster to cut, and who judges what came of it; test code only"},
	"pam/wire":              {nil, "a leaf shared with C by its vectors"},
	"pam/agent":             {[]string{"broker", "broker/api", "broker/audit", "broker/policy", "broker/statement", "certs", "pam/wire"}, "the host judges with the broker's own rules"},
	"pam/enforce":           {[]string{"broker/policy", "broker/statement"}, "what stands in /etc follows from policy and nothing else"},
	"pam/mortal":            {nil, "kills a writer at each system call; tests only"},
	"pam/pamtest":           {[]string{"pam/wire"}, "real libpam, driven"},
	"packaging/pam-configs": {nil, "checks what pam-auth-update makes of our profiles"},
	"packaging/lab":         {[]string{"*"}, "tests on real machines may use everything"},
	"packaging/lab/labtest": {[]string{"broker", "broker/policy", "broker/statement"}, "machines for tests"},
	"packaging/lab/forger":  {[]string{"*"}, "the attacker with every broker key; test code only"},
	"cmd":                   {nil, "keeps the house"},
	"cmd/pim-ssh": {[]string{"broker", "broker/api", "broker/audit", "broker/audit/backup", "broker/audit/refold", "broker/policy", "broker/policy/policyfile",
		"broker/policy/rehearse", "broker/statement", "broker/totp", "certs", "cmd/pim-ssh/term"}, "the CLI: words; no raft, no PAM"},
	"cmd/pim-ssh/term": {nil, "the only code that writes to a terminal"},
	"cmd/settings":     {[]string{"broker/policy"}, "reads a daemon's YAML; the nearest word is policy's"},
	"cmd/pim-brokerd": {[]string{"broker", "broker/api", "broker/audit", "broker/audit/backup", "broker/audit/refold", "broker/edge", "broker/effect", "broker/policy",
		"broker/policy/policyfile", "broker/statement", "certs", "certs/signer", "cluster", "cmd/settings"}, "wires edge to cluster"},
	"cmd/pim-hostd": {[]string{"broker", "broker/api", "broker/policy", "broker/statement", "cmd/settings", "pam/agent", "pam/enforce"}, "wires the agent to the machine"},
}

// pure packages hold the rules: same arguments, same answer, for ever.
var pure = []string{"broker", "broker/audit", "broker/audit/refold", "broker/policy", "broker/statement", "certs", "pam/wire"}

// forbiddenInPure are the ways in which the world leaks into a rule.
var forbiddenInPure = []string{"net", "net/http", "os", "os/exec", "os/user", "crypto/rand", "math/rand", "math/rand/v2", "syscall",
	"golang.org/x/sys/unix", "golang.org/x/crypto/ssh/agent", "path/filepath", "io/ioutil", "log", "log/slog"}

// clocks are time's functions that read one.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "LoadLocation", "Local"}

// onlyIn says where a library may be imported (tests included), and why nowhere else.
var onlyIn = []struct {
	prefix string
	where  []string
	why    string
}{
	{"github.com/hashicorp/raft", []string{"cluster", "cluster/clustertest"}, "raft only in cluster: the rules do not know that they are replicated"},
	{"go.etcd.io/bbolt", []string{"cluster", "cluster/clustertest"}, "storage is the cluster's"},
	{"filippo.io/age", []string{"broker/audit/backup", "broker/totp", "cmd/pim-ssh", "cmd/pim-brokerd"}, "encryption only of files that leave the brokers, and of seeds, which only brokers open"},
	{"github.com/pquerna/otp", []string{"broker/totp"}, "codes are made and checked in one place"},
	{"github.com/boombuler/barcode", []string{"cmd/pim-ssh"}, "a secret is drawn on a terminal and nowhere else"},
	{"github.com/goccy/go-yaml", []string{"broker/policy/policyfile", "cmd/settings"}, "YAML only where people write it: the policy, and the daemons' own settings"},
	{"github.com/spf13/cobra", []string{"cmd/pim-ssh"}, "the daemons have few words"},
	{"github.com/msteinert/pam", []string{"pam/pamtest", "cmd/pim-hostd"}, "needs cgo; drives PAM, cannot be a module"},
	{"github.com/coreos/go-systemd", []string{"pam/agent", "pam/enforce", "cmd/pim-hostd", "cmd/pim-brokerd"}, "systemd is the host's and the daemons'"},
	{"golang.org/x/crypto/ssh/agent", []string{"cmd/pim-ssh", "certs/signer", "broker/statement/signtest", "packaging/lab"}, "keys live in the CLI and in signer"},
	{"golang.org/x/term", []string{"cmd/pim-ssh/term"}, "one place talks to terminals"},
}

// dependencies are the modules we lean on directly, each with its reason.
var dependencies = map[string]string{
	"filippo.io/age":                      "backups that nobody reads without the key; its authors' format, stable since 2021, and age itself opens them",
	"github.com/anishathalye/porcupine":   "is there an order of what people were told that the rules allow; tests only",
	"github.com/coreos/go-systemd/v22":    "transient units, socket activation and sd_notify, as systemd's own authors speak them",
	"github.com/go-json-experiment/json":  "the strict decoder: duplicate, unknown and case-variant names are errors",
	"github.com/goccy/go-yaml":            "policy.yaml and the daemons' settings with line:column for every node",
	"github.com/godbus/dbus/v5":           "go-systemd's own D-Bus: to tell its errors apart",
	"github.com/google/go-cmp":            "test differences",
	"github.com/hashicorp/raft":           "consensus; pinned by FACTS R1",
	"github.com/hashicorp/raft-boltdb/v2": "raft's log store; pinned by FACTS R1",
	"github.com/hiddeco/sshsig":           "SSHSIG format; ssh-keygen -Y is its oracle here",
	"github.com/msteinert/pam/v2":         "drives real libpam in tests and doctor",
	"github.com/boombuler/barcode":        "the QR code of a new secret; otp brings it along anyway",
	"github.com/pquerna/otp":              "RFC 6238's codes, and the URI that apps read; oathtool is its oracle",
	"github.com/rogpeppe/go-internal":     "testscript: the CLI's stories",
	"github.com/spf13/cobra":              "the CLI's commands and completions",
	"github.com/spf13/pflag":              "cobra's flags: the manual names every one",
	"go.etcd.io/bbolt":                    "the event log beside raft's",
	"golang.org/x/crypto":                 "ssh keys, signatures and certificates",
	"golang.org/x/mod":                    "sumdb's tlog and note: the Merkle tree and signed notes that Go's own checksum database trusts; newest, past GO-2026-6179",
	"golang.org/x/sys":                    "pidfd and peer credentials",
	"golang.org/x/term":                   "passphrases and terminal width",
	"pgregory.net/rapid":                  "state machines against a naive model",
}

// TestNoProgramReachesThroughSeams: what lets tests break a broker stays out of every program.
func TestNoProgramReachesThroughSeams(t *testing.T) {
	all, fset := sources(t)
	for _, s := range all {
		if s.test || s.pkg == "cluster" || slices.Contains(testSupport, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok && name.Name == "Seams" {
				t.Errorf("%s: cluster.Seams are for test support alone", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

// Test support may be imported by tests and by other test support only.
var testSupport = []string{"broker/statement/signtest", "cluster/clustertest", "pam/mortal", "pam/pamtest", "packaging/lab", "packaging/lab/labtest", "packaging/lab/forger"}

var forbiddenNames = []string{"util", "utils", "common", "helper", "helpers", "types", "models", "manager", "base", "misc"}

var topLevel = []string{".ci", ".cache", ".git", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "broker", "build", "certs",
	"cluster", "cmd", "go.mod", "go.sum", "packaging", "pam"}

// source is one parsed Go file.
type source struct {
	pkg  string // folder relative to the top
	path string
	file *ast.File
	test bool
}

func sources(t *testing.T) ([]source, *token.FileSet) {
	t.Helper()
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", ".cache", "build", "testdata"}, d.Name()) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, "../")
		all = append(all, source{filepath.Dir(rel), rel, f, strings.HasSuffix(path, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, fset
}

func imports(f *ast.File) []string {
	var out []string
	for _, i := range f.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

func TestTopLevelIsFixed(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s: the top level is fixed (DESIGN §8); find it a room", e.Name())
		}
	}
}

func TestImportsFlowOneWay(t *testing.T) {
	all, _ := sources(t)
	for _, s := range all {
		rule, ok := mayImport[s.pkg]
		if !ok {
			t.Errorf("%s: package is not in the layout table; add what it may import and why", s.pkg)
			continue
		}
		for _, imp := range imports(s.file) {
			checkImport(t, s, imp, rule.ours, rule.why)
		}
	}
}

func checkImport(t *testing.T, s source, imp string, ours []string, why string) {
	for _, o := range onlyIn {
		if strings.HasPrefix(imp, o.prefix) && !slices.Contains(o.where, s.pkg) && !s.test {
			t.Errorf("%s imports %s: %s", s.path, imp, o.why)
		}
	}
	own, isOurs := strings.CutPrefix(imp, "pim-ssh/")
	if !isOurs {
		return
	}
	supports := slices.Contains(testSupport, own)
	if supports && !s.test && !slices.Contains(testSupport, s.pkg) {
		t.Errorf("%s imports %s: test support, attackers' tools included, stays out of programs", s.path, own)
	}
	if !s.test && !slices.Contains(ours, own) && !slices.Contains(ours, "*") && !supports {
		t.Errorf("%s imports %s: %s", s.path, own, why)
	}
}

func TestRulesArePure(t *testing.T) {
	all, fset := sources(t)
	for _, s := range all {
		if s.test || !slices.Contains(pure, s.pkg) {
			continue
		}
		for _, imp := range imports(s.file) {
			if slices.Contains(forbiddenInPure, imp) {
				t.Errorf("%s imports %s: a rule is a function of its arguments (DESIGN §4)", s.path, imp)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, sel.Sel.Name) {
				t.Errorf("%s: time.%s in a rule: time is a parameter", fset.Position(n.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	all, _ := sources(t)
	doc := map[string]string{}
	for _, s := range all {
		if _, ok := doc[s.pkg]; !ok {
			doc[s.pkg] = ""
		}
		if s.file.Doc != nil && !s.test {
			doc[s.pkg] += s.file.Doc.Text()
		}
	}
	for pkg, text := range doc {
		if len(text) < 120 {
			t.Errorf("%s: the package comment must say what it decides, what it never does, where it sits, which file to read first", pkg)
		}
		if name := filepath.Base(pkg); slices.Contains(forbiddenNames, name) {
			t.Errorf("%s: %q is not a noun for an idea", pkg, name)
		}
	}
	for _, s := range all {
		if name := strings.TrimSuffix(filepath.Base(s.path), ".go"); slices.Contains(forbiddenNames, name) {
			t.Errorf("%s: %q is not a noun for an idea", s.path, name)
		}
	}
}

func TestBudgets(t *testing.T) {
	all, fset := sources(t)
	for _, s := range all {
		if n := fset.Position(s.file.End()).Line; n > 500 {
			t.Errorf("%s: %d lines, at most 500", s.path, n)
		}
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				checkFunction(t, fset, s, f)
			}
		}
	}
}

func checkFunction(t *testing.T, fset *token.FileSet, s source, f *ast.FuncDecl) {
	limit := 70
	if f.Name.Name == "main" {
		limit = 15
	}
	lines := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1
	if lines > limit {
		t.Errorf("%s: %s has %d lines, at most %d", fset.Position(f.Pos()), f.Name.Name, lines, limit)
	}
	if d := depth(f.Body, 0); d > 3 {
		t.Errorf("%s: %s nests %d deep, at most 3", fset.Position(f.Pos()), f.Name.Name, d)
	}
}

// depth counts nested control flow; a function literal starts afresh and an else-if is its if's sibling.
func depth(n ast.Node, at int) int {
	deepest := at
	ast.Inspect(n, func(m ast.Node) bool {
		if m == nil || m == n {
			return true
		}
		switch m := m.(type) {
		case *ast.FuncLit:
			deepest = max(deepest, depth(m.Body, 0))
			return false
		case *ast.IfStmt:
			deepest = max(deepest, depth(m.Body, at+1))
			if m.Else != nil {
				next := at + 1
				if _, elseIf := m.Else.(*ast.IfStmt); elseIf {
					next = at
				}
				deepest = max(deepest, depth(wrap(m.Else), next))
			}
			return false
		case *ast.ForStmt:
			deepest = max(deepest, depth(m.Body, at+1))
			return false
		case *ast.RangeStmt:
			deepest = max(deepest, depth(m.Body, at+1))
			return false
		case *ast.SwitchStmt:
			deepest = max(deepest, depth(m.Body, at+1))
			return false
		case *ast.TypeSwitchStmt:
			deepest = max(deepest, depth(m.Body, at+1))
			return false
		case *ast.SelectStmt:
			deepest = max(deepest, depth(m.Body, at+1))
			return false
		}
		return true
	})
	return deepest
}

// wrap puts a statement in a block, so that Inspect's root is never the statement we still want to count.
func wrap(s ast.Stmt) ast.Node {
	if b, ok := s.(*ast.BlockStmt); ok {
		return b
	}
	return &ast.BlockStmt{List: []ast.Stmt{s}}
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	all, fset := sources(t)
	for _, s := range all {
		if s.test || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: exported %s has no comment", fset.Position(d.Pos()), name)
			}
		}
	}
}

func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		return undocumentedSpecs(d)
	}
	return nil
}

// exportedReceiver is false for methods that cannot be reached from outside, and for the conventional ones whose interface documents them.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	name := strings.TrimLeft(fmt.Sprint(receiver(d.Recv.List[0].Type)), "*")
	return ast.IsExported(name) && !slices.Contains([]string{"Error", "Unwrap", "String", "MarshalText", "UnmarshalText", "Is"}, d.Name.Name)
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	case *ast.IndexExpr:
		return receiver(e.X)
	}
	return ""
}

func undocumentedSpecs(d *ast.GenDecl) []string {
	var out []string
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil {
				out = append(out, spec.Name.Name)
			}
		case *ast.ValueSpec:
			if spec.Names[0].IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
				out = append(out, spec.Names[0].Name)
			}
		}
	}
	return out
}

func TestEveryDependencyHasAReason(t *testing.T) {
	f, err := os.Open("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var direct []string
	for scan := bufio.NewScanner(f); scan.Scan(); {
		fields := strings.Fields(strings.TrimPrefix(scan.Text(), "require "))
		if len(fields) == 2 && strings.HasPrefix(fields[1], "v") {
			direct = append(direct, fields[0])
		}
	}
	sort.Strings(direct)
	for _, m := range direct {
		if dependencies[m] == "" {
			t.Errorf("go.mod requires %s: write its reason into the allow-list, or do without", m)
		}
	}
	for m := range dependencies {
		if !slices.Contains(direct, m) {
			t.Errorf("the allow-list names %s, which go.mod does not require: delete the line", m)
		}
	}
}

// Tests prove; they do not wait, skip, or leave a note for later.
func TestNothingIsSkippedAsleepOrLeftUndone(t *testing.T) {
	all, fset := sources(t)
	for _, s := range all {
		if s.path == "cmd/layout_test.go" {
			continue
		}
		for _, c := range s.file.Comments {
			if text := c.Text(); strings.Contains(text, "TODO") || strings.Contains(text, "FIXME") || strings.Contains(text, "nolint") {
				t.Errorf("%s: finish it or write it into the issue", fset.Position(c.Pos()))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !s.test {
				return true
			}
			x, _ := sel.X.(*ast.Ident)
			if x != nil && (x.Name == "time" && sel.Sel.Name == "Sleep" || strings.HasPrefix(sel.Sel.Name, "Skip") && (x.Name == "t" || x.Name == "b")) {
				t.Errorf("%s: %s.%s in a test", fset.Position(n.Pos()), x.Name, sel.Sel.Name)
			}
			return true
		})
	}
}
