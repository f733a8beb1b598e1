package enforce

import (
	"strings"
	"testing"
)

// THREATS, sudo: known sudo holes below a version.
func TestSudoVersionFloor(t *testing.T) {
	for sentence, c := range map[string]struct{ text, refused string }{
		"Debian 12's is sound":                 {"Sudo version 1.9.13p3\nSudoers policy plugin …\n", ""},
		"the mended one is sound":              {"Sudo version 1.9.17p1\n", ""},
		"a newer one is sound":                 {"Sudo version 1.10.0\n", ""},
		"sudoedit's hole is refused":           {"Sudo version 1.9.12p1\n", "CVE-2023-22809"},
		"an ancient one is refused":            {"Sudo version 1.8.31\n", "CVE-2023-22809"},
		"the chroot hole is refused":           {"Sudo version 1.9.16p2\n", "CVE-2025-32463"},
		"the last with the chroot hole too":    {"Sudo version 1.9.17\n", "CVE-2025-32463"},
		"a version that cannot be read is one": {"sudo-rs 0.2.3\n", "no release"},
		"nothing is refused":                   {"", "no release"},
	} {
		t.Run(sentence, func(t *testing.T) {
			v, err := parseSudoVersion(c.text)
			if err == nil {
				err = v.sound()
			}
			if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%q: %v, want refused for %q", c.text, err, c.refused)
			}
		})
	}
}
