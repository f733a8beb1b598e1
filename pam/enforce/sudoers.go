package enforce

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// verifySudoers sees that our deny comes last: sudoers is last match wins (FACTS F20).
func verifySudoers() error {
	text, err := os.ReadFile("/etc/sudoers")
	if err != nil {
		return err
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line != "" && (!strings.HasPrefix(line, "#") || strings.HasPrefix(line, "#include")) {
			last = line
		}
	}
	if !slices.Contains([]string{"@includedir /etc/sudoers.d", "#includedir /etc/sudoers.d"}, last) {
		return problem("/etc/sudoers: its last line is "+last+", which would overrule our deny", "make @includedir /etc/sudoers.d its last line")
	}
	entries, err := os.ReadDir("/etc/sudoers.d")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		read := !strings.Contains(name, ".") && !strings.HasSuffix(name, "~")
		if read && name > filepath.Base(sudoersDropIn) {
			return problem("/etc/sudoers.d/"+name+" is read after ours and would overrule it", "rename it so that it sorts before zz-pim-ssh")
		}
	}
	return nil
}

// verifySudoSources sees that sudo asks nobody but the sudoers file last: rules from LDAP or SSSD, and those of another
// sudoers file or another policy plugin, would overrule our deny or never come to it.
func verifySudoSources() error {
	sources, err := linesOf("/etc/nsswitch.conf")
	if err != nil {
		return err
	}
	for _, words := range sources {
		if words[0] == "sudoers:" && (words[len(words)-1] != "files" || strings.Contains(strings.Join(words, " "), "[")) {
			return problem("/etc/nsswitch.conf: \""+strings.Join(words, " ")+"\" lets other rules overrule our deny", "write into /etc/nsswitch.conf: sudoers: files")
		}
	}
	plugins, err := linesOf("/etc/sudo.conf")
	if err != nil {
		return err
	}
	for _, words := range plugins {
		if words[0] == "Plugin" && strings.Contains(strings.Join(words, " "), "policy") && !slices.Equal(words, []string{"Plugin", "sudoers_policy", "sudoers.so"}) {
			return problem("/etc/sudo.conf: \""+strings.Join(words, " ")+"\" makes sudo read other rules than ours", "write into /etc/sudo.conf: Plugin sudoers_policy sudoers.so")
		}
	}
	return nil
}

// linesOf is a file's lines as words, without comments and empty ones; a file that is not there has none.
func linesOf(file string) ([][]string, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, words)
		}
	}
	return out, nil
}
