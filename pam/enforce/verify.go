package enforce

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Verify reads back, with sshd's and sudo's own parsers, that the plan holds here and that nothing later in their order
// overrules it. It changes nothing.
func Verify(ctx context.Context, p Plan) error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	for _, check := range []func() error{
		func() error { return verifySSHD(ctx, p, string(passwd)) },
		verifySudoers,
		verifyPAM,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// verifySSHD asks sshd itself, account by account: the governed ones have our doors and no other, and nobody else
// accepts our CA (FACTS F17).
func verifySSHD(ctx context.Context, p Plan, passwd string) error {
	for _, a := range p.Governed {
		have, err := effective(ctx, string(a))
		if err != nil {
			return err
		}
		for _, kv := range sshdKeywords {
			want := strings.ToLower(kv[1])
			if got := strings.ToLower(have[strings.ToLower(kv[0])]); !sameValue(got, want) {
				return problem(fmt.Sprintf("sshd: %s for %s is %q, not %q", kv[0], a, got, kv[1]), "find what overrules "+sshdDropIn+": sshd -T -C user="+string(a))
			}
		}
		if have["usepam"] != "yes" {
			return problem("sshd: UsePAM is off: windows could not be enforced", "write UsePAM yes into /etc/ssh/sshd_config")
		}
	}
	for _, name := range p.others(passwd) {
		have, err := effective(ctx, name)
		if err != nil {
			return err
		}
		if have["trustedusercakeys"] == caFile {
			return problem("sshd: "+name+" accepts our CA but no role reaches it here", "find what overrules "+sshdDropIn+": sshd -T -C user="+name)
		}
	}
	return nil
}

// sameValue knows how sshd -T spells: prohibit-password as without-password, and an unset file as none.
func sameValue(got, want string) bool {
	if want == "prohibit-password" {
		return got == "without-password" || got == want
	}
	return got == want || want == "none" && got == ""
}

// effective is sshd's configuration for one account, by lower-case keyword; the first value of a repeated one.
func effective(ctx context.Context, account string) (map[string]string, error) {
	out, err := run(ctx, "sshd", "-T", "-C", "user="+account+",host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22")
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, seen := have[key]; !seen {
			have[key] = value
		}
	}
	return have, nil
}

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
