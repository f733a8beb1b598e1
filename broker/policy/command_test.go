package policy

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseCommandRefuses(t *testing.T) {
	for what, text := range map[string]string{
		"nothing":                   "",
		"a relative path":           "bin/id",
		"all in lower case":         "all",
		"ALL with an argument":      "ALL x",
		"a directory":               "/usr/bin/",
		"the root directory":        "/",
		"a path that climbs":        "/usr/../bin/id",
		"a step that is a dot":      "/usr/./bin/id",
		"a double slash":            "/usr//bin/id",
		"a wildcard":                "/usr/bin/*",
		"a regular expression":      "^/usr/bin/.*$",
		"arguments by expression":   "/usr/bin/id ^.*$",
		"an argument that climbs":   "/usr/bin/cat /var/../etc/shadow",
		"an option that climbs":     "/usr/bin/cat --file=../x",
		"a remote path that climbs": "/usr/bin/scp host:../x",
		"only dots":                 "/usr/bin/cat ..",
		"two spaces":                "/usr/bin/id  -u",
		"a space at the end":        "/usr/bin/id ",
		"a space at the start":      " /usr/bin/id",
		"a tab":                     "/usr/bin/id\t-u",
		"a newline":                 "/usr/bin/id\nALL ALL=(ALL) ALL",
		"a carriage return":         "/usr/bin/id\r",
		"a NUL":                     "/usr/bin/id\x00",
		"a backslash":               `/usr/bin/id \,`,
		"a backslash at the end":    `/usr/bin/id\`,
		"empty quotes":              `/usr/bin/id ""`,
		"quotes":                    `/usr/bin/id "-u"`,
		"a comment":                 "/usr/bin/id #x",
		"a second command":          "/usr/bin/id, /bin/sh",
		"a comma in the path":       "/usr/bin/i,d",
		"a colon in the path":       "/usr/bin/i:d",
		"an equals sign in path":    "/usr/bin/i=d",
		"a tag":                     "NOPASSWD: /usr/bin/id",
		"a negation":                "!/usr/bin/id",
		"an alias":                  "SHELLS",
		"sudoedit":                  "sudoedit /etc/hosts",
		"sudoedit by path":          "/usr/bin/sudoedit /etc/hosts",
		"the built-in list":         "list",
		"a digest":                  "sha224:0GomF8mNN3wlDt1HD9XldjJ3SNgpFdbjO1+NsQ== /usr/bin/id",
		"a home directory":          "/usr/bin/cat ~root/x",
		"a variable":                "/usr/bin/cat $HOME",
		"a letter beyond ASCII":     "/usr/bin/ïd",
		"invalid UTF-8":             "/usr/bin/\xff",
		"too long":                  "/" + strings.Repeat("a", MaxCommand),
	} {
		t.Run(what, func(t *testing.T) {
			if c, err := ParseCommand(text); err == nil || c != "" {
				t.Errorf("%q was read as %q", text, c)
			}
		})
	}
}

func TestSudoersEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"ALL":                                   "ALL",
		"/usr/bin/id":                           `/usr/bin/id ""`,
		"/usr/bin/systemctl restart x@1.socket": `/usr/bin/systemctl restart x@1.socket`,
		"/usr/bin/setfacl -m u:a:rx,g:b:r /srv": `/usr/bin/setfacl -m u\:a\:rx\,g\:b\:r /srv`,
		"/usr/bin/env A=b /usr/bin/id":          `/usr/bin/env A\=b /usr/bin/id`,
	} {
		c, err := ParseCommand(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Sudoers(); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
	}
}

// TestThreatSudoRuleInjection asks sudo's own parser what random commands mean: each must come back as exactly itself, in
// exactly one rule.
func TestThreatSudoRuleInjection(t *testing.T) {
	word := rapid.StringOfN(rapid.RuneFrom([]rune(argsAlpha)), 1, 12, -1)
	step := rapid.StringOfN(rapid.RuneFrom([]rune(pathAlpha)), 1, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		var commands []Command
		for range 40 {
			text := "/" + strings.Join(rapid.SliceOfN(step, 1, 3).Draw(t, "path"), "/")
			text = strings.Join(append([]string{text}, rapid.SliceOfN(word, 0, 4).Draw(t, "arguments")...), " ")
			if c, err := ParseCommand(text); err == nil {
				commands = append(commands, c)
			}
		}
		var want, lines []string
		for _, c := range commands {
			lines = append(lines, "alice ALL=(root) NOTAFTER=20301231235959Z NOPASSWD: "+c.Sudoers())
			if !strings.Contains(string(c), " ") {
				c += ` ""`
			}
			want = append(want, string(c))
		}
		if diff := cmp.Diff(want, askSudo(t, lines)); diff != "" {
			t.Fatalf("-meant +understood\n%s", diff)
		}
	})
}

// askSudo returns the commands that cvtsudoers reads from the lines, one rule each.
func askSudo(t *rapid.T, lines []string) []string {
	tool := exec.Command("cvtsudoers", "-c", "/dev/null", "-f", "json", "-")
	tool.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var complaints bytes.Buffer
	tool.Stderr = &complaints
	out, err := tool.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("cvtsudoers: %v: %s\n%s", err, complaints.String(), strings.Join(lines, "\n"))
	}
	var file struct {
		Specs []struct {
			Commands []struct {
				Commands []struct {
					Command string `json:"command"`
				} `json:"Commands"`
			} `json:"Cmnd_Specs"`
		} `json:"User_Specs"`
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, spec := range file.Specs {
		for _, list := range spec.Commands {
			for _, c := range list.Commands {
				commands = append(commands, c.Command)
			}
		}
	}
	return commands
}
