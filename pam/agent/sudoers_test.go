package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

var tools = Tools{Visudo: "/usr/sbin/visudo", Cvtsudoers: "/usr/bin/cvtsudoers"}

const stemForTests = broker.Stem("abcdefghijklmnopqrstuvwx27")

// drawGrant draws any grant whose sudo rules policy lets through.
func drawGrant(t *rapid.T) broker.Grant {
	account := rapid.StringMatching(`[a-z_][a-z0-9_-]{0,30}`)
	path := rapid.StringMatching(`(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,8}){1,4}`)
	argument := rapid.StringMatching(`[A-Za-z0-9_.+/@%:=,-]{1,20}`)
	command := rapid.Custom(func(t *rapid.T) policy.Command {
		if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
			return policy.All
		}
		words := append([]string{path.Draw(t, "path")}, rapid.SliceOfN(argument, 0, 4).Draw(t, "arguments")...)
		return policy.Command(strings.Join(words, " "))
	}).Filter(func(c policy.Command) bool { _, err := policy.ParseCommand(string(c)); return err == nil })
	g := broker.Grant{Stem: stemForTests, Account: statement.Account(account.Draw(t, "account")),
		Until: statement.Time(rapid.Int64Range(1_700_000_000, 4_000_000_000).Draw(t, "until"))}
	for range rapid.IntRange(1, 3).Draw(t, "rules") {
		g.Sudo = append(g.Sudo, policy.SudoRule{As: statement.Account(account.Draw(t, "as")), Commands: rapid.SliceOfN(command, 1, 4).Draw(t, "commands")})
	}
	return g
}

// Whatever policy lets through, sudo's own parsers read it as exactly what was meant.
func TestSudoersReadAsMeant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGrant(t)
		want := sudoRules(g)
		text, err := renderSudoers(g.Stem, want)
		if err != nil {
			t.Fatal(err)
		}
		if err := tools.verify(t.Context(), text, want); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}

// The comparison is what protects: any other text than the meant one is refused, however well it parses.
func TestSudoersThatMeanSomethingElseAreRefused(t *testing.T) {
	want := []sudoRule{{"alice", "root", "20301231235959Z", "/usr/bin/systemctl restart postgresql"}}
	const rule = "alice ALL=(root) NOTAFTER=20301231235959Z NOPASSWD: /usr/bin/systemctl restart postgresql\n"
	if err := tools.verify(t.Context(), []byte(rule), want); err != nil {
		t.Fatalf("the meant one: %v", err)
	}
	for sentence, text := range map[string]string{
		"empty":                     "",
		"torn behind the path":      "alice ALL=(root) NOTAFTER=20301231235959Z NOPASSWD: /usr/bin/systemctl",
		"torn in an argument":       rule[:len(rule)-4],
		"any arguments":             strings.Replace(rule, " restart postgresql", "", 1),
		"a wildcard":                strings.Replace(rule, "postgresql", "*", 1),
		"a pattern":                 strings.Replace(rule, "restart postgresql", "^.*$", 1),
		"another account":           strings.Replace(rule, "alice", "mallory", 1),
		"a group":                   strings.Replace(rule, "alice", "%alice", 1),
		"a numeric uid":             strings.Replace(rule, "alice", "#1001", 1),
		"everybody":                 strings.Replace(rule, "alice", "ALL", 1),
		"as anybody":                strings.Replace(rule, "(root)", "(ALL)", 1),
		"as root or postgres":       strings.Replace(rule, "(root)", "(root, postgres)", 1),
		"with a group to run as":    strings.Replace(rule, "(root)", "(root:adm)", 1),
		"a later end":               strings.Replace(rule, "2030", "2031", 1),
		"no end":                    strings.Replace(rule, "NOTAFTER=20301231235959Z ", "", 1),
		"a password asked":          strings.Replace(rule, "NOPASSWD: ", "", 1),
		"the environment kept":      strings.Replace(rule, "NOPASSWD:", "NOPASSWD: SETENV:", 1),
		"one command more":          strings.Replace(rule, "\n", ", /usr/bin/id \"\"\n", 1),
		"one rule more":             rule + "alice ALL=(root) NOTAFTER=20301231235959Z NOPASSWD: ALL\n",
		"the rule twice":            rule + rule,
		"a default":                 rule + "Defaults !pam_acct_mgmt\n",
		"an alias":                  "User_Alias PIM = alice\n" + rule,
		"an include":                rule + "@include /etc/sudoers\n",
		"not sudoers at all":        "{}",
		"one host only":             strings.Replace(rule, "ALL=", "db1=", 1),
		"another working directory": strings.Replace(rule, "NOPASSWD:", "CWD=* NOPASSWD:", 1),
	} {
		t.Run(sentence, func(t *testing.T) {
			if tools.verify(t.Context(), []byte(text), want) == nil {
				t.Errorf("accepted:\n%s", text)
			}
		})
	}
}

// What is not typed never becomes text: each of these was an injection somewhere.
func TestHostileWordsNeverReachSudoers(t *testing.T) {
	good := sudoRule{"alice", "root", "20301231235959Z", "/usr/bin/id"}
	for sentence, bend := range map[string]func(*sudoRule){
		"a newline in the account":    func(r *sudoRule) { r.Account = "alice ALL=(ALL) NOPASSWD: ALL\nalice" },
		"a comma in the account":      func(r *sudoRule) { r.Account = "alice,mallory" },
		"ALL for an account":          func(r *sudoRule) { r.Account = "ALL" },
		"a negated account":           func(r *sudoRule) { r.Account = "!root" },
		"a uid for an account":        func(r *sudoRule) { r.Account = "#0" },
		"no account":                  func(r *sudoRule) { r.Account = "" },
		"ALL to run as":               func(r *sudoRule) { r.As = "ALL" },
		"a closed bracket to run as":  func(r *sudoRule) { r.As = "root) NOPASSWD: ALL #" },
		"nobody to run as":            func(r *sudoRule) { r.As = "" },
		"a newline in the command":    func(r *sudoRule) { r.Command = "/usr/bin/id\nalice ALL=(ALL) NOPASSWD: ALL" },
		"a comma in the path":         func(r *sudoRule) { r.Command = "/usr/bin/id,ALL" },
		"a backslash in the command":  func(r *sudoRule) { r.Command = `/usr/bin/id \` },
		"a wildcard in the command":   func(r *sudoRule) { r.Command = "/usr/bin/* x" },
		"a comment in the command":    func(r *sudoRule) { r.Command = "/usr/bin/id #" },
		"a quote in the command":      func(r *sudoRule) { r.Command = `/usr/bin/id ""` },
		"a relative command":          func(r *sudoRule) { r.Command = "id" },
		"sudoedit":                    func(r *sudoRule) { r.Command = "sudoedit /etc/hosts" },
		"no command":                  func(r *sudoRule) { r.Command = "" },
		"no end":                      func(r *sudoRule) { r.NotAfter = "" },
		"an end with words behind it": func(r *sudoRule) { r.NotAfter = "20301231235959Z NOPASSWD: ALL" },
	} {
		t.Run(sentence, func(t *testing.T) {
			r := good
			bend(&r)
			if text, err := renderSudoers(stemForTests, []sudoRule{r}); err == nil {
				t.Errorf("rendered:\n%s", text)
			}
		})
	}
	if _, err := renderSudoers(stemForTests, []sudoRule{good}); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// F7: sudo obeys a rule while now ≤ NOTAFTER, in whole seconds; our windows are half open.
func TestF7TheRuleEndsWithTheWindowsLastSecond(t *testing.T) {
	until, err := statement.ParseTime("2026-11-23T09:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	if got := notAfter(until); got != "20261123085959Z" {
		t.Errorf("NOTAFTER=%s", got)
	}
}

// F8: the name never has a dot or tilde once it stands, always one before, and nothing is written in place.
func TestF8SudoersFilesAppearWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	g := broker.Grant{Stem: stemForTests, Account: "alice", Until: 2_000_000_000, Sudo: []policy.SudoRule{{As: "root", Commands: []policy.Command{"/usr/bin/id"}}}}
	if err := tools.writeSudoers(t.Context(), dir, g); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(dir, "g-"+string(stemForTests)))
	if err != nil || before.Mode().Perm() != sudoersMode {
		t.Fatalf("%v, %v", before, err)
	}
	if err := tools.writeSudoers(t.Context(), dir, g); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(filepath.Join(dir, "g-"+string(stemForTests)))
	if err != nil || os.SameFile(before, after) {
		t.Error("the file was written in place")
	}
	g.Sudo = slices.Clone(g.Sudo)
	g.Sudo[0].Commands = []policy.Command{"/usr/bin/id\nmallory ALL=(ALL) ALL"}
	if err := tools.writeSudoers(t.Context(), dir, g); err == nil {
		t.Error("a hostile rule was written")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func TestAGrantWithoutSudoHasNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := tools.writeSudoers(t.Context(), dir, broker.Grant{Stem: stemForTests, Account: "alice", Until: 2_000_000_000}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}
