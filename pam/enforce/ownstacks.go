package enforce

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// insideLine stands before pam_systemd in stacks that call it themselves (Debian's runuser-l does): without it a
// process in a grant's unit is moved to a session of its own, which no reaper ends (FACTS F18).
const insideLine = "session\t[success=1 default=ignore]\tpam_pim.so inside\n"

// ownStacks are the PAM files, other than pam-auth-update's and the user manager's, that call pam_systemd themselves.
func ownStacks() ([]string, error) {
	files, err := filepath.Glob("/etc/pam.d/*")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(files, func(path string) bool {
		name := filepath.Base(path)
		return strings.HasPrefix(name, "common-") || name == "systemd-user" || strings.Contains(name, ".")
	}), nil
}

// stayInside puts our line before every pam_systemd line of every own stack.
func stayInside() error {
	return rewriteStacks(func(lines []string) []string {
		var out []string
		for i, line := range lines {
			if callsSystemd(line) && (i == 0 || lines[i-1] != insideLine) {
				out = append(out, insideLine)
			}
			out = append(out, line)
		}
		return out
	})
}

// leaveStacks takes exactly our lines out again.
func leaveStacks() error {
	return rewriteStacks(func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool { return line == insideLine })
	})
}

func rewriteStacks(edit func([]string) []string) error {
	files, err := ownStacks()
	if err != nil {
		return err
	}
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		after := strings.Join(edit(slices.Collect(strings.Lines(string(text)))), "")
		if err := amend(path, after); err != nil {
			return err
		}
	}
	return nil
}

func callsSystemd(line string) bool {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	return len(fields) > 2 && strings.TrimPrefix(fields[0], "-") == "session" && slices.Contains(fields, "pam_systemd.so")
}
