package enforce

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// enableProfiles has Debian's own pam-auth-update place our lines.
func enableProfiles(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := os.Stat("/usr/share/pam-configs/" + name); err != nil {
			return problem("no PAM profile "+name+": "+err.Error(), "apt install --reinstall pim-ssh-host")
		}
	}
	if _, err := run(ctx, "pam-auth-update", append([]string{"--package", "--enable"}, names...)...); err != nil {
		return problem(err.Error(), "pam-auth-update --help")
	}
	return nil
}

func disableProfiles(ctx context.Context) error {
	_, err := run(ctx, "pam-auth-update", "--package", "--disable", "pim-ssh", "systemd+pim-ssh")
	return err
}

// verifyPAM sees our lines where they count: an empty or reordered stack allows (FACTS F13), and a line after
// pam_systemd has no effect (F18).
func verifyPAM() error {
	const hint = "locally changed? compare with: pam-auth-update --force"
	account, err := stack("common-account")
	if err != nil {
		return err
	}
	if at(account, "account required pam_pim.so") != 0 { // behind pam_unix an expired password ends the stack before us
		return problem("/etc/pam.d/common-account does not call pam_pim.so first", hint)
	}
	session, err := stack("common-session")
	if err != nil {
		return err
	}
	open, inside, systemd := at(session, "session required pam_pim.so"), at(session, "session [success=1 default=ignore] pam_pim.so inside"), at(session, "session optional pam_systemd.so")
	if open < 0 || inside < 0 || open > inside || systemd >= 0 && systemd != inside+1 {
		return problem("/etc/pam.d/common-session does not have pam_pim.so before, and pam_pim.so inside directly before, pam_systemd", hint)
	}
	plain, err := stack("common-session-noninteractive")
	if err != nil {
		return err
	}
	if at(plain, "session required pam_pim.so") < 0 {
		return problem("/etc/pam.d/common-session-noninteractive does not call pam_pim.so", hint)
	}
	return verifyDoors()
}

// verifyReleased sees that no PAM service calls our module: pam-auth-update changes none of its files when one was changed locally.
func verifyReleased() error {
	files, err := filepath.Glob("/etc/pam.d/*")
	if err != nil {
		return err
	}
	var calling []string
	for _, path := range files {
		lines, err := stack(filepath.Base(path))
		if err != nil {
			return err
		}
		if slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "pam_pim.so") }) {
			calling = append(calling, path)
		}
	}
	if len(calling) == 0 {
		return nil
	}
	all := strings.Join(calling, " ")
	return problem(all+" still call pam_pim.so: pam-auth-update keeps off files that were changed locally", "sed -i /pam_pim.so/d "+all)
}

// stack is a PAM file's lines, without comments, each with single spaces.
func stack(name string) ([]string, error) { return stackIn("/etc/pam.d/" + name) }

func stackIn(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return lines, nil
}

// at is the index of a line, or -1.
func at(lines []string, want string) int {
	for i, line := range lines {
		if line == want {
			return i
		}
	}
	return -1
}
