package enforce

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestACommandLineIsReadAsSshdReadsIt(t *testing.T) {
	for cmdline, want := range map[string][]string{
		"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\x00":                {},
		"sshd: /usr/sbin/sshd -D -f /etc/ssh/two [listener] 1 of 10-100 startups":    {"-f", "/etc/ssh/two"},
		"sshd: /usr/sbin/sshd -Df/etc/ssh/two -p 2222 [listener] 0 of 10-100 startu": {"-f", "/etc/ssh/two"},
		"/usr/sbin/sshd\x00-D\x00-o\x00UsePAM=no\x00-oPort=1\x00":                    {"-o", "UsePAM=no", "-o", "Port=1"},
		"sshd: /usr/sbin/sshd -E -f -f /two [listener] 0":                            {"-f", "/two"},
		"sshd: alice [priv]\x00": {},
		"sshd: alice@pts/0\x00":  {},
	} {
		if diff := cmp.Diff(want, append([]string{}, configOptions(listenerWords([]byte(cmdline)))...)); diff != "" {
			t.Errorf("%q: %s", cmdline, diff)
		}
	}
}

func TestAnSshdConfigurationIsReadInOrder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main":   "# Port 1\nInclude " + dir + "/*.conf\n\"UsePAM\" no\nMatch User a\n  ChallengeResponseAuthentication=yes # why\nInclude " + dir + "/last\nport 2\nMatch all\nPort\t3\n",
		"a.conf": "Match Address 10.0.0.0/8\nPort 4\n", "b.conf": "Port 5\n", "last": "Port 6\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := directives(filepath.Join(dir, "main"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range got {
		lines = append(lines, filepath.Base(d.where())+": "+d.keyword+" "+d.value+" ["+d.match+"]")
	}
	want := []string{"a.conf line 2: port 4 [Address 10.0.0.0/8]", "b.conf line 1: port 5 []", "main line 3: usepam no []",
		"main line 5: kbdinteractiveauthentication yes [User a]", "last line 1: port 6 [User a]", "main line 7: port 2 [User a]", "main line 9: port 3 [all]"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestWhatMayEndAPhaseBeforeUs(t *testing.T) {
	const account, session = "account required pam_pim.so", "session required pam_pim.so"
	for sentence, c := range map[string]struct {
		phase   string
		lines   []string
		reached bool
	}{
		"nothing before us":                   {"account", []string{account}, true},
		"never asked":                         {"account", []string{"account required pam_unix.so"}, false},
		"asked in another phase only":         {"session", []string{account}, false},
		"required before us":                  {"account", []string{"account required pam_nologin.so", account}, true},
		"sufficient before us":                {"account", []string{"account sufficient pam_ldap.so", account}, false},
		"a jump before us":                    {"account", []string{"account [success=1 default=ignore] pam_x.so", account}, false},
		"done before us":                      {"account", []string{"account [default=done] pam_x.so", account}, false},
		"a refusal that ends is a refusal":    {"account", []string{"account requisite pam_x.so", "account [success=ok default=die] pam_x.so", account}, true},
		"a failed session is passed over":     {"session", []string{"session requisite pam_x.so", session}, false},
		"so is one that dies":                 {"session", []string{"session [success=ok default=die] pam_x.so", session}, false},
		"pam_selinux as Debian has it":        {"session", []string{"session [success=ok ignore=ignore module_unknown=ignore default=bad] pam_selinux.so close", session}, true},
		"Debian's own beginning":              {"session", append(append([]string{}, primary...), session), true},
		"Debian's own beginning without deny": {"session", []string{primary[0], primary[2], session}, false},
		"optional for us is not required":     {"session", []string{"session optional pam_pim.so"}, false},
	} {
		var lines []pamLine
		for _, text := range c.lines {
			lines = append(lines, pamLine{"/etc/pam.d/x", text})
		}
		if err := reaches("x", c.phase, lines); (err == nil) != c.reached {
			t.Errorf("%s: %v", sentence, err)
		}
	}
}
