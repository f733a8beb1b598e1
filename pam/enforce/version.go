package enforce

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// version is sudo's own numbering: 1.9.13p3 is {1, 9, 13, 3}.
type version [4]int

// holes are the sudo versions under which no grant would mean what it says, each a known way from any account to
// root or around the rule: from the first that has it up to, not including, the first that does not. Upstream numbers
// only: a distribution that mends an older number keeps it, and 1.9.13p3 with Debian's mends is the oldest we take.
var holes = []struct {
	from, before version
	why          string
}{
	{version{}, version{1, 9, 12, 2}, "sudoedit edits any file (CVE-2023-22809), and what older ones have"},
	{version{1, 9, 14}, version{1, 9, 17, 1}, "--chroot runs anybody's code as root (CVE-2025-32463)"},
}

var sudoVersion = regexp.MustCompile(`^Sudo version (\d+)\.(\d+)\.(\d+)(?:p(\d+))?\n`)

// parseSudoVersion reads the first line of `sudo -V`.
func parseSudoVersion(text string) (version, error) {
	m := sudoVersion.FindStringSubmatch(text)
	if m == nil {
		line, _, _ := strings.Cut(text, "\n")
		return version{}, problem("sudo tells its version as "+strconv.Quote(line)+", which is no release", "install a released sudo")
	}
	var v version
	for i, digits := range m[1:] {
		v[i], _ = strconv.Atoi(digits) // "" is no patch level: 0
	}
	return v, nil
}

// sound refuses a sudo with a known hole.
func (v version) sound() error {
	for _, h := range holes {
		if slices.Compare(v[:], h.from[:]) >= 0 && slices.Compare(v[:], h.before[:]) < 0 {
			return problem(fmt.Sprintf("sudo %d.%d.%d (patch %d) is unsafe: %s", v[0], v[1], v[2], v[3], h.why), "upgrade sudo, then: pim-hostd enforce")
		}
	}
	return nil
}

func verifySudoVersion(ctx context.Context) error {
	text, err := run(ctx, "sudo", "-V")
	if err != nil {
		return err
	}
	v, err := parseSudoVersion(text)
	if err != nil {
		return err
	}
	return v.sound()
}
